"""report_location through the API: who may call it, with what, and what it answers."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area


def test_a_device_tells_where_it_is(area: Area) -> None:
    device, other = area.fleet.device(), area.fleet.device()
    with area.fleet.as_device(device):
        answer = area.fleet.value("select report_location(52.52, 13.405)")
    assert answer == {"accepted": True, "places": []}
    row = area.fleet.row("select * from devices where id = %s", device)
    assert (row["latitude"], row["longitude"], row["accuracy_m"]) == (52.52, 13.405, None)
    assert row["located_at"] is not None
    assert row["last_seen"] is not None
    # There is no way to name another device.
    assert area.fleet.value("select latitude from devices where id = %s", other) is None


def test_only_devices_have_a_place(fleet: Fleet) -> None:
    with fleet.refused("PT403", "not_a_device"), fleet.acting(uuid4()):
        fleet.run("select report_location(52.52, 13.405)")
    retired = fleet.device(status="retired")
    with fleet.refused("PT403", "not_a_device"), fleet.as_device(retired):
        fleet.run("select report_location(52.52, 13.405)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("91, 13", ["latitude: 91 is not within"]),
        ("null, 13", ["latitude: is missing"]),
        ("'NaN', 13", ["latitude: NaN"]),
        ("52, 181", ["longitude: 181"]),
        ("52, 13, -1", ["accuracy_m: -1"]),
        ("52, 13, 'infinity'", ["accuracy_m"]),
        ("52, 13, 5, now() + interval '1 hour'", ["located_at: is in the future"]),
        ("52, 13, 5, null", ["located_at: is missing"]),
        ("0, 0, 0", ["latitude: 0 by 0 with an accuracy of 0 is no position"]),
        ("-91, 200, -5, null", ["latitude", "longitude", "accuracy_m", "located_at"]),
    ],
)
def test_a_position_that_cannot_be_is_refused(
    fleet: Fleet, arguments: str, words: list[str]
) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "position_invalid", *words), fleet.as_device(device):
        fleet.run(f"select report_location({arguments})")


def test_positions_are_seen_by_the_people_of_the_owner_alone(area: Area) -> None:
    device = area.fleet.device()
    person, stranger = uuid4(), uuid4()
    area.fleet.run(
        "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{view}')",
        area.fleet.owner_id,
        person,
    )
    for second in (0, 60):
        area.report(device, second, (0, 0))

    def seen(sub: Any) -> list[int]:
        tables = ("locations", "device_positions", "device_places", "location_events")
        with area.fleet.acting(sub):
            return [area.fleet.value(f"select count(*) from {table}") for table in tables]

    assert seen(person) == [2, 1, 1, 2]
    assert seen(stranger) == [0, 0, 0, 0]
    assert seen(area.fleet.auth_id(device)) == [0, 0, 0, 0]
