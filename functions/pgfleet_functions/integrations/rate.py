"""The rate of an integration: leave for each call is taken from a bucket in the database."""

from __future__ import annotations

import asyncio
import time

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.integrations.calls import CallFailed, FailureKind

_RESERVE = """
select fleet.worker_reserve_call(
  %s, make_interval(secs => %s::double precision), %s, p_endpoint => %s, p_is_prepaid => %s
)
"""
_LEARN = """
select fleet.worker_learn_rate(
  %s, null, clock_timestamp() + make_interval(secs => %s::double precision), p_endpoint => %s
)
"""


class RateGate:
    """Lets the calls of one piece of work through, each when the bucket grants it."""

    def __init__(
        self,
        pool: Pool,
        integration_id: int,
        *,
        seconds: float,
        prepaid: int = 0,
        is_look: bool = False,
    ) -> None:
        self._pool = pool
        self._integration_id = integration_id
        self._is_look = is_look
        self._deadline = time.monotonic() + seconds
        # Whoever claims work has taken the leave for its first call with it.
        self._prepaid = prepaid

    async def enter(self, endpoint: str = "") -> None:
        """Wait for leave; raise `CallFailed` when it cannot come before the deadline.

        `endpoint` is one that has a limit of its own, beside that of the account.
        """
        is_prepaid = self._prepaid > 0
        self._prepaid -= is_prepaid
        if is_prepaid and not endpoint:
            return
        left = max(self._deadline - time.monotonic(), 0.0)
        answer = await fetch_value(
            *(self._pool, _RESERVE, self._integration_id, left),
            *(self._is_look and not endpoint, endpoint, is_prepaid),
        )
        if answer.get("reason") == "integration_not_active":
            raise CallFailed(FailureKind.KEY, "the integration is paused", reached=False)
        wait = float(answer["wait"])
        if not answer["granted"]:
            raise CallFailed(
                FailureKind.RATE,
                "the rate of the integration left no call in time",
                retry_after=wait,
                # What only its endpoint holds up steps back, so that others go first.
                reached=bool(endpoint),
            )
        await asyncio.sleep(wait)

    async def slow_down(self, seconds: float | None, endpoint: str = "") -> None:
        """Let all processes know that it was too much."""
        await fetch_value(self._pool, _LEARN, self._integration_id, seconds, endpoint)
