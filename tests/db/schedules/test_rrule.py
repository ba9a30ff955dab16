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
        " from fleet.occurrences((select recurrence from schedules where id = %s), %s, %s) as o",
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


BLOCK = "DTSTART;TZID=Europe/Berlin:20310303T063000\r\nRRULE:FREQ=WEEKLY;BYDAY=MO,WE"


def due(fleet: Fleet, made: Row, zone: str, until: datetime) -> list[str]:
    """List what is due from the beginning of 2031 on, as the clock shows it."""
    found = fleet.rows(
        "select to_char(o at time zone %s, 'MM-DD HH24:MI:SS') as at"
        " from fleet.occurrences((select recurrence from schedules where id = %s), %s, %s) as o",
        zone, made["id"], datetime(2031, 1, 1, tzinfo=UTC), until,
    )  # fmt: skip
    return [row["at"] for row in found]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "03 05 10 12"),
        (["EXDATE;TZID=Europe/Berlin:20310305T063000"], "03 10 12"),
        (["EXDATE:20310305T053000Z,20310310T053000Z"], "03 12"),
        (["EXDATE;TZID=America/New_York:20310305T003000"], "03 10 12"),
        (["EXDATE;VALUE=DATE:20310310"], "03 05 12"),
        (["RDATE:20310304T063000"], "03 04 05 10 12"),
        (["RDATE;VALUE=DATE:20310306", "EXDATE:20310305T063000"], "03 06 10 12"),
        (["RDATE:20310305T063000"], "03 05 10 12"),
        (["EXDATE:20310305T063001"], "03 05 10 12"),
    ],
)  # fmt: skip
def test_a_whole_block_says_start_zone_and_dates(
    fleet: Fleet, lines: list[str], expected: str
) -> None:
    made = create(fleet, "\r\n".join([BLOCK, *lines]) + "\r\n", start_time=None, timezone=None)
    assert made["timezone"] == "Europe/Berlin"
    assert datetime.fromisoformat(made["start_time"]) == datetime(2031, 3, 3, 5, 30, tzinfo=UTC)
    until = datetime(2031, 3, 14, tzinfo=UTC)
    days = expected.split()
    assert due(fleet, made, "Europe/Berlin", until) == [f"03-{day} 06:30:00" for day in days]
    count = fleet.value(
        "select fleet.count_occurrences((select recurrence from schedules where id = %s), %s, %s)",
        made["id"], datetime(2031, 1, 1, tzinfo=UTC), until,
    )  # fmt: skip
    assert count == len(days)
    step, one_by_one = datetime(2031, 1, 1, tzinfo=UTC), 0
    while step < until:
        step = fleet.value(
            "select fleet.next_occurrence((select recurrence from schedules where id = %s), %s)",
            made["id"], step,
        )  # fmt: skip
        one_by_one += step < until
    assert one_by_one == len(days)


@pytest.mark.parametrize(
    "block",
    [
        "DTSTART:20310303T053000Z\nRRULE:FREQ=DAILY;COUNT=2",
        "RRULE:FREQ=DAILY;\r\n COUNT=2\r\nDTSTART:20310303T053000Z",
        "dtstart;value=date-time:20310303t053000z\nrrule:freq=daily;count=02",
        "DTSTART;TZID=UTC:20310303T053000\nFREQ=DAILY;UNTIL=20310304T053000Z",
    ],
)
def test_the_lines_of_a_block_stand_in_any_order_and_spelling(fleet: Fleet, block: str) -> None:
    made = create(fleet, block, start_time=None, timezone=None)
    assert made["timezone"] == "UTC"
    assert due(fleet, made, "UTC", datetime(2032, 1, 1, tzinfo=UTC)) == [
        "03-03 05:30:00", "03-04 05:30:00"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "same_as"),
    [
        ("FREQ=MONTHLY;BYMONTHDAY=01,15;BYHOUR=08", "FREQ=MONTHLY;BYMONTHDAY=1,15;BYHOUR=8"),
        ("FREQ=YEARLY;BYMONTH=03;BYDAY=+02SU", "FREQ=YEARLY;BYMONTH=3;BYDAY=2SU"),
        ("FREQ=DAILY;INTERVAL=01;BYSECOND=00", "FREQ=DAILY"),
        ("FREQ=MONTHLY;BYDAY=MO;BYHOUR=9,17;BYSETPOS=2", "FREQ=MONTHLY;BYDAY=1MO;BYHOUR=17"),
        ("FREQ=MONTHLY;BYDAY=MO;BYHOUR=17,9;BYSETPOS=-1", "FREQ=MONTHLY;BYDAY=-1MO;BYHOUR=17"),
        ("FREQ=DAILY;BYHOUR=9,17;BYMINUTE=0,30;BYSETPOS=3", "FREQ=DAILY;BYHOUR=17;BYMINUTE=0"),
        ("FREQ=DAILY;RSCALE=GREGORIAN;SKIP=OMIT", "FREQ=DAILY"),
    ],
)
def test_what_libraries_write_is_read_as_what_it_means(
    fleet: Fleet, rule: str, same_as: str
) -> None:
    one, other = create(fleet, rule), create(fleet, same_as)
    assert one["recurrence_config"] == other["recurrence_config"]


