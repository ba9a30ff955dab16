"""POST /mdm-dispatch: hand commands to MDMs and see to their effect, poked by the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import groupby
from typing import Any, LiteralString

from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.calls import Call, CallFailed
from pgfleet_functions.integrations.connections import Lines, WrongSettings
from pgfleet_functions.integrations.inventory import sync_inventories
from pgfleet_functions.mdm.rereads import reread_devices
from pgfleet_functions.mdm.uploads import upload_profiles
from pgfleet_functions.mdm.work import (
    Integration,
    Outcome,
    Work,
    outcome_of_failure,
    outcome_of_no_look,
    outcome_of_report,
)
from pgfleet_functions.outgoing.transport import Outgoing, trusted_authorities

log = logging.getLogger(__name__)

HANDS = 64
CLAIM = 20
# A poke follows every second while something is due, so no call has to last for long.
BUDGET_SECONDS = 20.0
SHORTEST_WAIT_SECONDS = 0.01
SHORT_WAIT_SECONDS = 0.1
# Whatever is further off is for the next poke.
LONGEST_WAIT_SECONDS = 2.5
# What an answer may take, with the time to write it down; a call is not begun later than that.
CALL_SECONDS = 35.0
# What one look takes at most; those that are not reached by then are due again at once.
LOOK_SECONDS = 2.0
FINISH_TRIES = 3

_CLAIM = "select fleet.worker_claim_mdm(%s, %s)"
# In one transaction: whoever sees the end of an attempt also sees its calls.
_FINISH = """
select fleet.worker_finish_mdm(
  %s, %s, %s, %s, %s, %s, make_interval(secs => %s::double precision)
)
from (select fleet.worker_log_mdm_calls(%s) offset 0) as logged
"""
_FINISH_LOOKS = """
select fleet.worker_finish_looks(%s, %s)
from (select fleet.worker_log_mdm_calls(%s) offset 0) as logged
"""


class MdmDispatcher:
    """Hands over what is due; one run at a time claims, however many pokes come."""

    def __init__(self, *, allow_private: bool = False, hands: int = HANDS) -> None:
        self._allow_private = allow_private
        self._authorities = trusted_authorities()
        self._hands = hands
        self._busy: Counter[int] = Counter()
        self._is_claiming = False
        self._poked = asyncio.Event()

    async def run(self, pool: Pool, budget: float = BUDGET_SECONDS) -> dict[str, int]:
        """Work until nothing is left or the time is over; tell how many ended in which way."""
        counts: Counter[str] = Counter()
        async with AsyncExitStack() as stack:
            outgoing = Outgoing(self._authorities)
            stack.push_async_callback(outgoing.aclose)
            desk = Desk(pool, Lines(pool, outgoing, allow_private=self._allow_private), counts)
            if self._is_claiming:
                self._poked.set()
                return dict(await _do_the_rest(desk))
            rest = asyncio.create_task(_do_the_rest(desk))
            tasks: set[asyncio.Task[None]] = set()
            self._is_claiming, self._poked = True, asyncio.Event()
            try:
                await self._claim_all(desk, tasks, time.monotonic() + budget)
            finally:
                self._is_claiming = False
                # Half a call would leave it to the lease: let them come to their end.
                await asyncio.gather(*tasks, return_exceptions=True)
                counts.update(await rest)
        return dict(counts)

    async def _claim_all(self, desk: Desk, tasks: set[asyncio.Task[None]], end: float) -> None:
        while time.monotonic() < end:
            self._poked.clear()
            room = min(self._hands - self._busy.total(), CLAIM)
            # An account that answers slowly must not have all hands in its lap.
            crowded = [one for one, held in self._busy.items() if held >= self._hands / 2]
            wait = await self._claim(desk, room, crowded, tasks) if room > 0 else None
            is_soon = wait is not None and wait <= LONGEST_WAIT_SECONDS
            if not is_soon and (room <= 0 or crowded):
                await self._hand_or_poke(tasks)
            elif is_soon or self._poked.is_set():
                with suppress(TimeoutError):
                    pause = max(wait or 0, SHORTEST_WAIT_SECONDS)
                    await asyncio.wait_for(self._poked.wait(), pause)
            else:
                return

    async def _hand_or_poke(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait until a hand may be free, perhaps of an earlier run, or another account has work."""
        waker = asyncio.create_task(self._poked.wait())
        try:
            timeout = None if tasks else SHORT_WAIT_SECONDS
            await asyncio.wait(
                {waker, *tasks}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waker.cancel()

    async def _claim(
        self, desk: Desk, room: int, crowded: list[int], tasks: set[asyncio.Task[None]]
    ) -> float | None:
        """Claim and begin; tell after how many seconds more could be claimed."""
        claim = await fetch_value(desk.pool, _CLAIM, room, crowded)
        integrations = {
            int(key): Integration.from_claim(int(key), told)
            for key, told in claim["integrations"].items()
        }

        def begin(integration_id: int, work: Coroutine[Any, Any, None]) -> None:
            self._busy[integration_id] += 1
            task = asyncio.create_task(work)
            tasks.add(task)
            task.add_done_callback(lambda done: self._ended(integration_id, tasks, done))

        for job in claim["sends"]:
            work = Work.from_job(job)
            begin(work.integration_id, desk.send(integrations[work.integration_id], work))
        looks = sorted(map(Work.from_job, claim["looks"]), key=lambda work: work.integration_id)
        for integration_id, works in groupby(looks, key=lambda work: work.integration_id):
            begin(integration_id, desk.look(integrations[integration_id], list(works)))
        return None if claim["wait"] is None else float(claim["wait"])

    def _ended(
        self, integration_id: int, tasks: set[asyncio.Task[None]], task: asyncio.Task[None]
    ) -> None:
        self._busy[integration_id] -= 1
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("work is left to its lease", exc_info=error)


class Desk:
    """What one run of the function does with the work that it has claimed."""

    def __init__(self, pool: Pool, lines: Lines, counts: Counter[str]) -> None:
        self.pool = pool
        self.lines = lines
        self._counts = counts

    async def send(self, integration: Integration, work: Work) -> None:
        """Hand one command over, and write down what came of it."""
        calls: list[Call] = []
        order = work.order
        try:
            outcome = await self._send(integration, work, calls)
            answer = await self._write(
                _FINISH,
                order.command_id,
                order.attempt,
                outcome.kind,
                Jsonb(outcome.result) if outcome.result is not None else None,
                outcome.error and outcome.error.replace("\x00", ""),
                outcome.reason,
                outcome.after,
                Jsonb([call.row() for call in calls]),
            )
            self._counts[str(answer.get("status") or answer.get("reason"))] += 1
        except FunctionError as error:
            # The database is away: the lease ends, and another run takes it up.
            log.warning("command %s is left to its lease: %s", order.command_id, error.message)
            self._counts["left"] += 1

    async def _send(self, integration: Integration, work: Work, calls: list[Call]) -> Outcome:
        order = work.order
        try:
            provider = await self.lines.provider(
                integration,
                calls.append,
                seconds=_seconds_for_calls(work),
                prepaid=1,
                command=(order.command_id, order.attempt),
            )
            return outcome_of_report(order, await provider.send(order))
        except (CallFailed, WrongSettings) as error:
            return outcome_of_failure(await self.lines.failure(integration.id, error))
        except FunctionError:
            raise
        except Exception as error:
            # One command that trips us up must not stop the others.
            log.exception("command %s failed", order.command_id)
            return Outcome("failed", None, f"the function failed: {type(error).__name__}", "error")

    async def look(self, integration: Integration, works: Sequence[Work]) -> None:
        """Look after commands of one integration, and write down what showed."""
        calls: list[Call] = []
        outcomes: dict[int, dict[str, Any]] = {}
        after = None
        first = works[0].order
        try:
            provider = await self.lines.provider(
                integration,
                calls.append,
                seconds=LOOK_SECONDS,
                prepaid=1,
                is_look=True,
                # One call may be for many commands; then it is logged for none of them.
                command=(first.command_id, first.attempt) if len(works) == 1 else (None, None),
            )
            async for order, report in provider.settle([work.order for work in works]):
                outcomes[order.command_id] = outcome_of_report(order, report).row(order)
        except (CallFailed, WrongSettings) as error:
            after = (await self.lines.failure(integration.id, error)).retry_after
        except FunctionError as error:
            log.warning("looks are cut short: %s", error.message)
        except Exception:
            # What one device shows must not keep the others from being written down.
            log.exception("looks failed")
        for order in (work.order for work in works if work.order.command_id not in outcomes):
            outcomes[order.command_id] = outcome_of_no_look(order, after).row(order)
        try:
            ended = await self._write(
                _FINISH_LOOKS,
                integration.id,
                Jsonb(list(outcomes.values())),
                Jsonb([call.row() for call in calls]),
            )
            self._counts.update(
                {"looked": len(works)} | {k: v for k, v in ended.items() if k != "accepted"}
            )
        except FunctionError as error:
            log.warning("looks are left to their lease: %s", error.message)

    async def _write(self, query: LiteralString, *parameters: Any) -> Any:
        """Write an end down; a database that is away for a moment must not make it happen twice."""
        for left in reversed(range(FINISH_TRIES)):
            try:
                return await fetch_value(self.pool, query, *parameters)
            except FunctionError:
                if not left:
                    raise
                await asyncio.sleep(0.5)
        raise AssertionError("the last try either returns or raises")


def _seconds_for_calls(work: Work) -> float:
    return max(work.lease_seconds - CALL_SECONDS, work.lease_seconds / 3)


async def _do_the_rest(desk: Desk) -> Counter[str]:
    """Do what is due beside the commands of devices."""
    jobs = (sync_inventories, reread_devices, upload_profiles)
    done = await asyncio.gather(*(job(desk.pool, desk.lines) for job in jobs))
    return sum(done, Counter())


async def mdm_dispatch(request: Request, _: dict[str, Any]) -> Response:
    """Hand over what is due and answer how many commands ended in which way."""
    state = request.app.state
    return JSONResponse(await state.mdm_dispatcher.run(state.pool))
