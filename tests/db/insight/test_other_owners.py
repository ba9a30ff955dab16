"""Another owner sees nothing of mine, and what is mine reads as missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row
from tests.helpers.insight import DAY, NOON, daily, rows

MISSING = 999_999_999
BY_SCHEDULE = [
    "select * from upcoming_runs(%s)",
    "select * from diff_schedule(%s, '{}')",
    "select explain_schedule(%s, now())",
    "select describe_schedule(%s)",
    "select * from schedule_conflicts(%s)",
]
OF_ALL = {
    "schedule_conflicts": f"(null, '{NOON}', '{NOON + DAY}')",
    "simulate_fleet": f"('{NOON}', '{NOON + DAY}')",
    "schedule_calendar": f"('{NOON:%Y-%m-%d}', '{NOON + DAY:%Y-%m-%d}')",
}


@pytest.fixture
def mine(fleet: Fleet) -> Row:
    """Give two schedules that meet, of which one is given."""
    device = fleet.device("secret-host")
    daily(fleet, [device], name="secret too")
    return daily(fleet, [device], name="secret")


@pytest.fixture
def stranger(fleet: Fleet) -> Iterator[Fleet]:
    """Give another owner with a device and a schedule of the same hours."""
    other = Fleet(fleet.conn, uuid4())
    daily(other, [other.device()], name="theirs")
    yield other


@pytest.mark.parametrize("query", BY_SCHEDULE)
def test_a_foreign_schedule_reads_as_missing(
    fleet: Fleet, mine: Row, stranger: Fleet, query: str
) -> None:
    said = []
    for wanted in (mine["id"], MISSING):
        with (
            fleet.refused("PT404", "schedule_not_found") as refusal,
            fleet.acting(stranger.owner_id),
        ):
            fleet.rows(query, wanted)
        said.append(refusal.message.replace(str(wanted), "<id>"))

    assert said[0] == said[1]


def test_a_foreign_device_reads_as_missing(fleet: Fleet, mine: Row, stranger: Fleet) -> None:
    (theirs,) = fleet.rows("select id from devices where owner_id = %s", stranger.owner_id)

    for wanted in (theirs["id"], MISSING):
        with fleet.refused("PT404", "device_not_found"), fleet.acting(fleet.owner_id):
            fleet.rows("select explain_schedule(%s, now(), %s)", mine["id"], wanted)


@pytest.mark.parametrize("key", ["device_ids", "group_ids", "after", "blackouts", "owner_id"])
def test_a_preview_reaches_nothing_foreign(
    fleet: Fleet, mine: Row, stranger: Fleet, key: str
) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="g")["id"]
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="c")["id"]
    device = fleet.value("select id from devices where owner_id = %s", fleet.owner_id)
    foreign: dict[str, Row] = {
        "device_ids": {"device_ids": [device]},
        "group_ids": {"group_ids": [group]},
        "after": {"after": {"schedule_id": mine["id"]}, "selector": {}},
        "blackouts": {"policies": {"blackouts": [calendar]}, "selector": {}},
        "owner_id": {"owner_id": str(fleet.owner_id), "selector": {}},
    }
    spec = {"name": "x", "action_type": "broadcast_message", "payload": HELLO, **foreign[key]}
    reason = "owner_not_found" if key == "owner_id" else "schedule_invalid"
    with fleet.refused("PT404", reason, "was not found"), fleet.acting(stranger.owner_id):
        fleet.rows("select * from preview_schedule(%s)", Jsonb(spec))


@pytest.mark.parametrize("name", OF_ALL)
def test_what_speaks_of_all_speaks_of_the_own(
    fleet: Fleet, mine: Row, stranger: Fleet, name: str
) -> None:
    own = str(rows(fleet, name + OF_ALL[name]))
    theirs = str(rows(stranger, name + OF_ALL[name]))
    with fleet.acting(uuid4()):
        nothing = fleet.rows(f"select * from {name}{OF_ALL[name]}")

    assert "secret" in own
    assert "secret" not in theirs
    assert "theirs" not in own
    assert nothing == []


def test_an_ical_calendar_has_only_the_own(fleet: Fleet, mine: Row, stranger: Fleet) -> None:
    texts: list[Any] = []
    for owner in (fleet.owner_id, stranger.owner_id):
        with fleet.acting(owner):
            texts.append(fleet.value("select calendar_ics('{}', %s, %s)", NOON, NOON + DAY))
    with fleet.acting(stranger.owner_id):
        asked = fleet.value(
            "select calendar_ics(%s, %s, %s)",
            Jsonb({"schedule_ids": [mine["id"]]}),
            NOON,
            NOON + DAY,
        )

    assert "SUMMARY:secret" in texts[0]
    assert "secret" not in texts[1]
    assert "BEGIN:VEVENT" not in asked


def test_a_device_sees_none_of_it(fleet: Fleet, mine: Row) -> None:
    device = fleet.value("select id from devices where owner_id = %s", fleet.owner_id)
    with fleet.as_device(device):
        for name, values in OF_ALL.items():
            assert fleet.rows(f"select * from {name}{values}") == []
    with fleet.refused("PT404", "schedule_not_found"), fleet.as_device(device):
        fleet.rows("select describe_schedule(%s)", mine["id"])
    with fleet.refused("PT403", "not_a_person"), fleet.as_device(device):
        fleet.rows("select * from preview_schedule('{}')")


def test_a_member_who_may_only_look_sees_it(fleet: Fleet, mine: Row) -> None:
    reader = uuid4()
    fleet.run(
        "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{view}')",
        fleet.owner_id,
        reader,
    )
    with fleet.acting(reader):
        assert "secret" in fleet.value("select describe_schedule(%s)", mine["id"])
        assert len(fleet.rows(f"select * from simulate_fleet{OF_ALL['simulate_fleet']}")) == 2
