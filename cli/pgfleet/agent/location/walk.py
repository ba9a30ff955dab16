"""A walk for a simulated device: where it is, as a function of its name and the time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from pgfleet.agent.location.fix import EARTH_RADIUS_M, Fix

WALKING_SPEED = 1.4
# One fix in so many comes from a cell tower instead of satellites.
_ROUGH_ONE_IN = 20
_SHARP_METRES = (5.0, 25.0)
_ROUGH_METRES = (300.0, 800.0)
# How the way is shared among the waves that it is made of; more would only make it more crooked.
_SHARES = (0.5, 0.3, 0.2)


@dataclass(frozen=True, slots=True)
class WalkArea:
    """Hold the circle within which devices walk."""

    latitude: float
    longitude: float
    radius_m: float

    def point(self, east: float, north: float) -> tuple[float, float]:
        """Give latitude and longitude so many metres from the middle."""
        across = EARTH_RADIUS_M * math.cos(math.radians(self.latitude))
        longitude = self.longitude + math.degrees(east / across)
        return (
            self.latitude + math.degrees(north / EARTH_RADIUS_M),
            (longitude + 180) % 360 - 180,
        )


def way(name: str, radius_m: float, seconds: float) -> tuple[float, float]:
    """Give how many metres east and north of the middle a walker is at a time.

    Each direction is a sum of three waves whose phases and periods come from the name. Each
    wave has an equal part in the speed, which is about that of a person who walks: sometimes
    slower, sometimes faster, never with a jump, and never out of the circle.
    """
    chance = random.Random(f"way of {name}")
    metres: list[float] = []
    for _ in ("east", "north"):
        position = 0.0
        for share in _SHARES:
            # Within the square that fits into the circle.
            reach = share * radius_m / math.sqrt(2)
            pace = WALKING_SPEED / math.sqrt(len(_SHARES)) * chance.uniform(0.85, 1.15)
            position += reach * math.sin(seconds * pace / reach + chance.uniform(0, math.tau))
        metres.append(position)
    return metres[0], metres[1]


def fix_of_walk(name: str, area: WalkArea, at: datetime) -> Fix:
    """Give what a receiver would say at a time: some accuracy, and an error within it."""
    east, north = way(name, area.radius_m, at.timestamp())
    chance = random.Random(f"fix of {name} at {at.timestamp()}")
    rough = chance.randrange(_ROUGH_ONE_IN) == 0
    accuracy_m = round(chance.uniform(*(_ROUGH_METRES if rough else _SHARP_METRES)), 1)
    # The root spreads the error evenly over the circle.
    error = accuracy_m * math.sqrt(chance.random())
    towards = chance.uniform(0, math.tau)
    latitude, longitude = area.point(
        east + error * math.cos(towards), north + error * math.sin(towards)
    )
    return Fix(latitude, longitude, at, accuracy_m)


class Walk:
    """Let one simulated device walk; it goes on where it would be by now after a restart."""

    def __init__(self, name: str, area: WalkArea) -> None:
        self._name = name
        self._area = area

    async def look(self) -> Fix:
        """Give a fix of now."""
        return fix_of_walk(self._name, self._area, datetime.now(UTC))
