"""Who may have how much under way at once, so that nobody who hangs holds up the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be under way: in all, and to begin with for one owner and through one way."""

    total: int
    owner: int
    # Through one endpoint, or one integration.
    way: int


class Shares:
    """Keeps count of what is under way.

    Everybody begins with little. Each answer that came in time earns one more, and an answer that
    did not come takes all of that back; what was earned is forgotten where nothing is under way.
    And nobody gets more than what would be left for the others: so those who never answer hold
    a few each, and never all.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held = 0
        self._owners = _Accounts(bounds.owner)
        self._ways = _Accounts(bounds.way)

    def room(self) -> dict[str, Any]:
        """Tell how much may be begun now, as a claim in SQL takes it.

        {all, owner, way, owners, ways}: `owner` and `way` hold for those that `owners` (by id)
        and `ways` (ids of endpoints or integrations) do not name.
        """
        free = self._bounds.total - self._held
        return {
            "all": free,
            **{"owner": self._owners.room(free), "owners": self._owners.rooms(free)},
            **{"way": self._ways.room(free), "ways": self._ways.rooms(free)},
        }

    @property
    def is_tight(self) -> bool:
        """Tell whether somebody could not have begun more for want of room."""
        free = self._bounds.total - self._held
        return free <= 0 or self._owners.is_tight(free) or self._ways.is_tight(free)

    def take(self, owner: str, way: int) -> None:
        """Note that one piece of work has begun."""
        self._held += 1
        self._owners.take(owner)
        self._ways.take(str(way))

    def give_back(self, owner: str, way: int, *, is_slow: bool) -> None:
        """Note that it has ended, and whether the other side let the time pass."""
        self._held -= 1
        self._owners.give_back(owner, is_slow=is_slow)
        self._ways.give_back(str(way), is_slow=is_slow)


class _Accounts:
    """What each of one kind holds, and how much it has earned beyond the first."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._held: Counter[str] = Counter()
        self._earned: Counter[str] = Counter()

    def room(self, free: int, key: str | None = None) -> int:
        held = self._held[key] if key is not None else 0
        allowed = self._first + (self._earned[key] if key is not None else 0)
        # Half of what is left over what it has: then as much is left as it holds.
        return max(0, min(allowed - held, (free - held + 1) // 2))

    def rooms(self, free: int) -> dict[str, int]:
        return {key: self.room(free, key) for key in self._held}

    def is_tight(self, free: int) -> bool:
        return any(self.room(free, key) == 0 for key in self._held)

    def take(self, key: str) -> None:
        self._held[key] += 1

    def give_back(self, key: str, *, is_slow: bool) -> None:
        self._held[key] -= 1
        if is_slow:
            self._earned[key] = 0
        else:
            self._earned[key] += 1
        if self._held[key] == 0:
            del self._held[key], self._earned[key]
