"""Distances and borders against a computation of their own, in Python and by other formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

RADIUS = 6371008.8
Point = tuple[float, float]


def degrees(least: float, most: float) -> st.SearchStrategy[float]:
    """Give degrees as they are stored: to nine digits, a tenth of a millimetre."""
    return st.floats(least, most).map(lambda value: round(value, 9))


latitudes = degrees(-89.9, 89.9)
longitudes = degrees(-180, 180)
# One connection serves all examples: each of them only asks.
examples = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def vector(point: Point) -> tuple[float, float, float]:
    latitude, longitude = map(math.radians, point)
    return (
        math.cos(latitude) * math.cos(longitude),
        math.cos(latitude) * math.sin(longitude),
        math.sin(latitude),
    )


def distance(a: Point, b: Point) -> float:
    """Measure by the angle between two vectors, which is no haversine."""
    u, v = vector(a), vector(b)
    cross = (
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
    )
    dot = sum(x * y for x, y in zip(u, v, strict=True))
    return RADIUS * math.atan2(math.sqrt(sum(x * x for x in cross)), dot)


def moved(origin: Point, north: float, east: float) -> Point:
    """Give the point so many metres north and east, its longitude from -180 to 180."""
    latitude = origin[0] + math.degrees(north / RADIUS)
    longitude = origin[1] + math.degrees(east / RADIUS / math.cos(math.radians(origin[0])))
    return round(latitude, 9), round((longitude + 180) % 360 - 180, 9)


def unwrapped(polygon: list[Point], around: float) -> list[Point]:
    return [(lat, around + (lon - around + 180) % 360 - 180) for lat, lon in polygon]


def winding(polygon: list[Point], point: Point) -> float:
    """Sum the angles under which the edges are seen: 2π inside, 0 outside; no ray is cast."""
    total = 0.0
    corners = unwrapped(polygon, point[1])
    for (lat, lon), (to_lat, to_lon) in zip(corners, corners[1:] + corners[:1], strict=True):
        start = math.atan2(lat - point[0], lon - point[1])
        end = math.atan2(to_lat - point[0], to_lon - point[1])
        total += (end - start + math.pi) % (2 * math.pi) - math.pi
    return abs(total)


def to_border(polygon: list[Point], point: Point) -> float:
    """Walk along each edge for its nearest point, on the sphere and not on a map."""
    corners = unwrapped(polygon, point[1])
    nearest = math.inf
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):

        def at(share: float, a: Point = start, b: Point = end) -> float:
            return distance(point, (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))

        low, high = 0.0, 1.0
        for _ in range(60):
            one, two = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, two) if at(one) < at(two) else (one, high)
        nearest = min(nearest, at((low + high) / 2))
    return nearest


@given(latitudes, longitudes, latitudes, longitudes)
@examples
def test_distances_are_those_of_another_formula(
    fleet: Fleet, lat: float, lon: float, to_lat: float, to_lon: float
) -> None:
    found = fleet.value("select fleet.distance_m(%s, %s, %s, %s)", lat, lon, to_lat, to_lon)
    assert found == pytest.approx(distance((lat, lon), (to_lat, to_lon)), rel=1e-6, abs=0.5)


@pytest.mark.parametrize(
    ("a", "b", "km"),
    [
        ((52.5200, 13.4050), (48.8566, 2.3522), 877.5),
        ((0.0, 179.5), (0.0, -179.5), 111.2),
        ((90.0, 0.0), (90.0, 120.0), 0.0),
    ],
)
def test_known_distances(fleet: Fleet, a: Point, b: Point, km: float) -> None:
    found = fleet.value("select fleet.distance_m(%s, %s, %s, %s)", *a, *b)
    assert found / 1000 == pytest.approx(km, abs=0.1)


@given(
    degrees(-70, 70),
    # A good part of the examples crosses the antimeridian.
    st.one_of(degrees(-180, 180), degrees(179.9, 180), degrees(-180, -179.9)),
    st.lists(st.floats(100, 5000), min_size=3, max_size=9),
    st.floats(-8000, 8000),
    st.floats(-8000, 8000),
)
@examples
def test_borders_of_polygons_are_those_of_another_computation(
    fleet: Fleet, lat: float, lon: float, spokes: list[float], north: float, east: float
) -> None:
    turn = 2 * math.pi / len(spokes)
    polygon = [
        moved((lat, lon), length * math.sin(place * turn), length * math.cos(place * turn))
        for place, length in enumerate(spokes)
    ]
    point = moved((lat, lon), north, east)
    expected = to_border(polygon, point)
    assume(expected > 1)
    inside = winding(polygon, point) > math.pi

    found = fleet.value(
        "select fleet.polygon_distance_m(%s, %s, %s)", Jsonb([list(c) for c in polygon]), *point
    )
    assert (found < 0) == inside
    assert abs(found) == pytest.approx(expected, rel=0.01, abs=1)


@given(degrees(-80, 80), degrees(-180, 180), st.floats(1, 100_000), st.floats(0, 360))
@examples
def test_a_far_polygon_is_never_further_than_it_is_said_to_be(
    fleet: Fleet, lat: float, lon: float, away: float, bearing: float
) -> None:
    corners = [moved((lat, lon), n, e) for n, e in ((300, 0), (-200, 250), (-200, -250))]
    point = moved(
        (lat, lon), away * math.cos(math.radians(bearing)), away * math.sin(math.radians(bearing))
    )
    assume(abs(point[0]) < 84)
    found = fleet.value(
        "select fleet.border_distance_m("
        "  jsonb_populate_record(null::locations, %s || jsonb_build_object("
        "    'latitude', c.latitude, 'longitude', c.longitude, 'reach_m', c.reach_m)), %s, %s)"
        " from fleet.polygon_centre(%s) as c",
        Jsonb({"kind": "polygon", "polygon": corners}),
        *point,
        Jsonb(corners),
    )
    true = to_border(corners, point)
    assert found <= true * 1.01 + 1
    if true < 1000:
        assert abs(found) == pytest.approx(true, rel=0.01, abs=1)


def location(fleet: Fleet, **columns: Any) -> Any:
    return fleet.insert("locations", owner_id=fleet.owner_id, name="Here", **columns)


@pytest.mark.parametrize(
    ("metres", "accuracy", "place"),
    [
        (0, 10, "inside"),
        (85, 10, "inside"),
        (95, 10, "unclear"),
        (105, 10, "unclear"),
        (115, 10, "outside"),
        (99, 0, "inside"),
        (101, 0, "outside"),
        (0, 150, "unclear"),
    ],
)
def test_a_fix_whose_error_crosses_the_border_is_unclear(
    fleet: Fleet, metres: float, accuracy: float, place: str
) -> None:
    here = (52.52, 13.405)
    row = location(fleet, latitude=here[0], longitude=here[1], radius_m=100)
    found = fleet.value(
        "select fleet.side_of_fix(fleet.border_distance_m(l, %s, %s), %s, l.hysteresis_m, false)"
        " from locations as l where l.id = %s",
        *moved(here, metres * 0.6, metres * 0.8),
        accuracy,
        row["id"],
    )
    assert found == place


@pytest.mark.parametrize(
    ("distance_m", "error_m", "is_inside", "side"),
    [
        (-30, 10, False, "inside"),
        (-30, 10, True, "inside"),
        (-5, 10, False, "unclear"),
        (5, 10, True, "unclear"),
        (15, 10, False, "outside"),
        # Whoever is inside has left only beyond 25 m and the error.
        (15, 10, True, "inside"),
        (20, 10, True, "unclear"),
        (36, 10, True, "outside"),
    ],
)
def test_hysteresis_holds_for_who_is_inside(
    fleet: Fleet, distance_m: float, error_m: float, is_inside: bool, side: str
) -> None:
    found = fleet.value("select fleet.side_of_fix(%s, %s, 25, %s)", distance_m, error_m, is_inside)
    assert found == side


def test_a_polygon_across_the_antimeridian_has_its_middle_there(fleet: Fleet) -> None:
    corners = [[-17.0, 179.9], [-17.0, -179.9], [-16.9, -179.9], [-16.9, 179.9]]
    row = fleet.value(
        "insert into locations (owner_id, name, kind, polygon) values (%s, 'Date line',"
        " 'polygon', %s) returning to_jsonb(locations)",
        fleet.owner_id,
        Jsonb(corners),
    )
    assert abs(row["longitude"]) == pytest.approx(180)
    assert row["latitude"] == pytest.approx(-16.95)
    for point, place in (
        ((-16.95, 180.0), "inside"),
        ((-16.95, -180.0), "inside"),
        ((-16.95, -179.95), "inside"),
        ((-16.95, 179.8), "outside"),
        ((-16.95, 0.0), "outside"),
    ):
        distance = fleet.value(
            "select fleet.border_distance_m(l, %s, %s) from locations as l where l.id = %s",
            *point,
            row["id"],
        )
        assert abs(distance) > 5
        assert (distance < 0) == (place == "inside"), point
