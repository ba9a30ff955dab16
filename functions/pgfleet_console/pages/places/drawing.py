"""From degrees to a drawing: a flat map that is true in its middle; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pgfleet.statements import Row

WIDTH, HEIGHT, EDGE = 1000.0, 600.0, 40.0
METRES_A_DEGREE = 111_320.0
# Nearer than this nothing more is seen, and a single device is not blown up to all of the map.
LEAST_DEGREES = 0.002
LINES = 6
STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of the earth that is drawn."""

    south: float
    west: float
    scale: float
    narrowing: float
    left: float
    bottom: float

    def x(self, longitude: float) -> float:
        """Give where a longitude is; what lies beyond the date line is nearer the other way."""
        east = longitude - self.west
        if east < -180:
            east += 360
        return round(self.left + east * self.narrowing * self.scale, 2)

    def y(self, latitude: float) -> float:
        """Give where a latitude is."""
        return round(HEIGHT - self.bottom - (latitude - self.south) * self.scale, 2)

    def length(self, metres: float) -> float:
        """Give how long so many metres are."""
        return round(metres / METRES_A_DEGREE * self.scale, 2)


def frame_of(locations: Sequence[Row], devices: Sequence[Row]) -> Frame | None:
    """Give a frame in which everything is seen, or none where there is nothing."""
    points = [*_corners(locations), *((one["latitude"], one["longitude"]) for one in devices)]
    if not points:
        return None
    latitudes = [latitude for latitude, _ in points]
    longitudes = [longitude for _, longitude in points]
    if max(longitudes) - min(longitudes) > 180:
        longitudes = [one + 360 if one < 0 else one for one in longitudes]
    south, north = min(latitudes), max(latitudes)
    west, east = min(longitudes), max(longitudes)
    narrowing = max(math.cos(math.radians((south + north) / 2)), 0.01)
    high = max(north - south, LEAST_DEGREES)
    wide = max((east - west) * narrowing, LEAST_DEGREES)
    scale = min((WIDTH - 2 * EDGE) / wide, (HEIGHT - 2 * EDGE) / high)
    return Frame(
        south=south,
        west=west,
        scale=scale,
        narrowing=narrowing,
        left=(WIDTH - (east - west) * narrowing * scale) / 2,
        bottom=(HEIGHT - (north - south) * scale) / 2,
    )


def _corners(locations: Sequence[Row]) -> Iterator[tuple[float, float]]:
    for one in locations:
        if one["polygon"]:
            yield from ((corner[0], corner[1]) for corner in one["polygon"])
        elif one["latitude"] is not None:
            up = (one["radius_m"] or 0) / METRES_A_DEGREE
            aside = up / max(math.cos(math.radians(one["latitude"])), 0.01)
            yield one["latitude"] - up, one["longitude"] - aside
            yield one["latitude"] + up, one["longitude"] + aside


def grid(frame: Frame) -> list[dict[str, Any]]:
    """Give the lines of round degrees that cross the drawing."""
    lines: list[dict[str, Any]] = []
    high = HEIGHT / frame.scale
    south = frame.south - frame.bottom / frame.scale
    west = frame.west - frame.left / frame.scale / frame.narrowing
    for first, size, name in (
        (south, high, "y"),
        (west, WIDTH / frame.scale / frame.narrowing, "x"),
    ):
        step = _round_step(size / LINES)
        digits = max(0, -math.floor(math.log10(step)))
        for count in range(math.ceil(first / step), math.floor((first + size) / step) + 1):
            at = count * step
            said = f"{(at + 180) % 360 - 180 if name == 'x' else at:.{digits}f}°"
            lines.append({"axis": name, "said": said, "at": _place(frame, name, at)})
    return lines


def _place(frame: Frame, axis: str, degrees: float) -> float:
    if axis == "y":
        return frame.y(degrees)
    return round(frame.left + (degrees - frame.west) * frame.narrowing * frame.scale, 2)


def _round_step(size: float) -> float:
    power = 10.0 ** math.floor(math.log10(size))
    return next((one * power for one in STEPS if one * power >= size), 10 * power)


def drawn_locations(frame: Frame, locations: Sequence[Row]) -> list[dict[str, Any]]:
    """Give circles and polygons as the drawing has them."""
    found = []
    for one in locations:
        shape: dict[str, Any] = {"id": one["id"], "name": one["name"], "inside": one["inside"]}
        if one["polygon"]:
            corners = [(frame.x(corner[1]), frame.y(corner[0])) for corner in one["polygon"]]
            shape["points"] = " ".join(f"{x},{y}" for x, y in corners)
            shape |= {"x": min(x for x, _ in corners), "y": min(y for _, y in corners)}
        elif one["latitude"] is not None:
            radius = max(frame.length(one["radius_m"] or 0), 3.0)
            shape |= {"cx": frame.x(one["longitude"]), "cy": frame.y(one["latitude"])}
            shape |= {"r": radius, "x": shape["cx"] - radius, "y": shape["cy"] - radius}
        else:
            continue
        found.append(shape)
    return found


def drawn_devices(frame: Frame, devices: Sequence[Row]) -> list[dict[str, Any]]:
    """Give devices as the drawing has them."""
    return [
        {
            "hostname": one["hostname"],
            "said": ", ".join(one["inside"]) or "in no location",
            "state": "ok" if one["inside"] else "quiet",
            "x": frame.x(one["longitude"]),
            "y": frame.y(one["latitude"]),
        }
        for one in devices
    ]


def holds_at(geo_schedule: Row, minute: int) -> bool:
    """Tell whether a geo schedule holds at a minute of its day; one may go over midnight."""
    starts, ends = _minute(geo_schedule["starts"]), _minute(geo_schedule["ends"])
    if starts < ends:
        return starts <= minute < ends
    return minute >= starts or minute < ends


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
