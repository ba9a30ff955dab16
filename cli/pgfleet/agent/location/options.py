"""Choose what tells a device where it is by what was said on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pgfleet.agent.location.fix import position_problem
from pgfleet.agent.location.source import FixedPlace, LocationProgram, LocationSource
from pgfleet.agent.location.walk import Walk, WalkArea
from pgfleet.errors import InvalidInput

# The source for a device of this name.
Locate = Callable[[str], LocationSource]

_HIGHEST_WALK_DEGREES = 85.0
_WIDEST_WALK_M = 100_000.0


def choose_source(
    place: str | None,
    program: Path | None,
    walk: str | None,
    *,
    is_simulation: bool,
    timeout: float,
) -> Locate | None:
    """Give the one source that was asked for, or None when the device tells no positions."""
    given = {"--location": place, "--location-program": program, "--location-walk": walk}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InvalidInput(
            f"{' and '.join(named)} exclude each other",
            reason="location_ambiguous",
            hint="Leave out all but one; PGFLEET_LOCATION and PGFLEET_LOCATION_PROGRAM count too.",
        )
    if walk is not None:
        if not is_simulation:
            raise InvalidInput(
                "location-walk is for simulated devices",
                reason="location_walk_without_simulate",
                hint="Pass --simulate N too, or --location LAT,LON for a device that is real.",
            )
        area = parse_walk(walk)
        return lambda name: Walk(name, area)
    source: LocationSource
    if place is not None:
        source = parse_place(place)
    elif program is not None:
        source = LocationProgram(program, timeout)
    else:
        return None
    return lambda name: source


def parse_place(text: str) -> FixedPlace:
    """Read LAT,LON or LAT,LON,ACCURACY_M."""
    numbers = _numbers(text)
    if len(numbers) not in (2, 3):
        raise _invalid("location", text, "not LAT,LON or LAT,LON,ACCURACY_M")
    latitude, longitude, *rest = numbers
    accuracy_m = rest[0] if rest else None
    problem = position_problem(latitude, longitude, accuracy_m)
    if problem is not None:
        raise _invalid("location", text, f"no position: {problem}")
    return FixedPlace(latitude, longitude, accuracy_m)


def parse_walk(text: str) -> WalkArea:
    """Read LAT,LON,RADIUS_M."""
    numbers = _numbers(text)
    if len(numbers) != 3:
        raise _invalid("location-walk", text, "not LAT,LON,RADIUS_M")
    latitude, longitude, radius_m = numbers
    problem = position_problem(latitude, longitude, None)
    if problem is None and abs(latitude) > _HIGHEST_WALK_DEGREES:
        problem = f"latitude is not within -{_HIGHEST_WALK_DEGREES:g} to {_HIGHEST_WALK_DEGREES:g}"
    if problem is None and not 0 < radius_m <= _WIDEST_WALK_M:
        problem = f"RADIUS_M is not above 0 and up to {_WIDEST_WALK_M:.0f}"
    if problem is not None:
        raise _invalid("location-walk", text, f"no circle to walk in: {problem}")
    return WalkArea(latitude, longitude, radius_m)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return []


def _invalid(option: str, text: str, what: str) -> InvalidInput:
    examples = {"location": "52.52,13.405,20", "location-walk": "52.52,13.405,500"}
    return InvalidInput(
        f"{option}: {text} is {what}",
        reason="location_invalid",
        hint=f"Example: --{option} {examples[option]}",
    )
