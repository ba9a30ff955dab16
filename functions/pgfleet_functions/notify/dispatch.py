"""POST /notify-dispatch: deliver the messages that are due, poked by the tick."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.notify.email import deliver_email
from pgfleet_functions.notify.messages import Delivery, Outcome
from pgfleet_functions.notify.webhook import deliver_webhook
from pgfleet_functions.outgoing.mail import MailServer
from pgfleet_functions.outgoing.transport import Outgoing, trusted_authorities

log = logging.getLogger(__name__)

HANDS = 16
# A poke follows every second while something is due, so no call has to last for long.
BUDGET_SECONDS = 20.0
FINISH_TRIES = 3

_CLAIM = """
select coalesce(jsonb_agg(to_jsonb(c)), '[]') from fleet.worker_claim_deliveries(1) as c
"""
_FINISH = "select fleet.worker_finish_delivery(%s, %s, %s, %s, %s, %s)"


class Dispatcher:
    """Deliver what is due with a number of hands; each takes the next message when it is free."""

    def __init__(self, mail_server: MailServer | None = None, hands: int = HANDS) -> None:
        self._mail_server = mail_server
        self._hands = hands
        self._authorities = trusted_authorities()
        self._busy = 0

    async def run(self, pool: Pool, budget: float = BUDGET_SECONDS) -> dict[str, int]:
        """Work until nothing is due or the time is over; tell how many ended in which way.

        Calls may overlap: together they have no more hands than one, and the database hands
        out each message once.
        """
        counts: Counter[str] = Counter()
        failures: list[FunctionError] = []
        end = time.monotonic() + budget
        async with aclosing(Outgoing(self._authorities)) as outgoing, asyncio.TaskGroup() as tasks:

            async def work() -> None:
                self._busy += 1
                try:
                    while time.monotonic() < end:
                        delivery = await _claim(pool)
                        if delivery is None:
                            return
                        # Where there is one there may be another: not more hands than work.
                        if self._busy < self._hands:
                            tasks.create_task(work())
                        outcome = await self._deliver(outgoing, delivery)
                        counts[await _finish(pool, delivery, outcome)] += 1
                except FunctionError as error:
                    # The other hands are in the middle of a message: let them finish.
                    failures.append(error)
                finally:
                    self._busy -= 1

            if self._busy < self._hands:
                await work()
        if failures and not counts:
            raise failures[0]
        return dict(counts)

    async def _deliver(self, outgoing: Outgoing, delivery: Delivery) -> Outcome:
        try:
            if delivery.channel == "email":
                return await deliver_email(self._mail_server, delivery)
            return await deliver_webhook(outgoing, delivery)
        except Exception as error:
            # One message that trips us up must not stop the others.
            log.exception("delivery %s failed", delivery.delivery_id)
            return Outcome("retry", error=f"the function failed: {type(error).__name__}")


async def notify_dispatch(request: Request, _: dict[str, Any]) -> Response:
    """Deliver what is due and answer how many messages ended in which way."""
    state = request.app.state
    return JSONResponse(await state.dispatcher.run(state.pool))


async def _claim(pool: Pool) -> Delivery | None:
    rows = await fetch_value(pool, _CLAIM)
    return Delivery(**rows[0]) if rows else None


async def _finish(pool: Pool, delivery: Delivery, outcome: Outcome) -> str:
    """Settle an attempt; a database that is away for a moment must not make it happen twice."""
    for left in reversed(range(FINISH_TRIES)):
        try:
            answer = await fetch_value(
                pool,
                _FINISH,
                delivery.delivery_id,
                delivery.attempt,
                outcome.kind,
                outcome.status,
                outcome.error and outcome.error.replace("\x00", ""),
                outcome.retry_after,
            )
        except FunctionError:
            if not left:
                raise
            await asyncio.sleep(0.5)
        else:
            return str(answer.get("status") or answer.get("reason"))
    raise AssertionError("the last try either returns or raises")
