"""When a device counts as inside or outside: dwell, hysteresis, order, silence."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Town

AWAY, IN = (-500, 0), (0, 0)
LIBRARY = (600, 0)


@pytest.fixture
def device(town: Town) -> int:
    return town.fleet.device()


def test_a_change_counts_once_the_other_side_holds(town: Town, device: int) -> None:
    town.report(device, 0, IN)
    town.report(device, 59, IN)
    assert town.crossings(device) == []
    answer = town.report(device, 60, IN)
    assert [place["name"] for place in answer["places"]] == ["School"]
    event = town.fleet.row("select * from location_events where event = 'entered'")
    # It began with the first fix inside; the last one settled it.
    assert (event["at"], event["fix_at"]) == (town.at(0), town.at(60))
    assert town.fleet.value("select since from device_places where is_inside") == town.at(0)


def test_a_short_visit_does_not_count(town: Town, device: int) -> None:
    for second, place in [(0, IN), (40, IN), (50, AWAY), (60, IN), (100, IN), (110, AWAY)]:
        town.report(device, second, place)
    assert town.crossings(device) == []


def test_a_location_may_need_no_dwell_or_a_long_one(town: Town, device: int) -> None:
    town.location("Gate", (0, 0), 30, min_dwell="0")
    town.location("Yard", (0, 0), 100, min_dwell="10 minutes")
    town.report(device, 0, IN)
    assert town.crossings(device) == [("entered", "Gate")]
    town.report(device, 599, IN)
    assert town.crossings(device)[1:] == [("entered", "School")]
    town.report(device, 600, IN)
    assert town.crossings(device)[2:] == [("entered", "Yard")]


def test_an_unclear_fix_changes_nothing(town: Town, device: int) -> None:
    town.report(device, 0, IN)
    before = town.fleet.rows("select * from device_places")
    # It neither supports the change nor speaks against it.
    for second in (10, 20, 65):
        town.report(device, second, (-150, 0), 40)
        assert town.fleet.rows("select * from device_places") == before
    assert town.crossings(device) == []
    town.report(device, 70, IN)
    assert town.crossings(device) == [("entered", "School")]
    for second in (80, 200, 400):
        town.report(device, second, (-160, 0), 40)
    assert len(town.crossings(device)) == 1


def test_whoever_is_inside_leaves_only_beyond_the_hysteresis(town: Town, device: int) -> None:
    for second in (0, 60):
        town.report(device, second, IN)
    # 15 m beyond the border, for an hour.
    for second in range(120, 3720, 600):
        town.report(device, second, (165, 0), 4)
    assert len(town.crossings(device)) == 1
    for second in (3800, 3860):
        town.report(device, second, (182, 0), 4)
    assert town.crossings(device)[1:] == [("left", "School")]
    # And coming back needs the border itself.
    for second in (3900, 4000):
        town.report(device, second, (165, 0), 4)
    assert len(town.crossings(device)) == 2


def test_walking_along_the_border_fires_nothing_more(town: Town, device: int) -> None:
    for second in (0, 60):
        town.report(device, second, IN)
    for step in range(60):
        town.report(device, 100 + 15 * step, (150 + (-1) ** step * 8, 0), 5)
    assert town.crossings(device) == [("entered", "School")]


def test_duplicates_and_late_fixes_are_harmless(town: Town, device: int) -> None:
    assert town.report(device, 0, IN)["accepted"]
    again = town.report(device, 0, IN, now=200)
    assert (again["accepted"], again["reason"]) == (False, "duplicate")
    town.report(device, 60, IN)
    late = town.report(device, 30, AWAY, now=90)
    assert (late["accepted"], late["reason"]) == (False, "out_of_order")
    assert [place["name"] for place in late["places"]] == ["School"]
    assert town.crossings(device) == [("entered", "School")]
    assert town.fleet.value("select located_at from devices where id = %s", device) == town.at(60)


def test_the_times_of_the_fixes_count_not_those_of_their_arrival(town: Town, device: int) -> None:
    # Fixes ten seconds apart come in a bundle half an hour later.
    for second in range(0, 50, 10):
        town.report(device, second, IN, now=1800)
    assert town.crossings(device) == []
    town.report(device, 60, IN, now=1800)
    assert town.crossings(device) == [("entered", "School")]


HOURS = 3600


def test_a_stale_fix_is_shown_but_settles_nothing(town: Town, device: int) -> None:
    for second in (0, 60):
        town.report(device, second, IN)
    for second in (120, 240):
        answer = town.report(device, second, AWAY, now=25 * HOURS)
        assert (answer["accepted"], answer["reason"]) == (False, "stale")
    assert town.crossings(device) == [("entered", "School")]
    assert town.fleet.value("select located_at from devices where id = %s", device) == town.at(240)


def test_after_a_silence_nothing_fires_again_and_the_silence_is_told(
    town: Town, device: int
) -> None:
    town.policy("enter", town.school)
    for second in (0, 60):
        town.report(device, second, IN)
    town.fleet.run("select fleet.tend_places(%s)", town.at(60 + 24 * HOURS))
    assert town.events(device, "position_lost") == []
    for _ in range(2):
        town.fleet.run("select fleet.tend_places(%s)", town.at(61 + 24 * HOURS))
    assert town.fleet.value("select lost_at from device_positions") == town.at(60 + 24 * HOURS)
    # Unknown, but it has the state that it had.
    assert town.fleet.value("select is_inside from device_places")

    for second in (100, 200):
        town.report(device, 30 * HOURS + second, IN)
    town.act()
    assert town.events(device) == [
        ("entered", "School"),
        ("inside_any", None),
        ("position_lost", None),
        ("position_found", None),
    ]
    assert len(town.schedules()) == 1
    assert town.fleet.value("select lost_at from device_positions") is None


def test_a_silence_that_no_tick_saw_is_told_all_the_same(town: Town, device: int) -> None:
    for second in (0, 60, 40 * HOURS):
        town.report(device, second, IN)
    rows = town.fleet.rows(
        "select event, at from location_events where event ~ '^position' order by id"
    )
    assert [(r["event"], r["at"]) for r in rows] == [
        ("position_lost", town.at(60 + 24 * HOURS)),
        ("position_found", town.at(40 * HOURS)),
    ]


def test_what_was_seen_before_a_silence_does_not_count_towards_the_dwell(
    town: Town, device: int
) -> None:
    town.report(device, 0, IN)
    town.report(device, 30 * HOURS, IN)
    assert town.crossings(device) == []
    town.report(device, 30 * HOURS + 60, IN)
    assert town.crossings(device) == [("entered", "School")]


def test_how_long_a_silence_may_last_is_a_setting(town: Town, device: int) -> None:
    town.fleet.run("select fleet.set_setting('stale_position_hours', '1')")
    town.report(device, 0, IN)
    assert town.report(device, 10, IN, now=2 * HOURS)["reason"] == "stale"


def outside(town: Town, device: int) -> Any:
    return town.fleet.value(
        "select is_outside_all from device_positions where device_id = %s", device
    )


def test_outside_of_all_is_told_once_and_not_between_neighbours(town: Town, device: int) -> None:
    town.location("Hall", (200, 0), 60)
    assert outside_of(town, device, [(0, AWAY)]) is None
    assert outside_of(town, device, [(60, AWAY)]) is True
    assert outside_of(town, device, [(100, IN)]) is True
    assert outside_of(town, device, [(160, IN)]) is False
    # From the school into the hall next to it.
    assert outside_of(town, device, [(200, (200, 0)), (260, (200, 0))]) is False
    assert outside_of(town, device, [(300, AWAY), (330, AWAY)]) is False
    assert outside_of(town, device, [(360, AWAY), (900, AWAY)]) is True
    assert town.events(device) == [
        ("outside_all", None),
        ("entered", "School"),
        ("inside_any", None),
        ("left", "School"),
        ("entered", "Hall"),
        ("left", "Hall"),
        ("outside_all", None),
    ]


def outside_of(town: Town, device: int, fixes: list[tuple[float, tuple[float, float]]]) -> Any:
    for second, place in fixes:
        town.report(device, second, place)
    return outside(town, device)


def test_where_there_is_no_location_nobody_is_outside_of_all(fleet: Fleet) -> None:
    town = Town(fleet)
    fleet.run("delete from locations where owner_id = %s", fleet.owner_id)
    device = fleet.device()
    assert outside_of(town, device, [(0, AWAY), (100, AWAY)]) is None
    assert town.events(device) == []


def test_a_location_that_goes_takes_its_places_along_and_leaves_the_history(
    town: Town, device: int
) -> None:
    for second in (0, 60):
        town.report(device, second, IN)
    town.fleet.run("delete from locations where id = %s", town.school)
    assert town.report(device, 70, IN)["places"] == []
    assert town.crossings(device) == [("entered", "School")]
    assert outside_of(town, device, [(140, IN)]) is True


def test_locations_of_other_owners_are_not_there(town: Town, device: int) -> None:
    other = Town(Fleet(town.fleet.conn), start=town.start)
    stranger = other.fleet.device()
    for second in (0, 60):
        town.report(device, second, LIBRARY)
        other.report(stranger, second, LIBRARY)
    rows = town.fleet.rows("select device_id, location_id from device_places order by 1")
    assert [tuple(row.values()) for row in rows] == [
        (device, town.library),
        (stranger, other.library),
    ]


def test_wrong_fixes_of_a_sync_do_not_hold_up_the_others(town: Town, device: int) -> None:
    good = {"device_id": device, "latitude": 52.52, "longitude": 13.405, "accuracy_m": 5}
    time = town.at(0).isoformat()
    retired = town.fleet.device(status="retired")
    fixes = [
        {**good, "located_at": time},
        {**good, "located_at": "yesterday"},
        {**good, "located_at": time, "latitude": 91},
        {**good, "located_at": time, "latitude": "52"},
        {**good, "located_at": time, "longitude": None},
        {**good, "located_at": time, "accuracy_m": -1},
        {**good, "located_at": time, "latitude": 1e-300, "longitude": 1e300},
        {**good, "located_at": town.at(7200).isoformat()},
        {**good, "device_id": retired, "located_at": time},
        {**good, "device_id": 999_999_999, "located_at": time},
        {"located_at": time},
        7,
    ]
    rows = town.fleet.rows(
        "select outcome, count(*) from fleet.take_fixes(%s, %s) group by 1 order by 1",
        Jsonb(fixes),
        town.at(1),
    )
    assert {row["outcome"]: row["count"] for row in rows} == {
        "taken": 1,
        "invalid": 6,
        "in_the_future": 1,
        "unknown_device": 2,
    }
    assert town.fleet.value("select located_at from devices where id = %s", device) == town.at(0)
