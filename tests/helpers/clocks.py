"""What the rules for skipped and repeated times mean, worked out for one change of a clock."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

EPOCH = datetime(1970, 1, 1)


class Change(Protocol):
    """One change of the clocks, in Unix seconds and seconds ahead of UTC."""

    @property
    def at(self) -> int:
        """Give the Unix second of the change."""
        ...

    @property
    def before(self) -> int:
        """Give how far the clocks were ahead before it."""
        ...

    @property
    def after(self) -> int:
        """Give how far they are ahead after it."""
        ...


def real_moments(local: datetime, change: Change) -> list[int]:
    """Give the moments at which the clock really shows a local time: none, one or two."""
    reading = int((local - EPOCH).total_seconds())
    early, late = reading - change.before, reading - change.after
    return sorted(
        {at for at, holds in ((early, early < change.at), (late, late >= change.at)) if holds}
    )


def resolve(local: datetime, change: Change, gap: str, fold: str) -> list[int]:
    """Give the instants of one local time near one change, by the definition of the rules."""
    real = real_moments(local, change)
    if not real:
        first_minute = change.at + (-(change.at + change.after)) % 60
        early = int((local - EPOCH).total_seconds()) - change.before
        return {"first_instant": [first_minute], "shift": [early], "skip": []}[gap]
    return {"first": real[:1], "second": real[-1:], "both": real}[fold]
