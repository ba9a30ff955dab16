"""Break the server on purpose, in the ways a client must survive."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class FaultError(ValueError):
    """Raised when a fault switch does not exist or cannot take the value."""


@dataclass(slots=True)
class Faults:
    """Switches that a test may flip while the server runs; all off means a healthy server.

    They belong to the server's event loop: from another thread or process use the route.

    - `refuse_status`: answer every WebSocket upgrade with this HTTP status.
    - `ignore_joins`: never answer a join. `join_delay`: answer it this many seconds late.
    - `join_error`: answer every join with this reason.
    - `subscribe_delay`: seconds between the join's reply and `system` ok; what is committed
      meanwhile is lost.
    - `lose_events`, `duplicate_events`, `reorder_events`: what happens to broadcasts and changes.
      Reordering swaps two neighbours, so the first waits for the second.
    - `frozen`: neither read nor write any more, nor answer pings (this one needs the settings
      of `uvicorn_options`).
    """

    refuse_status: int | None = None
    ignore_joins: bool = False
    join_delay: float = 0.0
    join_error: str | None = None
    subscribe_delay: float = 0.0
    lose_events: bool = False
    duplicate_events: bool = False
    reorder_events: bool = False
    frozen: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False, compare=False)

    def state(self) -> dict[str, Any]:
        """Return every switch with its value."""
        return {name: getattr(self, name) for name in _DEFAULTS}

    def set(self, **switches: Any) -> None:
        """Flip several switches at once; an unknown name changes nothing and raises."""
        for name, value in switches.items():
            if name not in _DEFAULTS:
                raise FaultError(f'there is no fault "{name}"')
            if not _fits(name, value):
                raise FaultError(f'fault "{name}" cannot be {value!r}')
        for name, value in switches.items():
            setattr(self, name, value)
        # Whoever waits for a thaw looks again; a new event makes the next waiter wait anew.
        self._changed.set()
        self._changed = asyncio.Event()

    def reset(self) -> None:
        """Turn every switch off."""
        self.set(**_DEFAULTS)

    async def thawed(self) -> None:
        """Return at once, or when the server is no longer frozen."""
        while self.frozen:
            await self._changed.wait()


_DEFAULTS: Mapping[str, Any] = {
    one.name: one.default for one in fields(Faults) if not one.name.startswith("_")
}
_NULLABLE = {"refuse_status": int, "join_error": str}


def _fits(name: str, value: Any) -> bool:
    """Tell whether the value has the type of the switch."""
    if name in _NULLABLE:
        return value is None or (isinstance(value, _NULLABLE[name]) and value is not True)
    if isinstance(_DEFAULTS[name], bool):
        return isinstance(value, bool)
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
