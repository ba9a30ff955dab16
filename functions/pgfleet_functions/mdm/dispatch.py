"""POST /mdm-dispatch: hand commands to MDMs and see to their effect, poked by the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.mdm.calls import Call, CallFailed, FailureKind
from pgfleet_functions.mdm.inventory import sync_inventories
from pgfleet_functions.mdm.lines import KEY_REFUSED, NO_KEY, Lines, WrongSettings
from pgfleet_functions.mdm.providers import PROVIDERS
from pgfleet_functions.mdm.ratelimit import most_at_once
from pgfleet_functions.mdm.work import Outcome, Work, outcome_of_failure, outcome_of_report

log = logging.getLogger(__name__)

HANDS = 64
CLAIM = 20
# A poke follows every second while something is due, so no call has to last for long.
BUDGET_SECONDS = 20.0
# What an answer may take, with the time to write it down; a call is not begun later than that.
CALL_SECONDS = 35.0
FINISH_TRIES = 3

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_mdm(%s) as c"
# In one transaction: whoever sees the end of an attempt also sees its calls.
_FINISH = """
select fleet.worker_finish_mdm(
  %s, %s, %s, %s, %s, %s, make_interval(secs => %s::double precision)
)
from (select fleet.worker_log_mdm_calls(%s) offset 0) as logged
"""


class MdmDispatcher:
    """Hands over what is due; runs may overlap and then share the hands."""

    def __init__(self, *, allow_private: bool = False, hands: int = HANDS) -> None:
        self._allow_private = allow_private
        self._hands = hands
        self._busy = 0
        # How many commands of each integration are held, of how many that are worth holding.
        self._held: Counter[int] = Counter()
        self._most: dict[int, int] = {}

    async def run(self, pool: Pool, budget: float = BUDGET_SECONDS) -> dict[str, int]:
        """Work until nothing is left or the time is over; tell how many ended in which way."""
        counts: Counter[str] = Counter()
        end = time.monotonic() + budget
        async with AsyncExitStack() as stack:
            lines = Lines(pool, stack, allow_private=self._allow_private)
            syncs = asyncio.create_task(sync_inventories(pool, lines))
            tasks: set[asyncio.Task[None]] = set()
            try:
                while True:
                    claimed = await self._claim(pool) if time.monotonic() < end else []
                    tasks |= {
                        asyncio.create_task(self._handle(pool, lines, work, counts))
                        for work in claimed
                    }
                    if not tasks:
                        break
                    # With nothing to claim, or no hand free for it, something has to end first.
                    if not claimed:
                        _, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Half a call would leave it to the lease: let them come to their end.
                await asyncio.gather(*tasks, return_exceptions=True)
                counts.update(await syncs)
        return dict(counts)

    async def _claim(self, pool: Pool) -> list[Work]:
        room = min(self._hands - self._busy, CLAIM)
        crowded = any(held >= self._most[one] for one, held in self._held.items())
        if room <= 0 or crowded:
            return []
        # Taken while asking, so that runs side by side do not ask for the same hands.
        self._busy += room
        try:
            claims = await fetch_value(pool, _CLAIM, room)
        finally:
            self._busy -= room
        works = [Work.from_claim(claim) for claim in claims]
        self._busy += len(works)
        for work in works:
            self._held[work.integration_id] += 1
            self._most[work.integration_id] = most_at_once(work.settings)
        return works

    async def _handle(self, pool: Pool, lines: Lines, work: Work, counts: Counter[str]) -> None:
        calls: list[Call] = []
        try:
            outcome = await self._attempt(lines, work, calls)
            counts[await _finish(pool, work, outcome, calls)] += 1
        except FunctionError as error:
            # The database is away: the lease ends, and another run takes it up.
            log.warning("command %s is left to its lease: %s", work.order.command_id, error.message)
            counts["left"] += 1
        finally:
            self._busy -= 1
            self._held[work.integration_id] -= 1

    async def _attempt(self, lines: Lines, work: Work, calls: list[Call]) -> Outcome:
        order = work.order
        if work.integration_type not in PROVIDERS:
            text = f"there is no provider for integrations of type {work.integration_type}"
            return Outcome("failed", None, text, "unsupported")
        if not work.secret:
            await lines.pause(work.integration_id, NO_KEY)
            return outcome_of_failure(work, CallFailed(FailureKind.KEY, NO_KEY))
        try:
            provider = await lines.provider(
                work.integration_type,
                work.integration_id,
                work.settings,
                work.secret,
                calls.append,
                seconds=max(work.lease_seconds - CALL_SECONDS, work.lease_seconds / 3),
                urgent=not work.settles,
                command=(order.command_id, order.attempt),
            )
            report = await (provider.settle(order) if work.settles else provider.send(order))
            return outcome_of_report(work, report)
        except CallFailed as failure:
            if failure.kind is FailureKind.KEY and failure.reached:
                await lines.pause(work.integration_id, KEY_REFUSED.format(failure.status))
            return outcome_of_failure(work, failure)
        except WrongSettings as error:
            await lines.pause(work.integration_id, str(error))
            return outcome_of_failure(work, CallFailed(FailureKind.KEY, str(error)))
        except FunctionError:
            raise
        except Exception as error:
            # One command that trips us up must not stop the others.
            log.exception("command %s failed", order.command_id)
            text = f"the function failed: {type(error).__name__}"
            return Outcome("accepted" if work.settles else "failed", order.before, text, "error")


async def mdm_dispatch(request: Request, _: dict[str, Any]) -> Response:
    """Hand over what is due and answer how many commands ended in which way."""
    state = request.app.state
    return JSONResponse(await state.mdm_dispatcher.run(state.pool))


async def _finish(pool: Pool, work: Work, outcome: Outcome, calls: list[Call]) -> str:
    """Settle an attempt; a database that is away for a moment must not make it happen twice."""
    order = work.order
    for left in reversed(range(FINISH_TRIES)):
        try:
            answer = await fetch_value(
                pool,
                _FINISH,
                order.command_id,
                order.attempt,
                outcome.kind,
                Jsonb(outcome.result) if outcome.result is not None else None,
                outcome.error and outcome.error.replace("\x00", ""),
                outcome.reason,
                outcome.retry_after,
                Jsonb([call.row() for call in calls]),
            )
        except FunctionError:
            if not left:
                raise
            await asyncio.sleep(0.5)
        else:
            return str(answer.get("status") or answer.get("reason"))
    raise AssertionError("the last try either returns or raises")
