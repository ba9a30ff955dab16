"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Double the wait at each failure, with full jitter.

    Full jitter (anything between nothing and the bound) spreads a fleet that lost its
    server in the same second.
    """

    first: float
    limit: float
    attempt: int = 0
    random: random.Random = field(default_factory=random.Random, repr=False)

    @property
    def bound(self) -> float:
        """Give the longest wait that the next call can choose."""
        # The exponent is capped because an outage of days would overflow a float.
        return min(self.limit, self.first * 2.0 ** min(self.attempt, 32))

    def next_delay(self) -> float:
        """Choose a wait and count one more failure."""
        delay = self.random.uniform(0, self.bound)
        self.attempt += 1
        return delay

    def reset(self) -> None:
        """Start over after a success."""
        self.attempt = 0

    def at_least(self, attempt: int) -> None:
        """Skip the short waits, where the server asked for patience."""
        self.attempt = max(self.attempt, attempt)


def jittered(seconds: float, share: float = 0.1) -> float:
    """Vary an interval by a share of it, so that devices do not move in step."""
    return seconds * random.uniform(1 - share, 1 + share)


def stretched(base: float, limit: float, times: int) -> float:
    """Double an interval some times up to a limit, but never make it shorter than it was."""
    return max(base, min(limit, base * 2.0 ** min(times, 32)))
