"""Rules on telemetry: once when it is met, again only after it was over, and nothing that wipes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def device(db: Any) -> int:
    """Make an owner with a device, for whom nobody signed in acts."""
    owner = uuid4()
    db.execute("insert into owners (id, name) values (%s, 'field')", (owner,))
    db.execute("select fleet.set_setting('default_owner', to_jsonb(%s::text))", (str(owner),))
    (number,) = db.execute(
        "insert into devices (owner_id, hostname, tags) values (%s, 'pc', '{field}') returning id",
        (owner,),
    ).fetchone()
    return int(number)


def rule(db: Any, condition: str, **more: Any) -> int:
    values = {"action_type": "lock", "name": "x", "cooldown": "0"} | more | {"condition": condition}
    names = ", ".join(values)
    marks = ", ".join(f"%({name})s" for name in values)
    row = db.execute(
        f"insert into telemetry_rules ({names}) values ({marks}) returning id".encode(), values
    ).fetchone()
    return int(row[0])


def tell(db: Any, device: int, data: Any, minutes: float = 0) -> int:
    """Let a device report, so many minutes from now; give for how many something was done."""
    at = NOW + timedelta(minutes=minutes)
    points = [{"device_id": device, "at": at.isoformat(), "data": data}]
    row = db.execute(
        "select fleet.worker_judge_points(%s, %s)", (json.dumps(points), at)
    ).fetchone()
    return int(row[0])


def commands(db: Any) -> list[str]:
    rows = db.execute("select command_type from device_commands order by id").fetchall()
    return [name for (name,) in rows]


def test_a_rule_acts_once_while_it_is_met(db: Any, device: int) -> None:
    rule(db, "battery < 15")
    told = [tell(db, device, {"battery": level}, n) for n, level in enumerate((20, 14, 13, 30, 12))]
    assert told == [0, 1, 0, 0, 1]
    assert commands(db) == ["lock", "lock"]


def test_it_has_to_be_over_by_far_enough_before_it_acts_again(db: Any, device: int) -> None:
    rule(db, "battery < 15", clear_at=25)
    told = [tell(db, device, {"battery": level}, n) for n, level in enumerate((14, 20, 14, 25, 14))]
    assert told == [1, 0, 0, 0, 1]


def test_it_does_nothing_until_it_has_cooled_down(db: Any, device: int) -> None:
    rule(db, "t > 30", cooldown="1 hour")
    told = [
        tell(db, device, {"t": value}, minutes)
        for value, minutes in ((31, 0), (20, 10), (31, 20), (20, 70), (31, 80))
    ]
    assert told == [1, 0, 0, 0, 1]


def test_a_schedule_is_made_where_that_is_wanted(db: Any, device: int) -> None:
    rule(db, "gps.speed >= 30", action="schedule", name="too fast")
    assert tell(db, device, {"gps": {"speed": 30}}) == 1
    rows = db.execute("select name, status, device_ids from schedules").fetchall()
    assert [(name, ids) for name, _, ids in rows] == [("too fast: pc", [device])]
    assert commands(db) == ["lock"]


@pytest.mark.parametrize("data", [{}, {"battery": "low"}, {"battery": None}, 7, None, [1]])
def test_a_point_without_the_number_says_nothing(db: Any, device: int, data: Any) -> None:
    rule(db, "battery < 15")
    assert tell(db, device, {"battery": 1}) == 1
    assert tell(db, device, data, 1) == 0
    assert tell(db, device, {"battery": 2}, 2) == 0


def test_history_that_is_read_later_makes_nothing_happen(db: Any, device: int) -> None:
    rule(db, "battery < 15")
    at = (NOW - timedelta(hours=2)).isoformat()
    points = [{"device_id": device, "at": at, "data": {"battery": 1}}]
    row = db.execute("select fleet.worker_judge_points(%s, %s)", (json.dumps(points), NOW))
    assert row.fetchone() == (0,)


def test_a_device_that_is_silent_is_noticed_once(db: Any, device: int) -> None:
    rule(db, "missing for 30 minutes")
    tell(db, device, {"t": 1})

    def look(minutes: float) -> int:
        at = NOW + timedelta(minutes=minutes)
        return int(db.execute("select fleet.judge_silence(%s)", (at,)).fetchone()[0])

    assert [look(10), look(31), look(40)] == [0, 1, 0]
    tell(db, device, {"t": 1}, 50)
    assert [look(60), look(81)] == [0, 1]


def test_only_devices_that_are_meant_are_judged(db: Any, device: int) -> None:
    rule(db, "t > 1", selector=json.dumps({"tags": ["other"]}))
    assert tell(db, device, {"t": 2}) == 0
    rule(db, "t > 1", selector=json.dumps({"tags": ["field"]}))
    assert tell(db, device, {"t": 3}, 1) == 1


def test_one_rule_that_is_wrong_by_now_stops_no_other_and_says_so(db: Any, device: int) -> None:
    db.execute("insert into command_types (name) values ('ours')")
    wrong = rule(db, "t > 1", action_type="ours")
    rule(db, "t > 1")
    db.execute("delete from command_types where name = 'ours'")
    assert tell(db, device, {"t": 2}) == 1
    (error,) = db.execute(
        "select last_error from telemetry_rules where id = %s", (wrong,)
    ).fetchone()
    assert "ours" in error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"condition": "battery <"}, "condition"),
        ({"condition": "battery < 15; drop table x"}, "condition"),
        ({"condition": "missing for 5 seconds"}, "condition"),
        ({"condition": "battery < 15", "clear_at": 10}, "clear_at"),
        ({"condition": "t > 1", "action_type": "no_such"}, "no_such"),
        (
            {"condition": "t > 1", "action_type": "mdm_wipe", "payload": '{"confirm": true}'},
            "undone",
        ),
        ({"condition": "t > 1", "group_id": 99}, "group 99"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(
    db: Any, device: int, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(psycopg.Error, match=said) as caught:
        rule(db, given.pop("condition"), **given)
    assert caught.value.diag.message_detail == "telemetry_rule_invalid"


@pytest.mark.parametrize("action", ["schedule", "command"])
def test_more_devices_than_one_list_takes_are_acted_on_as_well(
    db: Any, device: int, action: str
) -> None:
    many = 10_002
    number = rule(db, "battery < 15", action=action)
    devices = [
        row[0]
        for row in db.execute(
            "insert into devices (owner_id, hostname) select d.owner_id, 'many-' || n"
            " from devices as d, generate_series(1, %s) as n where d.id = %s returning id",
            (many, device),
        )
    ]
    acts = json.dumps([{"rule_id": number, "devices": devices}])
    (done,) = db.execute("select fleet.act_for_rules(%s, %s)", (acts, NOW)).fetchone()
    assert done == many
    reached = db.execute("select count(*), count(distinct device_id) from device_commands")
    assert reached.fetchone() == (many, many)
