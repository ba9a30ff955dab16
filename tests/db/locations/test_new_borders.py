"""A location that is new, or has another border: who is known to be there is judged at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area, point

FAR = (5000.0, 0.0)


@pytest.fixture
def there(area: Area) -> int:
    """Give a device that is known to be far from every location, and to have been for minutes."""
    device = area.fleet.device()
    for second in (0, 70, 140):
        area.report(device, second, FAR)
    assert area.events(device) == [("outside_all", None)]
    return device


def move(area: Area, location: int, **columns: Any) -> None:
    sets = ", ".join(f"{name} = %s" for name in columns)
    query = f"update locations set {sets} where id = %s"
    area.fleet.run(query, *columns.values(), location)


def test_who_is_there_is_inside_of_a_new_location_at_once(area: Area, there: int) -> None:
    made = area.location("Depot", FAR, 100)
    assert area.events(there)[1:] == [("entered", "Depot"), ("inside_any", None)]
    inside = "select is_inside from device_places where device_id = %s and location_id = %s"
    assert area.fleet.value(inside, there, made) is True
    # The next fix says nothing new.
    area.report(there, 210, FAR)
    assert len(area.events(there)) == 3


def test_policies_act_on_who_was_there_before_the_border(area: Area, there: int) -> None:
    area.policy("inside_any")
    area.location("Depot", FAR, 100)
    area.act()
    assert [row["payload"]["message"] for row in area.commands(there)] == ["inside_any"]


def test_a_border_that_moves_leaves_devices_behind_and_takes_others_in(
    area: Area, there: int
) -> None:
    made = area.location("Depot", (9000, 0), 100)
    assert area.crossings(there) == []
    latitude, longitude = point(*FAR)
    move(area, made, latitude=latitude, longitude=longitude)
    assert area.crossings(there) == [("entered", "Depot")]
    latitude, longitude = point(0, 9000)
    move(area, made, latitude=latitude, longitude=longitude)
    assert area.crossings(there) == [("entered", "Depot"), ("left", "Depot")]


@pytest.mark.parametrize("radius", [4, 5000])
def test_a_wider_and_a_narrower_circle(area: Area, there: int, radius: float) -> None:
    made = area.location("Depot", (FAR[0] + 500, 0), 300)
    assert area.crossings(there) == []
    move(area, made, radius_m=1000 + radius)
    assert area.crossings(there) == [("entered", "Depot")]


def test_a_polygon_is_a_border_too(area: Area, there: int) -> None:
    corners = [(4900, -100), (5100, -100), (5100, 100), (4900, 100)]
    polygon = json.dumps([point(*corner) for corner in corners])
    query = "update locations set polygon = %s::jsonb where id = %s"
    area.fleet.run(query, polygon, area.library)
    assert area.crossings(there) == [("entered", "Library")]


def test_what_is_not_known_is_not_judged(area: Area, there: int) -> None:
    rough = area.fleet.device()
    area.report(rough, 140, FAR, accuracy=400)
    retired = area.fleet.device()
    area.report(retired, 140, FAR)
    area.fleet.run("update devices set status = 'retired' where id = %s", retired)
    silent = area.fleet.device()
    area.report(silent, 140, FAR)
    area.fleet.run(
        "update device_positions set fix_at = fix_at - interval '3 days' where device_id = %s",
        silent,
    )
    stranger = Fleet(area.fleet.conn)
    other = stranger.device()
    Area(stranger, start=area.start).report(other, 140, FAR)

    area.location("Depot", FAR, 100)

    assert [area.crossings(one) for one in (rough, retired, silent, other)] == [[]] * 4
    assert area.crossings(there) == [("entered", "Depot")]


def test_another_name_is_no_other_border(area: Area, there: int) -> None:
    made = area.location("Depot", FAR, 100)
    before = len(area.events(there))
    move(area, made, name="Yard")
    assert len(area.events(there)) == before
