"""When a device counts as inside or outside: dwell, hysteresis, order, silence."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area

AWAY, IN = (-500, 0), (0, 0)
LIBRARY = (600, 0)


@pytest.fixture
def device(area: Area) -> int:
    return area.fleet.device()


def test_a_change_counts_once_the_other_side_holds(area: Area, device: int) -> None:
    area.report(device, 0, IN)
    area.report(device, 59, IN)
    assert area.crossings(device) == []
    answer = area.report(device, 60, IN)
    assert [place["name"] for place in answer["places"]] == ["School"]
    event = area.fleet.row("select * from location_events where event = 'entered'")
    # It began with the first fix inside; the last one settled it.
    assert (event["at"], event["fix_at"]) == (area.at(0), area.at(60))
    assert area.fleet.value("select since from device_places where is_inside") == area.at(0)


def test_a_short_visit_does_not_count(area: Area, device: int) -> None:
    for second, place in [(0, IN), (40, IN), (50, AWAY), (60, IN), (100, IN), (110, AWAY)]:
        area.report(device, second, place)
    assert area.crossings(device) == []


def test_a_location_may_need_no_dwell_or_a_long_one(area: Area, device: int) -> None:
    area.location("Gate", (0, 0), 30, min_dwell="0")
    area.location("Yard", (0, 0), 100, min_dwell="10 minutes")
    area.report(device, 0, IN)
    assert area.crossings(device) == [("entered", "Gate")]
    area.report(device, 599, IN)
    assert area.crossings(device)[1:] == [("entered", "School")]
    area.report(device, 600, IN)
    assert area.crossings(device)[2:] == [("entered", "Yard")]


def test_an_unclear_fix_changes_nothing(area: Area, device: int) -> None:
    area.report(device, 0, IN)
    before = area.fleet.rows("select * from device_places")
    # It neither supports the change nor speaks against it.
    for second in (10, 20, 65):
        area.report(device, second, (-150, 0), 40)
        assert area.fleet.rows("select * from device_places") == before
    assert area.crossings(device) == []
    area.report(device, 70, IN)
    assert area.crossings(device) == [("entered", "School")]
    for second in (80, 200, 400):
        area.report(device, second, (-160, 0), 40)
    assert len(area.crossings(device)) == 1


def test_whoever_is_inside_leaves_only_beyond_the_hysteresis(area: Area, device: int) -> None:
    for second in (0, 60):
        area.report(device, second, IN)
    # 15 m beyond the border, for an hour.
    for second in range(120, 3720, 600):
        area.report(device, second, (165, 0), 4)
    assert len(area.crossings(device)) == 1
    for second in (3800, 3860):
        area.report(device, second, (182, 0), 4)
    assert area.crossings(device)[1:] == [("left", "School")]
    # And coming back needs the border itself.
    for second in (3900, 4000):
        area.report(device, second, (165, 0), 4)
    assert len(area.crossings(device)) == 2


def test_walking_along_the_border_fires_nothing_more(area: Area, device: int) -> None:
    for second in (0, 60):
        area.report(device, second, IN)
    for step in range(60):
        area.report(device, 100 + 15 * step, (150 + (-1) ** step * 8, 0), 5)
    assert area.crossings(device) == [("entered", "School")]


def test_duplicates_and_late_fixes_are_harmless(area: Area, device: int) -> None:
    assert area.report(device, 0, IN)["accepted"]
    again = area.report(device, 0, IN, now=200)
    assert (again["accepted"], again["reason"]) == (False, "duplicate")
    area.report(device, 60, IN)
    late = area.report(device, 30, AWAY, now=90)
    assert (late["accepted"], late["reason"]) == (False, "out_of_order")
    assert [place["name"] for place in late["places"]] == ["School"]
    assert area.crossings(device) == [("entered", "School")]
    assert area.fleet.value("select located_at from devices where id = %s", device) == area.at(60)


def test_the_times_of_the_fixes_count_not_those_of_their_arrival(area: Area, device: int) -> None:
    # Fixes ten seconds apart come in a bundle half an hour later.
    for second in range(0, 50, 10):
        area.report(device, second, IN, now=1800)
    assert area.crossings(device) == []
    area.report(device, 60, IN, now=1800)
    assert area.crossings(device) == [("entered", "School")]


HOURS = 3600


def test_a_stale_fix_is_shown_but_settles_nothing(area: Area, device: int) -> None:
    for second in (0, 60):
        area.report(device, second, IN)
    for second in (120, 240):
        answer = area.report(device, second, AWAY, now=25 * HOURS)
        assert (answer["accepted"], answer["reason"]) == (False, "stale")
    assert area.crossings(device) == [("entered", "School")]
    assert area.fleet.value("select located_at from devices where id = %s", device) == area.at(240)


def test_after_a_silence_nothing_fires_again_and_the_silence_is_told(
    area: Area, device: int
) -> None:
    area.policy("enter", area.school)
    for second in (0, 60):
        area.report(device, second, IN)
    area.fleet.run("select fleet.tend_locations(%s)", area.at(60 + 24 * HOURS))
    assert area.events(device, "position_lost") == []
    for _ in range(2):
        area.fleet.run("select fleet.tend_locations(%s)", area.at(61 + 24 * HOURS))
    assert area.fleet.value("select lost_at from device_positions") == area.at(60 + 24 * HOURS)
    # Unknown, but it has the state that it had.
    assert area.fleet.value("select is_inside from device_places")

    for second in (100, 200):
        area.report(device, 30 * HOURS + second, IN)
    area.act()
    assert area.events(device) == [
        ("entered", "School"),
        ("inside_any", None),
        ("position_lost", None),
        ("position_found", None),
    ]
    assert len(area.schedules()) == 1
    assert area.fleet.value("select lost_at from device_positions") is None


def test_a_silence_that_no_tick_saw_is_told_all_the_same(area: Area, device: int) -> None:
    for second in (0, 60, 40 * HOURS):
        area.report(device, second, IN)
    rows = area.fleet.rows(
        "select event, at from location_events where event ~ '^position' order by id"
    )
    assert [(r["event"], r["at"]) for r in rows] == [
        ("position_lost", area.at(60 + 24 * HOURS)),
        ("position_found", area.at(40 * HOURS)),
    ]


def test_what_was_seen_before_a_silence_does_not_count_towards_the_dwell(
    area: Area, device: int
) -> None:
    area.report(device, 0, IN)
    area.report(device, 30 * HOURS, IN)
    assert area.crossings(device) == []
    area.report(device, 30 * HOURS + 60, IN)
    assert area.crossings(device) == [("entered", "School")]


def test_how_long_a_silence_may_last_is_a_setting(area: Area, device: int) -> None:
    area.fleet.run("select fleet.set_setting('stale_position_hours', '1')")
    area.report(device, 0, IN)
    assert area.report(device, 10, IN, now=2 * HOURS)["reason"] == "stale"


def outside(area: Area, device: int) -> Any:
    return area.fleet.value(
        "select is_outside_all from device_positions where device_id = %s", device
    )


def test_outside_of_all_is_told_once_and_not_between_neighbours(area: Area, device: int) -> None:
    area.location("Hall", (200, 0), 60)
    assert outside_of(area, device, [(0, AWAY)]) is None
    assert outside_of(area, device, [(60, AWAY)]) is True
    assert outside_of(area, device, [(100, IN)]) is True
    assert outside_of(area, device, [(160, IN)]) is False
    # From the school into the hall next to it.
    assert outside_of(area, device, [(200, (200, 0)), (260, (200, 0))]) is False
    assert outside_of(area, device, [(300, AWAY), (330, AWAY)]) is False
    assert outside_of(area, device, [(360, AWAY), (900, AWAY)]) is True
    assert area.events(device) == [
        ("outside_all", None),
        ("entered", "School"),
        ("inside_any", None),
        ("left", "School"),
        ("entered", "Hall"),
        ("left", "Hall"),
        ("outside_all", None),
    ]


def outside_of(area: Area, device: int, fixes: list[tuple[float, tuple[float, float]]]) -> Any:
    for second, place in fixes:
        area.report(device, second, place)
    return outside(area, device)


def test_where_there_is_no_location_nobody_is_outside_of_all(fleet: Fleet) -> None:
    area = Area(fleet)
    fleet.run("delete from locations where owner_id = %s", fleet.owner_id)
    device = fleet.device()
    assert outside_of(area, device, [(0, AWAY), (100, AWAY)]) is None
    assert area.events(device) == []


def test_a_location_that_goes_takes_its_places_along_and_leaves_the_history(
    area: Area, device: int
) -> None:
    for second in (0, 60):
        area.report(device, second, IN)
    area.fleet.run("delete from locations where id = %s", area.school)
    assert area.report(device, 70, IN)["places"] == []
    assert area.crossings(device) == [("entered", "School")]
    assert outside_of(area, device, [(140, IN)]) is True


def test_locations_of_other_owners_are_not_there(area: Area, device: int) -> None:
    other = Area(Fleet(area.fleet.conn), start=area.start)
    stranger = other.fleet.device()
    for second in (0, 60):
        area.report(device, second, LIBRARY)
        other.report(stranger, second, LIBRARY)
    rows = area.fleet.rows("select device_id, location_id from device_places order by 1")
    assert [tuple(row.values()) for row in rows] == [
        (device, area.library),
        (stranger, other.library),
    ]


def test_wrong_fixes_of_a_sync_do_not_hold_up_the_others(area: Area, device: int) -> None:
    good = {"device_id": device, "latitude": 52.52, "longitude": 13.405, "accuracy_m": 5}
    time = area.at(0).isoformat()
    retired = area.fleet.device(status="retired")
    fixes = [
        {**good, "located_at": time},
        {**good, "located_at": "yesterday"},
        {**good, "located_at": time, "latitude": 91},
        {**good, "located_at": time, "latitude": "52"},
        {**good, "located_at": time, "longitude": None},
        {**good, "located_at": time, "accuracy_m": -1},
        {**good, "located_at": time, "latitude": 1e-300, "longitude": 1e300},
        {**good, "located_at": area.at(7200).isoformat()},
        {**good, "device_id": retired, "located_at": time},
        {**good, "device_id": 999_999_999, "located_at": time},
        {"located_at": time},
        7,
    ]
    rows = area.fleet.rows(
        "select outcome, count(*) from fleet.take_fixes(%s, %s) group by 1 order by 1",
        Jsonb(fixes),
        area.at(1),
    )
    assert {row["outcome"]: row["count"] for row in rows} == {
        "taken": 1,
        "invalid": 6,
        "in_the_future": 1,
        "unknown_device": 2,
    }
    assert area.fleet.value("select located_at from devices where id = %s", device) == area.at(0)
