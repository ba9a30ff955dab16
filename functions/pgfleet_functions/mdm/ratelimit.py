"""The rate of an integration: leave for each call is taken from a bucket in the database."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.mdm.calls import CallFailed, FailureKind

MOST_AT_ONCE = 50
SHORTEST_WAIT_SECONDS = 0.005

_TAKE = """
select t || jsonb_build_object(
  'wait', extract(epoch from (t ->> 'retry_at')::timestamptz - clock_timestamp())
)
from fleet.worker_take_rate(%s, %s) as t
"""
_LEARN = """
select fleet.worker_learn_rate(
  %s, null, clock_timestamp() + make_interval(secs => %s::double precision)
)
"""


def most_at_once(settings: Mapping[str, Any]) -> int:
    """Tell how many commands of an integration are worth holding: what goes out within seconds.

    More would only wait for leave, in the way of other integrations, and lose their leases.
    """
    rate = float(settings.get("rate_per_second") or 1)
    return max(5, round(rate * 2.25))


class RateGate:
    """Lets calls through as the bucket grants them; orders that are sent go before looks."""

    def __init__(self, pool: Pool, integration_id: int) -> None:
        self._pool = pool
        self._integration_id = integration_id
        self._urgent: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._patient: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._filling: asyncio.Task[None] | None = None

    async def enter(self, deadline: float, *, urgent: bool) -> None:
        """Wait for leave; raise `CallFailed` when it cannot come before the deadline."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._patient).append((deadline, place))
        # One asks for all: the bucket's row is locked once, not once for each of them.
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill())
        await place

    async def slow_down(self, seconds: float | None) -> None:
        """Let all processes know that it was too much."""
        await fetch_value(self._pool, _LEARN, self._integration_id, seconds)

    async def _fill(self) -> None:
        try:
            while wanted := len(self._urgent) + len(self._patient):
                answer = await fetch_value(
                    self._pool, _TAKE, self._integration_id, min(wanted, MOST_AT_ONCE)
                )
                for _ in range(answer["granted"]):
                    self._next().set_result(None)
                if answer.get("reason") == "integration_not_active":
                    self._refuse_all(CallFailed(FailureKind.KEY, "paused", reached=False))
                wait = max(float(answer["wait"] or 0), SHORTEST_WAIT_SECONDS)
                self._refuse_late(time.monotonic() + wait, wait)
                if self._urgent or self._patient:
                    await asyncio.sleep(wait)
        except Exception as error:
            # Those who wait are told; the next one who enters asks again.
            self._refuse_all(error)

    def _next(self) -> asyncio.Future[None]:
        return (self._urgent or self._patient).popleft()[1]

    def _refuse_late(self, earliest: float, wait: float) -> None:
        for queue in (self._urgent, self._patient):
            kept = [one for one in queue if one[0] > earliest]
            late = [one for one in queue if one[0] <= earliest]
            queue.clear()
            queue.extend(kept)
            for _, place in late:
                place.set_exception(
                    CallFailed(
                        FailureKind.RATE,
                        "the rate of the integration left no call in time",
                        retry_after=wait,
                        reached=False,
                    )
                )

    def _refuse_all(self, error: Exception) -> None:
        while self._urgent or self._patient:
            self._next().set_exception(error)
