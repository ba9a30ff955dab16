"""The server's time on a device whose own clock anybody may set.

While the device is up, time goes on by the monotonic clock of its boot, from what the server said
last; what the wall clock does meanwhile is ignored. After a boot without a network there is nothing
but the wall clock, which is believed as far as it is not behind what was known before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# Less than this is a slow answer or a crystal, not somebody's hand.
MOVED_SECONDS = 120.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Ticks:
    """Where time comes from; tests put others in their place."""

    boot_id: Callable[[], str | None]
    monotonic: Callable[[], float]
    wall: Callable[[], datetime]


def system_ticks() -> Ticks:
    """Give the clocks of this machine."""
    return Ticks(_boot_id, _since_boot, lambda: datetime.now(UTC))


@dataclass(slots=True)
class ServerClock:
    """Tell the server's time; `heard` at each answer, `saved` to go on after a restart."""

    ticks: Ticks
    # Server time and monotonic seconds of one moment of this boot.
    _base: tuple[datetime, float]
    # Whether the server's time was heard in this boot.
    is_sure: bool

    @classmethod
    def resume(cls, ticks: Ticks, kept: dict[str, Any] | None) -> ServerClock:
        """Go on from what was saved; anything that cannot be read counts for nothing."""
        monotonic, wall = ticks.monotonic(), ticks.wall()
        try:
            known = datetime.fromisoformat(kept["at"]).astimezone(UTC) if kept else None
            boot_id, then = (kept["boot_id"], float(kept["monotonic"])) if kept else (None, 0.0)
            is_sure = bool(kept["is_sure"]) if kept else False
        except (KeyError, TypeError, ValueError, OverflowError):
            known, boot_id, then, is_sure = None, None, 0.0, False
        if known is None:
            return cls(ticks, (wall, monotonic), False)
        if boot_id is not None and boot_id == ticks.boot_id() and monotonic >= then:
            return cls(ticks, (known + timedelta(seconds=monotonic - then), monotonic), is_sure)
        return cls(ticks, (max(known, wall), monotonic), False)

    def now(self) -> datetime:
        """Give the server's time as well as it is known."""
        at, monotonic = self._base
        return at + timedelta(seconds=max(0.0, self.ticks.monotonic() - monotonic))

    def heard(self, server: datetime) -> float | None:
        """Take the server's time; give by how many seconds ours was moved meanwhile, or None."""
        ahead = (self.now() - server).total_seconds()
        was_sure = self.is_sure
        self._base, self.is_sure = (server, self.ticks.monotonic()), True
        return ahead if not was_sure and abs(ahead) > MOVED_SECONDS else None

    def saved(self) -> dict[str, Any]:
        """Give what `resume` goes on from."""
        at = self.now().isoformat()
        monotonic, boot_id = self.ticks.monotonic(), self.ticks.boot_id()
        return {"at": at, "monotonic": monotonic, "boot_id": boot_id, "is_sure": self.is_sure}


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        # Without it a restart of the agent counts as one of the device.
        return None


def _since_boot() -> float:
    # The one that goes on while a laptop sleeps.
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
