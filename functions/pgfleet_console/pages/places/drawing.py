"""From degrees to a drawing: a flat map, with the tiles of a server under it; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pgfleet.statements import Row

WIDTH, HEIGHT, EDGE = 1000.0, 600.0, 40.0
METRES_A_DEGREE = 111_320.0
# As far as the map of tiles goes; a pole is infinitely far away on it.
HIGHEST, LEAST_COSINE = 85.0511, 0.01
TILE, DEEPEST = 256, 18
# Nearer than this nothing more is seen, and a single device is not blown up to all of the map.
LEAST_DEGREES = 0.002
LINES = 6
STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of the earth that is drawn, in the projection of Mercator, as tiles are."""

    south: float
    west: float
    scale: float
    left: float
    bottom: float

    def x(self, longitude: float) -> float:
        """Give where a longitude is; what lies beyond the date line is nearer the other way."""
        east = longitude - self.west
        if east < -180:
            east += 360
        return round(self.left + east * self.scale, 2)

    def y(self, latitude: float) -> float:
        """Give where a latitude is."""
        return round(HEIGHT - self.bottom - (northing(latitude) - self.south) * self.scale, 2)

    def length(self, metres: float, latitude: float) -> float:
        """Give how long so many metres are; the nearer to a pole, the longer."""
        narrowing = max(math.cos(math.radians(latitude)), LEAST_COSINE)
        return round(metres / METRES_A_DEGREE / narrowing * self.scale, 2)


def northing(latitude: float) -> float:
    """Give how far north a latitude is on the flat map, in degrees as they are at the equator."""
    known = math.radians(max(-HIGHEST, min(HIGHEST, latitude)))
    return math.degrees(math.asinh(math.tan(known)))


def latitude_of(north: float) -> float:
    """Give the latitude that is so far north on the flat map."""
    return math.degrees(math.atan(math.sinh(math.radians(north))))


def frame_of(locations: Sequence[Row], devices: Sequence[Row]) -> Frame | None:
    """Give a frame in which everything is seen, or none where there is nothing."""
    points = [*_corners(locations), *((one["latitude"], one["longitude"]) for one in devices)]
    if not points:
        return None
    longitudes = [longitude for _, longitude in points]
    if max(longitudes) - min(longitudes) > 180:
        longitudes = [one + 360 if one < 0 else one for one in longitudes]
    norths = [northing(latitude) for latitude, _ in points]
    south, north = min(norths), max(norths)
    west, east = min(longitudes), max(longitudes)
    wide, high = max(east - west, LEAST_DEGREES), max(north - south, LEAST_DEGREES)
    scale = min((WIDTH - 2 * EDGE) / wide, (HEIGHT - 2 * EDGE) / high)
    return Frame(
        south=south,
        west=west,
        scale=scale,
        left=(WIDTH - (east - west) * scale) / 2,
        bottom=(HEIGHT - (north - south) * scale) / 2,
    )


def _corners(locations: Sequence[Row]) -> Iterator[tuple[float, float]]:
    for one in locations:
        if one["polygon"]:
            yield from ((corner[0], corner[1]) for corner in one["polygon"])
        elif one["latitude"] is not None:
            up = (one["radius_m"] or 0) / METRES_A_DEGREE
            aside = up / max(math.cos(math.radians(one["latitude"])), LEAST_COSINE)
            yield one["latitude"] - up, one["longitude"] - aside
            yield one["latitude"] + up, one["longitude"] + aside


def tiles(frame: Frame, template: str) -> list[dict[str, Any]]:
    """Give the pictures of a tile server that lie under the drawing, and where each does."""
    world = 360 * frame.scale
    zoom = max(0, min(DEEPEST, round(math.log2(world / TILE))))
    count = 2**zoom
    size = world / count
    # Where the corner of all tiles is: 180 degrees west, as far north as the map goes.
    left = frame.left - (frame.west + 180) * frame.scale
    top = HEIGHT - frame.bottom - (180 - frame.south) * frame.scale
    rows = range(max(0, math.floor(-top / size)), min(count, math.ceil((HEIGHT - top) / size)))
    columns = range(math.floor(-left / size), math.ceil((WIDTH - left) / size))
    return [
        {
            "href": template.format(z=zoom, x=column % count, y=row),
            "x": round(left + column * size, 2),
            "y": round(top + row * size, 2),
            # A little larger, so that no line is seen between two of them.
            "size": round(size + 0.5, 2),
        }
        for row in rows
        for column in columns
    ]


def grid(frame: Frame) -> list[dict[str, Any]]:
    """Give the lines of round degrees that cross the drawing."""
    lines: list[dict[str, Any]] = []
    bottom = frame.south - frame.bottom / frame.scale
    south, north = latitude_of(bottom), latitude_of(bottom + HEIGHT / frame.scale)
    west = frame.west - frame.left / frame.scale
    for first, size, name in ((south, north - south, "y"), (west, WIDTH / frame.scale, "x")):
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
    return round(frame.left + (degrees - frame.west) * frame.scale, 2)


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
            radius = max(frame.length(one["radius_m"] or 0, one["latitude"]), 3.0)
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
