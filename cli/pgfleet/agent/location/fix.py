"""Where a device is at a time, and which of its fixes the server should hear of.

Everything here is a function of its arguments: no clock is read and nothing is sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

EARTH_RADIUS_M = 6_371_008.8
MOST_ACCURACY_M = 20_000_000.0

# Even a device that lies still is seen a few metres here and there.
LEAST_MOVE_M = 10.0
# A fix as sure as this is sure enough for any border; see `_is_sharper`.
SHARP_M = 25.0
# The server counts a crossing only when a second fix, at least `min_dwell` after the first,
# speaks for the same side; `min_dwell` is 60 s unless a location has another.
FOLLOW_UP_SECONDS = 62.0
# Far below `stale_position_hours` (24), after which the server takes a position for unknown.
KEEP_ALIVE_SECONDS = 3600.0
_SHORTEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Fix:
    """Hold where the device was, how sure that is (metres; None: nobody knows), and when."""

    latitude: float
    longitude: float
    located_at: datetime
    accuracy_m: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give the form in which programs print a fix and the state folder keeps it."""
        return {
            "latitude": self.latitude,
            "longitude": self.longitude,
            "accuracy_m": self.accuracy_m,
            "located_at": self.located_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Hold one location that the server has the device inside of."""

    location_id: int
    name: str
    since: str


class Why(StrEnum):
    """Why a fix is worth telling."""

    FIRST = "first"
    MOVED = "moved"
    SHARPER = "sharper"
    FOLLOW_UP = "follow-up"


@dataclass(frozen=True, slots=True)
class Told:
    """Hold the fix that was told last, and how many follow-ups there were since there was news."""

    fix: Fix
    follow_ups: int = 0

    @property
    def due(self) -> datetime:
        """Give the time from which a fix is told even where nothing has changed.

        The pauses double from one minute to the keep-alive, so that a location with a longer
        `min_dwell` than usual finds a crossing after about twice that time, not in an hour.
        """
        pause = min(KEEP_ALIVE_SECONDS, FOLLOW_UP_SECONDS * 2.0 ** min(self.follow_ups, 32))
        return self.fix.located_at + timedelta(seconds=pause)


def why_to_report(told: Told | None, fix: Fix) -> Why | None:
    """Give the reason to tell the server of a fix, or None when it would learn nothing."""
    if told is None:
        return Why.FIRST
    if fix.located_at <= told.fix.located_at:
        return None
    if _has_moved(told.fix, fix):
        return Why.MOVED
    if _is_sharper(told.fix, fix):
        return Why.SHARPER
    return Why.FOLLOW_UP if fix.located_at >= told.due else None


def after_report(told: Told | None, fix: Fix, why: Why) -> Told:
    """Give what the server will then have been told."""
    return Told(fix, told.follow_ups + 1 if told and why is Why.FOLLOW_UP else 0)


def next_look_seconds(every: float, told: Told | None, fix: Fix | None) -> float:
    """Say how long to wait before looking again: `every`, but sooner for a due follow-up.

    `fix` is what the present look found; None when it found nothing new, and then there is no
    use in hurrying.
    """
    if told is None or fix is None:
        return every
    remaining = (told.due - fix.located_at).total_seconds()
    return min(every, max(_SHORTEST_PAUSE_SECONDS, remaining))


def metres_between(one: Fix, other: Fix) -> float:
    """Give the distance over the ground."""
    north = math.radians(other.latitude - one.latitude)
    east = math.radians(other.longitude - one.longitude)
    cosines = math.cos(math.radians(one.latitude)) * math.cos(math.radians(other.latitude))
    share = math.sin(north / 2) ** 2 + cosines * math.sin(east / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, share)))


def position_problem(latitude: object, longitude: object, accuracy_m: object) -> str | None:
    """Say what is wrong with numbers that are meant to be a position."""
    for name, value, least, most in (
        ("latitude", latitude, -90.0, 90.0),
        ("longitude", longitude, -180.0, 180.0),
        ("accuracy_m", 0 if accuracy_m is None else accuracy_m, 0.0, MOST_ACCURACY_M),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} is not a number"
        # Also false for what is not a number at all, which JSON of some programs may hold.
        if not least <= value <= most:
            return f"{name} is not within {least:g} to {most:.0f}"
    if latitude == longitude == accuracy_m == 0:
        return "0 by 0 with an accuracy of 0 is what a receiver says that knows nothing"
    return None


def parse_fix(found: object, now: datetime) -> Fix:
    """Read a fix from its JSON; raises ValueError that says what is wrong with it."""
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    accuracy_m = found.get("accuracy_m")
    problem = position_problem(found.get("latitude"), found.get("longitude"), accuracy_m)
    if problem is not None:
        raise ValueError(problem)
    return Fix(
        float(found["latitude"]),
        float(found["longitude"]),
        _parse_time(found.get("located_at"), now),
        None if accuracy_m is None else float(accuracy_m),
    )


def parse_places(found: list[dict[str, Any]]) -> tuple[Place, ...]:
    """Read locations in the form in which the server lists them; raises KeyError or the like."""
    return tuple(
        Place(int(one["location_id"]), str(one["name"]), str(one["since"])) for one in found
    )


def _parse_time(found: object, now: datetime) -> datetime:
    if found is None:
        return now
    example = "such as 2026-01-31T12:00:00Z"
    if isinstance(found, int | float) and 1e8 <= found < 1e14:
        # Seconds since 1970, or thousandths of them, which have three digits more.
        return datetime.fromtimestamp(found if found < 1e11 else found / 1000, UTC)
    if not isinstance(found, str):
        raise ValueError(f"located_at is not a time {example}")
    try:
        moment = datetime.fromisoformat(found)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"located_at is not a time {example}") from error
    raise ValueError(f"located_at has no offset from UTC, {example}")


def _has_moved(told: Fix, fix: Fix) -> bool:
    """Tell whether the two fixes cannot be of a device that stood still.

    Either may be off by its accuracy, so the worse of both must be passed: a phone that falls
    back from satellites to a cell tower did not jump there. The comparison is with what was
    told, not with the fix before, so that a slow walk adds up.
    """
    error = max(LEAST_MOVE_M, told.accuracy_m or 0, fix.accuracy_m or 0)
    return metres_between(told, fix) > error


def _is_sharper(told: Fix, fix: Fix) -> bool:
    """Tell whether a fix of the same place says much more than what was told.

    The server ignores a fix whose circle of error crosses a border, so that a device whose
    first fix was rough would be in no place until it moves.
    """
    if told.accuracy_m is None or fix.accuracy_m is None or told.accuracy_m <= SHARP_M:
        return False
    return fix.accuracy_m <= told.accuracy_m / 2
