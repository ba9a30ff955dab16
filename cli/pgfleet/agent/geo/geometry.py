"""On which side of a border a fix is, by the same arithmetic as in the database.

A geometry is the snapshot that an action carries: kind (circle or polygon), latitude, longitude,
radius_m, polygon [[latitude, longitude], …], reach_m and hysteresis_m. Distances are in metres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from pgfleet.agent.location.fix import EARTH_RADIUS_M, Fix, metres_between

DEFAULT_HYSTERESIS_M = 50.0


def side_of(geometry: Mapping[str, Any], fix: Fix, was_inside: bool) -> str:
    """Give inside, outside, or unclear where the circle of error crosses the border."""
    hysteresis = float(geometry.get("hysteresis_m", DEFAULT_HYSTERESIS_M))
    error = hysteresis if fix.accuracy_m is None else fix.accuracy_m
    distance = border_distance_m(geometry, fix)
    if -error < distance <= error:
        return "unclear"
    if distance <= 0:
        return "inside"
    if not was_inside or distance - error > hysteresis:
        return "outside"
    # A device that is inside has left only beyond the hysteresis.
    return "inside" if distance + error <= hysteresis else "unclear"


def border_distance_m(geometry: Mapping[str, Any], fix: Fix) -> float:
    """Give the way to the border, negative inside; of a far polygon a lower bound."""
    centre = Fix(float(geometry["latitude"]), float(geometry["longitude"]), fix.located_at)
    distance = metres_between(centre, fix)
    if geometry["kind"] == "circle":
        return distance - float(geometry["radius_m"])
    reach = float(geometry["reach_m"])
    if distance > 3 * reach + 1000:
        return distance - reach
    return _polygon_distance_m(geometry["polygon"], fix)


def _polygon_distance_m(polygon: Sequence[Sequence[float]], fix: Fix) -> float:
    nearest, is_inside = math.inf, False
    for x, y, dx, dy in _edges(polygon, fix):
        length = dx * dx + dy * dy
        share = 0.0 if length == 0 else max(0.0, min(1.0, -(x * dx + y * dy) / length))
        nearest = min(nearest, math.hypot(x + share * dx, y + share * dy))
        # Inside where a ray to the east crosses the border an odd number of times.
        if (y > 0) != (y + dy > 0) and x - y * dx / dy > 0:
            is_inside = not is_inside
    return -nearest if is_inside else nearest


def _edges(
    polygon: Sequence[Sequence[float]], fix: Fix
) -> Iterator[tuple[float, float, float, float]]:
    """Give start and run of each edge, in metres east and north of the fix."""
    first = polygon[0][1]
    east = _degrees_east(fix.longitude, first)
    scale = math.cos(math.radians(fix.latitude)) * EARTH_RADIUS_M
    corners = [
        (
            # Seen from the first corner: on the far side of the earth an edge would be torn apart.
            math.radians(east + _degrees_east(first, longitude)) * scale,
            math.radians(latitude - fix.latitude) * EARTH_RADIUS_M,
        )
        for latitude, longitude in polygon
    ]
    for (x, y), (to_x, to_y) in pairwise([*corners, corners[0]]):
        yield x, y, to_x - x, to_y - y


def _degrees_east(start: float, to: float) -> float:
    return (to - start) - 360 * math.floor((to - start + 180) / 360)