@pytest.mark.parametrize(
    ("rule", "spec", "words"),
    [
        ("DTSTART:20310303T063000\nRRULE:FREQ=DAILY", {"start_time": "2031-03-03T07:00:00"},
         "rrule: DTSTART says another time than start_time does"),
        ("DTSTART;TZID=Asia/Tokyo:20310303T063000\nRRULE:FREQ=DAILY", {"start_time": None},
         "rrule: DTSTART says another zone than timezone does"),
        ("DTSTART:20310303T063000", {}, "rrule: the line RRULE is missing"),
        ("RRULE:FREQ=DAILY\nRRULE:FREQ=WEEKLY", {}, "rrule: RRULE (twice) is not supported"),
        ("RRULE:FREQ=DAILY\nEXRULE:FREQ=WEEKLY", {}, "rrule: the line EXRULE is not supported"),
        ("RRULE:FREQ=DAILY\nEXDATE:20310231T063000", {}, "is not a date or time"),
        ("RRULE:FREQ=DAILY\nEXDATE:tomorrow", {}, "rrule: EXDATE: 'tomorrow' is not a date"),
        ("RRULE:FREQ=DAILY\nRDATE;TZID=Mars/Base:20310401T063000", {}, "TZID=Mars/Base is not a"),
        ("RRULE:FREQ=DAILY\nRDATE:20300101T063000", {}, "rrule: RDATE before DTSTART"),
        ("RRULE:FREQ=DAILY;COUNT=2\nRDATE:20310401T063000", {}, "rrule: RDATE after the end"),
        ("RRULE:FREQ=HOURLY;INTERVAL=7\nEXDATE:20310401T063000", {}, "does not fit into hour"),
    ],
)  # fmt: skip
def test_a_block_that_cannot_be_taken_over_says_which_line(
    fleet: Fleet, rule: str, spec: Row, words: str
) -> None:
    fleet.device()
    with fleet.refused("PT422", "schedule_invalid", words):
        create(fleet, rule, **spec)


def test_a_start_within_a_second_loses_no_day(fleet: Fleet) -> None:
    made = create(fleet, "FREQ=DAILY", start_time="2031-03-03T06:30:00.250000")
    assert due(fleet, made, "Europe/Berlin", datetime(2031, 3, 4, tzinfo=UTC)) == ["03-03 06:30:00"]


def test_a_counted_rule_counts_what_is_left_out(fleet: Fleet) -> None:
    made = create(fleet, "RRULE:FREQ=DAILY;COUNT=3\nEXDATE:20310304T063000")
    assert due(fleet, made, "Europe/Berlin", datetime(2032, 1, 1, tzinfo=UTC)) == [
        "03-03 06:30:00", "03-05 06:30:00"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        ({"except": ["2031-13-01"]}, "daily", "'2031-13-01' is not a local date or time"),
        ({"except": ["2031-03-01T06:30:00Z"]}, "daily", "is not a local date or time"),
        ({"except": [7]}, "daily", "'7' is not a local date or time"),
        ({"also": ["2031-03-01"]}, "daily", "'2031-03-01' is not a local time"),
        ({"except": ["2031-03-01"], "minutes": 5}, "interval", "except: does not go with interval"),
    ],
)
def test_dates_of_a_recurrence_are_checked(
    fleet: Fleet, config: Row, kind: str, words: str
) -> None:
    with fleet.refused("PT422", "schedule_invalid", words):
        fleet.create(
            recurrence_type=kind, recurrence_config=config, start_time=START,
            device_ids=[fleet.device()],
        )  # fmt: skip


def test_dates_of_a_recurrence_are_in_its_description(fleet: Fleet) -> None:
    made = fleet.create(
        recurrence_type="daily", device_ids=[fleet.device()], start_time=START,
        recurrence_config={"time": "06:30", "except": ["2031-12-24", "2031-12-25"]},
    )  # fmt: skip
    text = fleet.value(
        "select fleet.describe_recurrence(recurrence) from schedules where id = %s", made["id"]
    )
    assert text == "every day at 06:30, except on 2031-12-24 and 2031-12-25 (UTC)"


@pytest.mark.parametrize("zone", ["device", "Mars/Base"])
def test_a_block_that_begins_at_another_time_is_told_whatever_the_zone(
    fleet: Fleet, zone: str
) -> None:
    block = "DTSTART:20310303T093000\r\nRRULE:FREQ=DAILY;COUNT=3"
    with fleet.refused("PT422", "schedule_invalid", "DTSTART says another time than start_time"):
        create(fleet, block, timezone=zone)


@pytest.mark.parametrize("kind", ["once", "daily"])
def test_a_start_at_the_end_of_the_calendar_is_refused_on_every_wall(
    fleet: Fleet, kind: str
) -> None:
    start = {"recurrence_type": kind, "start_time": "294276-12-31T23:59:59Z"}
    with fleet.refused("PT422", "schedule_invalid", "lies at the end of the calendar"):
        create(fleet, None, timezone="device", **start)
