"""Key rrule of create_schedule: rules of calendars, taken over or refused with the reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

START = "2031-03-03T06:30:00"


def create(fleet: Fleet, rule: object, **spec: Any) -> Row:
    whole = {
        "start_time": START,
        "timezone": "Europe/Berlin",
        "device_ids": [fleet.device()],
        **spec,
        "rrule": rule,
    }
    return fleet.create(**{key: value for key, value in whole.items() if value is not None})


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=WEEKLY;BYDAY=MO,WE",
        "RRULE:FREQ=DAILY;COUNT=3",
        "FREQ=MONTHLY;BYDAY=-1FR;UNTIL=20311231T000000Z",
        "FREQ=YEARLY;BYMONTH=3;BYMONTHDAY=3;COUNT=2",
    ],
)
def test_a_rule_runs_when_the_calendar_says(fleet: Fleet, rule: str) -> None:
    made = create(fleet, rule)
    found = fleet.rows(
        "select o at time zone 'Europe/Berlin' as at"
        " from fleet.due_instants((select recurrence from schedules where id = %s), %s, %s) as o",
        made["id"],
        datetime(2031, 1, 1, tzinfo=UTC),
        datetime(2033, 1, 1, tzinfo=UTC),
    )
    local = rrulestr(rule.replace("00Z", "00"), dtstart=datetime.fromisoformat(START))
    expected = [at for at in local.between(datetime(2031, 1, 1), datetime(2033, 1, 1), inc=True)]
    assert [row["at"] for row in found] == expected
    assert made["recurrence_type"] in {"daily", "weekly", "monthly", "cron"}
    assert "rrule" not in made


def test_a_rule_brings_the_policy_of_its_standard_where_nothing_is_said(fleet: Fleet) -> None:
    assert create(fleet, "FREQ=DAILY")["policies"] == {"gap": "shift", "fold": "first"}
    said = create(fleet, "FREQ=DAILY", policies={"gap": "skip", "overlap": "allow"})
    assert said["policies"] == {"gap": "skip", "fold": "first", "overlap": "allow"}


def test_a_rule_works_in_device_time(fleet: Fleet) -> None:
    device = fleet.device(timezone="Asia/Tokyo")
    made = create(fleet, "FREQ=WEEKLY;BYDAY=MO", timezone="device", device_ids=[device])
    # Monday the 3rd began in Tokyo before the start, which is the hands of the clock at UTC.
    fleet.tick(datetime(2031, 3, 9, 21, 30, tzinfo=UTC))
    (command,) = fleet.commands(made["id"])
    assert command["device_id"] == device


def test_a_rule_may_take_the_place_of_other_times(fleet: Fleet) -> None:
    made = create(fleet, None, recurrence_type="daily", recurrence_config={"time": "05:00"})
    changed = fleet.value(
        "select update_schedule(%s, %s)", made["id"], Jsonb({"rrule": "FREQ=WEEKLY;BYDAY=TU"})
    )
    assert (changed["recurrence_type"], changed["recurrence_config"]["days_of_week"]) == (
        "weekly",
        [1],
    )
    due = datetime.fromisoformat(changed["next_run_at"])
    assert due == datetime(2031, 3, 4, 5, 30, tzinfo=UTC)
    assert due - datetime.fromisoformat(made["next_run_at"]) > timedelta(0)


@pytest.mark.parametrize(
    ("rule", "spec", "words"),
    [
        ("", {}, "rrule: is empty"),
        ("FREQ=OFTEN", {}, "rrule: FREQ=OFTEN is not valid"),
        ("FREQ=YEARLY;BYWEEKNO=20", {}, "rrule: BYWEEKNO is not supported"),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", {}, "rrule: BYMONTHDAY together with BYDAY"),
        ("FREQ=DAILY", {"start_time": None}, "rrule: needs start_time"),
        ("FREQ=DAILY", {"recurrence_type": "daily"}, "rrule: and recurrence_type exclude"),
        ("FREQ=DAILY", {"recurrence_config": {"time": "01:00"}}, "rrule: and recurrence_config"),
        ("FREQ=DAILY;COUNT=3", {"end_time": "2032-01-01T00:00:00"}, "rrule: ends by itself"),
        (7, {}, "rrule: must be a string"),
    ],
)
def test_a_rule_that_cannot_be_taken_over_is_refused_by_its_field(
    fleet: Fleet, rule: object, spec: Row, words: str
) -> None:
    fleet.device()
    with fleet.refused("PT422", "schedule_invalid", words):
        create(fleet, rule, **spec)


def test_a_bad_rule_is_named_beside_everything_else(fleet: Fleet) -> None:
    with fleet.refused("PT422", "schedule_invalid", "rrule: ", "priority: ", "timezone: "):
        create(fleet, "FREQ=OFTEN", priority=999, timezone="Europe/Nowhere")


def test_an_update_names_the_rule_too(fleet: Fleet) -> None:
    made = create(fleet, "FREQ=DAILY")
    with fleet.refused("PT422", "schedule_invalid", "rrule: FREQ=OFTEN is not valid"):
        fleet.value("select update_schedule(%s, %s)", made["id"], Jsonb({"rrule": "FREQ=OFTEN"}))


def test_hints_come_in_the_order_of_the_problems_each_once(fleet: Fleet) -> None:
    with fleet.refused("PT422", "schedule_invalid") as refusal:
        fleet.create(
            device_ids=[fleet.device()],
            policies={"max_runs": 0, "jitter": "soon", "expires_after": "later", "overlap": "hop"},
        )
    fields = [part.split(":")[0] for part in refusal.message.split("is not valid: ")[1].split("; ")]
    assert fields == [
        "policies.overlap",
        "policies.max_runs",
        "policies.expires_after",
        "policies.jitter",
    ]
    assert refusal.hint == (
        "Use one of: skip, buffer_one, allow, replace."
        " Write a number without quotes, from 1 to 1000000000."
        ' Examples: "15 minutes", "2 hours", "1 day".'
    )


def test_every_hint_ends_with_a_full_stop(fleet: Fleet) -> None:
    with fleet.refused("PT422", "schedule_invalid") as refusal:
        fleet.create(name="x", action_type="?", policies={"retry": 3})
    assert "command_types." in refusal.hint
    assert refusal.hint.endswith(".")
