"""Starting again whatever ends, or runs and does not do its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

WATCH_SECONDS = 0.2
LOOK_SECONDS = 5.0
# A part that ends again sooner than this is started again more slowly each time.
STEADY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 10.0

Say = Callable[[str], None]


class Part(Protocol):
    """A server of the platform."""

    name: str
    # How long it may do badly before it is started again, in seconds.
    patience: float

    def is_running(self) -> bool:
        """Tell whether its process is there."""
        ...

    def complaint(self) -> str | None:
        """Say what is wrong with it although it runs, or None when nothing is."""
        ...

    def start(self) -> None:
        """Start it; raises what keeps it from starting."""
        ...

    def stop(self) -> None:
        """Stop it."""
        ...


@dataclass(slots=True)
class Case:
    """What has become of one part so far; times are those of a clock that only goes forward."""

    part: Part
    started_at: float
    pause: float = 0.0
    try_at: float | None = None
    look_at: float = 0.0
    ill_since: float | None = None

    def tries_next(self, now: float) -> float:
        """Give the time of the next try to start it, later each time that it ends soon."""
        steady = now - self.started_at > STEADY_SECONDS
        self.pause = 0.0 if steady else min(self.pause * 2 or WATCH_SECONDS, LONGEST_PAUSE_SECONDS)
        return now + self.pause


@dataclass(slots=True)
class Watch:
    """Looks after the parts; an earlier one is started before those that need it."""

    parts: Sequence[Part]
    say: Say
    clock: Callable[[], float] = time.monotonic
    _cases: list[Case] = field(default_factory=list)

    def __post_init__(self) -> None:
        now = self.clock()
        self._cases = [Case(part, now, look_at=now + LOOK_SECONDS) for part in self.parts]

    def run(self) -> NoReturn:
        """Watch until a signal comes."""
        while True:
            time.sleep(WATCH_SECONDS)
            self.look()

    def look(self) -> None:
        """See to each part once."""
        for case in self._cases:
            if not case.part.is_running():
                self._start_again(case)
            elif case.try_at is not None or self.clock() >= case.look_at:
                case.try_at = None
                self._look_closer(case)

    def _start_again(self, case: Case) -> None:
        now = self.clock()
        if case.try_at is None:
            case.try_at = case.tries_next(now)
            self.say(f"{case.part.name} ended, starting it again")
        if now < case.try_at:
            return
        case.started_at = now
        try:
            case.part.start()
        except Exception as error:
            case.try_at = case.tries_next(now)
            self.say(f"cannot start the {case.part.name}: {error}")
            return
        case.try_at, case.ill_since = None, None
        case.look_at = self.clock() + LOOK_SECONDS

    def _look_closer(self, case: Case) -> None:
        complaint = case.part.complaint()
        now = self.clock()
        case.look_at = now + LOOK_SECONDS
        if complaint is None:
            case.ill_since = None
        elif case.ill_since is None:
            case.ill_since = now
        elif now - case.ill_since >= case.part.patience:
            self.say(f"{case.part.name}: {complaint}, starting it again")
            case.part.stop()
            case.ill_since = None
            case.try_at = case.tries_next(now)
