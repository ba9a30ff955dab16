"""The agent's side of geo schedules agrees with the database: borders, days without a network."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

from pgfleet.agent.geo.actions import Course, Seen, apps_of, merged, step
from pgfleet.agent.geo.geometry import side_of
from pgfleet.agent.location.fix import Fix

BERLIN = (52.52, 13.405)
# A day of UTC begins and ends far from it, however long the suite has run by then.
NOW = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


class Device:
    """An agent whose clock and network are in our hands; what it asks and tells is real."""

    def __init__(self, fleet: Fleet, device_id: int) -> None:
        self.fleet, self.device_id = fleet, device_id
        self.courses: dict[int, Course] = {}
        self.seen = Seen()
        self.blocked: list[tuple[datetime, frozenset[str]]] = []

    def ask(self, now: datetime) -> None:
        with self.fleet.as_device(self.device_id):
            answer = self.fleet.value("select fleet.geo_actions_due(%s)", now)
        self.courses = merged(self.courses, answer["actions"])

    def tell(self, now: datetime) -> list[dict[str, Any]]:
        answers = []
        for number, course in self.courses.items():
            if course.must_tell:
                with self.fleet.as_device(self.device_id):
                    answer = self.fleet.value(
                        "select fleet.report_geo_action(%s, %s, %s, %s, %s)",
                        *(number, course.status, course.met_at, course.reason, now),
                    )
                answers.append(answer)
                self.courses[number] = replace(course, told=(course.status, course.met_at))
        return answers

    def lives(self, now: datetime) -> frozenset[str]:
        self.courses = {n: step(one, self.seen, now) for n, one in self.courses.items()}
        apps = apps_of(self.courses)
        if not self.blocked or self.blocked[-1][1] != apps:
            self.blocked.append((now, apps))
        return apps

    def is_at(self, position: tuple[float, float], now: datetime, accuracy: float = 10) -> None:
        self.seen = Seen(Fix(*position, now, accuracy), now)


def create(fleet: Fleet, **spec: Any) -> int:
    whole = {"owner_id": str(fleet.owner_id), "name": "block", "timezone": "UTC", **spec}
    made: int = fleet.value("select id from create_geo_schedule(%s)", Jsonb(whole))
    return made


@pytest.fixture
def device(fleet: Fleet) -> Device:
    return Device(fleet, fleet.device("tablet-1", timezone="Europe/Berlin"))


@contextmanager
def location(fleet: Fleet, **columns: Any) -> Iterator[str]:
    fleet.insert("locations", owner_id=fleet.owner_id, name="here", **columns)
    yield "here"


# Borders.

SQUARE = [[52.5, 13.3], [52.5, 13.5], [52.6, 13.5], [52.6, 13.3]]
DENT = [[0.0, 179.9], [0.2, -179.9], [0.0, -179.7], [0.1, -179.9]]
SHAPES: list[dict[str, Any]] = [
    {"kind": "circle", "latitude": 52.52, "longitude": 13.405, "radius_m": 500},
    {"kind": "circle", "latitude": -16.5, "longitude": 179.999, "radius_m": 3000},
    {"kind": "circle", "latitude": 89.9, "longitude": 0, "radius_m": 20000},
    {"kind": "polygon", "polygon": SQUARE},
    {"kind": "polygon", "polygon": DENT},
]


@pytest.mark.parametrize("shape", SHAPES, ids=["city", "antimeridian", "pole", "square", "dent"])
def test_both_sides_judge_a_fix_alike(fleet: Fleet, shape: dict[str, Any]) -> None:
    columns = {**shape, "polygon": Jsonb(shape["polygon"])} if "polygon" in shape else shape
    row = fleet.insert("locations", owner_id=fleet.owner_id, name="L", hysteresis_m=40, **columns)
    geometry = {
        name: row[name]
        for name in (
            *("kind", "latitude", "longitude", "radius_m", "polygon", "reach_m", "hysteresis_m"),
        )
        if row[name] is not None
    }
    generator = random.Random(json.dumps(shape))
    reach = (row["radius_m"] or row["reach_m"]) / 111_000
    fixes = []
    for _ in range(400):
        far = reach * generator.choice([0.3, 0.99, 1.0, 1.01, 1.5, 40])
        latitude = row["latitude"] + generator.uniform(-far, far)
        longitude = row["longitude"] + generator.uniform(-far, far) * generator.choice([1, 1.7])
        fixes.append(
            {
                "latitude": max(-90, min(90, latitude)),
                "longitude": (longitude + 540) % 360 - 180,
                "accuracy": generator.choice([0, 3, 40, 900, None]),
                "was": generator.random() < 0.5,
            }
        )
    theirs = fleet.rows(
        """
        select fleet.side_of_fix(
          fleet.border_distance_m(l, f.latitude, f.longitude),
          coalesce(f.accuracy, l.hysteresis_m), l.hysteresis_m, f.was
        ) as side
        from rows from (
          jsonb_to_recordset(%s)
            as (latitude float8, longitude float8, accuracy float8, was boolean)
        ) with ordinality as f(latitude, longitude, accuracy, was, nr)
        join public.locations as l on l.id = %s
        order by f.nr
        """,
        Jsonb(fixes),
        row["id"],
    )
    ours = [
        side_of(geometry, Fix(one["latitude"], one["longitude"], NOW, one["accuracy"]), one["was"])
        for one in fixes
    ]
    assert ours == [one["side"] for one in theirs]
    assert len(set(ours)) == 3


# Days without a network.


def test_a_device_that_is_cut_off_for_ten_days_does_what_it_knew_and_both_sides_agree(
    fleet: Fleet, device: Device
) -> None:
    with location(fleet, latitude=BERLIN[0], longitude=BERLIN[1], radius_m=300) as here:
        nights = create(
            fleet, name="night", device="tablet-1", apps=["chat"], start_minute=1320, end_minute=360
        )
        school = create(
            fleet,
            **{"name": "school", "device": "tablet-1", "apps": ["steam"], "location": here},
            **{"side": "inside", "start_minute": 480, "end_minute": 780, "timezone": "device"},
        )
    cut_off = NOW
    device.ask(cut_off)
    device.tell(cut_off)
    back = cut_off + timedelta(days=10)
    now = cut_off
    while now < back:
        # In school from Monday to Friday, at home otherwise.
        device.is_at(BERLIN if now.weekday() < 5 else (48.1, 11.6), now)
        device.lives(now)
        now += timedelta(minutes=10)

    assert {apps for _, apps in device.blocked} >= {frozenset(), frozenset({"chat"})}
    over = [one for one in device.courses.values() if one.action.ends_at <= now]
    device.ask(now)
    assert all(answer["accepted"] for answer in device.tell(now))

    found = fleet.rows(
        """
        select a.geo_schedule_id, r.status, a.from_date, r.location_met_at
        from geo_action_reports as r join geo_actions as a on a.id = r.geo_action_id
        where r.device_id = %s and r.status in ('finished', 'skipped')
        """,
        device.device_id,
    )
    assert len(found) == len(over) >= 19
    assert {row["status"] for row in found if row["geo_schedule_id"] == nights} == {"finished"}
    for row in found:
        if row["geo_schedule_id"] == school:
            is_school_day = row["from_date"].weekday() < 5
            assert row["status"] == ("finished" if is_school_day else "skipped"), row
            assert (row["location_met_at"] is not None) == is_school_day


def test_what_was_deleted_meanwhile_is_done_until_the_device_hears_of_it(
    fleet: Fleet, device: Device
) -> None:
    made = create(fleet, device="tablet-1", apps=["chat"], start_minute=0, end_minute=0)
    device.ask(NOW)
    assert device.lives(NOW) == {"chat"}
    device.tell(NOW)
    # At the time of the test: by the clock of the server it may be earlier or later than that.
    fleet.run("select fleet.delete_geo_schedule(%s, %s)", made, NOW)

    later = NOW + timedelta(minutes=5)
    assert device.lives(later) == {"chat"}
    device.ask(later)
    assert device.lives(later) == frozenset()
    device.tell(later)
    assert fleet.value("select status from geo_action_reports where status <> 'scheduled'") == (
        "finished"
    )


def test_an_action_that_a_wrong_clock_ended_goes_on(fleet: Fleet, device: Device) -> None:
    create(fleet, device="tablet-1", apps=["chat"], start_minute=0, end_minute=0)
    device.ask(NOW)
    device.lives(NOW)
    device.tell(NOW)
    # A reboot with the clock three days ahead, and then the network.
    assert device.lives(NOW + timedelta(days=3)) == {"chat"}
    soon = NOW + timedelta(seconds=30)
    device.ask(soon)
    assert device.lives(soon) == {"chat"}
    statuses = [one.status for one in device.courses.values() if one.action.starts_at <= soon]
    assert statuses == ["running"]


def test_what_is_gone_on_the_server_is_dropped(fleet: Fleet, device: Device) -> None:
    create(fleet, device="tablet-1", apps=["chat"], start_minute=0, end_minute=0)
    device.ask(NOW)
    device.lives(NOW)
    fleet.run("delete from geo_actions")
    (answer, *_) = device.tell(NOW)
    assert answer == {"accepted": False, "reason": "gone"}


def test_one_odd_action_does_not_free_the_device_of_the_others(
    fleet: Fleet, device: Device
) -> None:
    create(fleet, device="tablet-1", apps=["chat"], start_minute=0, end_minute=0)
    with fleet.as_device(device.device_id):
        rows = fleet.value("select fleet.geo_actions_due(%s)", NOW)["actions"]
    odd: list[dict[str, Any]] = [{}, {**rows[0], "geo_action_id": 7, "starts_at": "soon"}]
    rows[0]["location_met_at"] = "-infinity"
    assert merged({}, [*odd, *rows]).keys() == {row["geo_action_id"] for row in rows}


# Where the device is.


@pytest.mark.parametrize(
    ("unknown", "was_here", "is_blocked"),
    [
        ("keep_last", True, True),
        ("keep_last", False, False),
        ("block", False, True),
        ("free", True, False),
    ],
)
def test_a_position_that_is_too_old_is_unknown(
    fleet: Fleet, device: Device, unknown: str, was_here: bool, is_blocked: bool
) -> None:
    with location(fleet, latitude=BERLIN[0], longitude=BERLIN[1], radius_m=300) as here:
        create(
            fleet,
            **{"device": "tablet-1", "apps": ["steam"], "location": here, "side": "inside"},
            **{"start_minute": 0, "end_minute": 0, "unknown_location": unknown},
        )
    device.ask(NOW)
    # In the middle of an action, so that none ends meanwhile.
    noon = min(one.action.starts_at for one in device.courses.values()) + timedelta(hours=1)
    device.is_at(BERLIN if was_here else (0.0, 0.0), noon)
    assert device.lives(noon) == ({"steam"} if was_here else frozenset())
    later = noon + timedelta(hours=1, seconds=1)
    assert device.lives(later) == ({"steam"} if is_blocked else frozenset())


def test_who_is_inside_has_left_only_beyond_the_hysteresis(fleet: Fleet, device: Device) -> None:
    row = {"latitude": BERLIN[0], "longitude": BERLIN[1], "radius_m": 300, "hysteresis_m": 100}
    with location(fleet, **row) as here:
        create(
            fleet,
            **{"device": "tablet-1", "apps": ["steam"], "location": here, "side": "inside"},
            **{"start_minute": 0, "end_minute": 0},
        )
    device.ask(NOW)

    def is_blocked_at(metres: float) -> bool:
        device.is_at((BERLIN[0] + metres / 111_195, BERLIN[1]), NOW, accuracy=5)
        return bool(device.lives(NOW))

    assert [is_blocked_at(metres) for metres in (350, 200, 350, 450, 350)] == [
        *(False, True, True),
        *(False, False),
    ]


def test_several_at_once_block_the_union(fleet: Fleet, device: Device) -> None:
    for apps in (["a", "b"], ["b", "c"]):
        create(fleet, device="tablet-1", apps=apps, start_minute=0, end_minute=0)
    device.ask(NOW)
    assert device.lives(NOW) == {"a", "b", "c"}
