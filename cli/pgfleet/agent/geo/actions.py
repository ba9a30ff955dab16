"""The actions of a device, and what each of them asks for at a time.

Everything here is a function of its arguments: no clock is read and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pgfleet.agent.geo.geometry import side_of
from pgfleet.agent.location.fix import Fix

OPEN = ("scheduled", "running")


@dataclass(frozen=True, slots=True)
class GeoAction:
    """Hold one dated block as the server handed it out."""

    geo_action_id: int
    name: str
    starts_at: datetime
    ends_at: datetime
    side: str
    geometry: Mapping[str, Any] | None
    apps: tuple[str, ...]
    unknown_location: str
    max_location_age: timedelta

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> GeoAction:
        """Read one action; raises KeyError, TypeError or ValueError when it is none."""
        geometry = found["geometry"]
        return cls(
            geo_action_id=int(found["geo_action_id"]),
            name=str(found["name"]),
            starts_at=_instant(found["starts_at"]),
            ends_at=_instant(found["ends_at"]),
            side=str(found["side"]),
            geometry=dict(geometry) if geometry is not None else None,
            apps=tuple(str(app) for app in found["apps"]),
            unknown_location=str(found["unknown_location"]),
            max_location_age=timedelta(seconds=float(found["max_location_age_seconds"])),
        )

    def to_json(self) -> dict[str, Any]:
        """Give the form that `from_json` reads."""
        return {
            "geo_action_id": self.geo_action_id,
            "name": self.name,
            "starts_at": self.starts_at.isoformat(),
            "ends_at": self.ends_at.isoformat(),
            "side": self.side,
            "geometry": self.geometry,
            "apps": list(self.apps),
            "unknown_location": self.unknown_location,
            "max_location_age_seconds": self.max_location_age.total_seconds(),
        }


@dataclass(frozen=True, slots=True)
class Course:
    """Hold how far an action has come here, and what the server knows of that."""

    action: GeoAction
    status: str = "scheduled"
    is_inside: bool = False
    is_met: bool = False
    met_at: datetime | None = None
    reason: str | None = None
    # Status and met_at as the server has them.
    told: tuple[str | None, datetime | None] = (None, None)

    @property
    def is_final(self) -> bool:
        """Tell whether nothing more will become of it."""
        return self.status not in OPEN

    @property
    def must_tell(self) -> bool:
        """Tell whether the server does not know yet how it stands."""
        return self.told != (self.status, self.met_at)


@dataclass(frozen=True, slots=True)
class Seen:
    """Hold the latest fix, with its time by the server's clock; None where there is none."""

    fix: Fix | None = None
    at: datetime | None = None


def step(course: Course, seen: Seen, now: datetime) -> Course:
    """Take one action to a time."""
    action = course.action
    if course.is_final or now < action.starts_at:
        return course
    if now >= action.ends_at:
        return _over(course)
    side = _side(course, seen, now)
    is_inside = side == "inside" if side in ("inside", "outside") else course.is_inside
    is_met = _is_met(course, side)
    return replace(
        course,
        status="running",
        is_inside=is_inside,
        is_met=is_met,
        met_at=course.met_at or (now if is_met else None),
    )


def apps_of(courses: Mapping[int, Course]) -> frozenset[str]:
    """Give what is blocked now: the union of what all that run ask for."""
    running = (one for one in courses.values() if one.status == "running" and one.is_met)
    return frozenset(app for one in running for app in one.action.apps)


def next_change(courses: Mapping[int, Course], now: datetime) -> datetime | None:
    """Give the next start or end that lies ahead."""
    open_ones = [one.action for one in courses.values() if not one.is_final]
    instants = [instant for one in open_ones for instant in (one.starts_at, one.ends_at)]
    return min((one for one in instants if one > now), default=None)


def merged(courses: Mapping[int, Course], rows: Sequence[Mapping[str, Any]]) -> dict[int, Course]:
    """Take over what the server says is owed; what it no longer names is over, or was never begun.

    A row that cannot be read is left out, so that one odd action does not free a device of all.
    """
    found: dict[int, Course] = {}
    for row in rows:
        try:
            action = GeoAction.from_json(row)
        except (KeyError, TypeError, ValueError):
            continue
        known = courses.get(action.geo_action_id)
        if known is None:
            found[action.geo_action_id] = _as_told(action, row)
        elif known.status in ("finished", "skipped"):
            # Ended here by a clock that was wrong: as the server has it.
            found[action.geo_action_id] = replace(_as_told(action, row), reason=known.reason)
        else:
            found[action.geo_action_id] = replace(known, action=action)
    for number, course in courses.items():
        if number not in found and (course.is_final or course.met_at is not None):
            found[number] = _over(course)
    return found


def _as_told(action: GeoAction, row: Mapping[str, Any]) -> Course:
    text = row.get("location_met_at")
    try:
        met_at = None if text is None else _instant(text)
    except ValueError:
        # Postgres knows times that Python does not; what it was is told again once it is met.
        met_at = None
    status = str(row.get("status") or "scheduled")
    is_met = status == "running" and met_at is not None
    return Course(action, status, is_met=is_met, met_at=met_at, told=(row.get("status"), met_at))


def _over(course: Course) -> Course:
    if course.is_final:
        return course
    if course.met_at is not None:
        return replace(course, status="finished", is_met=False)
    why = "the device was not where it counts"
    if course.status == "scheduled":
        why = "the agent did not run at that time"
    return replace(course, status="skipped", reason=course.reason or why)


def _side(course: Course, seen: Seen, now: datetime) -> str:
    geometry = course.action.geometry
    if geometry is None or seen.fix is None or seen.at is None:
        return "unknown"
    if now - seen.at > course.action.max_location_age:
        return "unknown"
    return side_of(geometry, seen.fix, course.is_inside)


def _is_met(course: Course, side: str) -> bool:
    action = course.action
    if action.side == "anywhere":
        return True
    # What cannot be told stays as it was.
    if side == "unclear":
        return course.is_met
    if side == "unknown":
        return {"block": True, "free": False}.get(action.unknown_location, course.is_met)
    return side == action.side


def _instant(text: object) -> datetime:
    found = datetime.fromisoformat(str(text))
    if found.tzinfo is None:
        raise ValueError(f"{text} has no offset from UTC")
    return found
