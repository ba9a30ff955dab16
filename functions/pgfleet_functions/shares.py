"""Who may have how much under way at once, so that nobody who hangs holds up the others."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

# What is remembered goes along with each claim; whoever is forgotten earns it anew.
MOST_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be under way: in all, and to begin with for one owner and through one way."""

    total: int
    owner: int
    # Through one endpoint, or one integration.
    way: int


class Shares:
    """Keeps count of what is under way.

    Everybody begins with little. Each answer that came in time earns one more, up to a quarter of
    all, and an answer that did not come takes all of that back. And nobody gets more than what
    would be left for the others: so those who never answer hold a few each, and never all.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held = 0
        self._owners = _Accounts(bounds.owner, bounds.total // 4)
        self._ways = _Accounts(bounds.way, bounds.total // 4)

    def left(self) -> dict[str, Any]:
        """Tell how much may be begun now, as a claim in SQL takes it.

        {all, owner, way, owners, ways}: `owner` and `way` hold for those that `owners` (by id)
        and `ways` (ids of endpoints or integrations) do not name.
        """
        free = self._bounds.total - self._held
        return {
            "all": free,
            **{"owner": self._owners.left(free), "owners": self._owners.each_left(free)},
            **{"way": self._ways.left(free), "ways": self._ways.each_left(free)},
        }

    @property
    def is_tight(self) -> bool:
        """Tell whether somebody has all that it may have."""
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

    def __init__(self, first: int, most: int) -> None:
        self._first = first
        self._most = max(first, most)
        self._held: Counter[str] = Counter()
        # Those who answered last are at the end.
        self._earned: OrderedDict[str, int] = OrderedDict()

    def left(self, free: int, key: str = "") -> int:
        held = self._held[key]
        allowed = min(self._first + self._earned.get(key, 0), self._most)
        # Half of what is left over what it has: then as much is left as it holds.
        return max(0, min(allowed - held, (free - held + 1) // 2))

    def each_left(self, free: int) -> dict[str, int]:
        return {key: self.left(free, key) for key in (*self._held, *self._earned)}

    def is_tight(self, free: int) -> bool:
        return any(self.left(free, key) == 0 for key in self._held)

    def take(self, key: str) -> None:
        self._held[key] += 1

    def give_back(self, key: str, *, is_slow: bool) -> None:
        self._held[key] -= 1
        if self._held[key] == 0:
            del self._held[key]
        if is_slow:
            self._earned.pop(key, None)
            return
        self._earned[key] = min(self._earned.get(key, 0) + 1, self._most)
        self._earned.move_to_end(key)
        if len(self._earned) > MOST_REMEMBERED:
            self._earned.popitem(last=False)
