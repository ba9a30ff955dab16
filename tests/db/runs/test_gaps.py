"""Times that the clocks skip and a schedule leaves out (gap: skip) are told, and foretold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

SKIPPED = "the clocks skip this local time"
# Zone, the time that is left out, the instant at which the clocks jump over it, and its date.
GAPS = [
    ("Europe/Berlin", "02:30", datetime(2031, 3, 30, 1, tzinfo=UTC), "2031-03-30"),
    ("America/New_York", "02:00", datetime(2031, 3, 9, 7, tzinfo=UTC), "2031-03-09"),
    ("Australia/Lord_Howe", "02:15", datetime(2031, 10, 4, 15, 30, tzinfo=UTC), "2031-10-05"),
]
BERLIN = GAPS[0][2]


def leaving_out(fleet: Fleet, zone: str, start: datetime, **spec: Any) -> Row:
    return fleet.create(
        **{
            "timezone": zone,
            "start_time": start.isoformat(),
            "device_ids": [fleet.device()],
            "policies": {"gap": "skip", "expires_after": "1 minute"},
            **spec,
        }
    )


def daily(fleet: Fleet, zone: str, time: str, jump: datetime, **spec: Any) -> Row:
    start = jump - timedelta(hours=30)
    return leaving_out(
        fleet, zone, start, recurrence_type="daily", recurrence_config={"time": time}, **spec
    )


def cron(fleet: Fleet, expression: str, **spec: Any) -> Row:
    config = {"cron_expression": expression}
    start = BERLIN - timedelta(hours=2)
    return leaving_out(
        fleet, GAPS[0][0], start, recurrence_type="cron", recurrence_config=config, **spec
    )


def tick_on_time(fleet: Fleet, made: Row, until: datetime) -> None:
    """Tick at each instant that the schedule is due next."""
    while (due := fleet.schedule(made["id"])["next_run_at"]) and due <= until:
        fleet.tick_until_idle(due)


@pytest.mark.parametrize(("zone", "time", "jump", "date"), GAPS)
def test_what_the_clocks_skip_has_a_row_with_the_reason_when_they_do(
    fleet: Fleet, zone: str, time: str, jump: datetime, date: str
) -> None:
    made = daily(fleet, zone, time, jump)
    tick_on_time(fleet, made, jump)
    *_, before, skipped = fleet.runs(made["id"])
    assert before["targeted"] == 1
    assert (skipped["status"], skipped["reason"]) == ("skipped", SKIPPED)
    assert (skipped["scheduled_for"], skipped["dst_rule"]) == (jump, "gap:skip")
    assert skipped["scheduled_local"].isoformat() == f"{date}T{time}:00"
    (told,) = fleet.rows("select * from schedule_history(%s, 1)", made["id"])
    assert told["local_time"] == skipped["scheduled_local"]

    tick_on_time(fleet, made, jump + timedelta(days=1))
    assert fleet.runs(made["id"])[-1]["status"] == "running"
    assert fleet.schedule(made["id"])["execution_count"] == len(fleet.runs(made["id"])) - 1


def test_several_times_of_one_gap_are_one_row_beside_what_runs_at_that_instant(
    fleet: Fleet,
) -> None:
    made = cron(fleet, "0,20,40 2,3 * * *")
    tick_on_time(fleet, made, BERLIN)
    rows = {row["status"]: row for row in fleet.runs(made["id"])}
    assert rows["running"]["scheduled_for"] == rows["skipped"]["scheduled_for"] == BERLIN
    assert rows["skipped"]["missed_count"] == 3
    assert rows["skipped"]["missed_to_local"].isoformat() == "2031-03-30T02:40:00"


def test_a_late_tick_tells_the_gap_beside_what_it_catches_up(fleet: Fleet) -> None:
    made = daily(fleet, *GAPS[0][:3])
    fleet.tick_until_idle(BERLIN + timedelta(days=3, hours=5))
    told = [(row["reason"], row["missed_count"] or 1) for row in fleet.runs(made["id"])]
    # The day before, and three days after: what did come and was missed is told by itself.
    assert sorted(told) == [("outside the catch-up window", 4), (SKIPPED, 1)]
    fleet.tick_until_idle(BERLIN + timedelta(days=3, hours=5))
    assert len(fleet.runs(made["id"])) == len(told)


def test_it_does_not_count_for_max_runs(fleet: Fleet) -> None:
    policies = {"gap": "skip", "max_runs": 2, "expires_after": "1 minute"}
    made = daily(fleet, *GAPS[0][:3], policies=policies)
    coming = fleet.rows(
        "select * from upcoming_runs(%s, 9, %s)", made["id"], BERLIN - timedelta(days=2)
    )
    assert [row["would"] for row in coming] == ["run", "skip", "run"]
    tick_on_time(fleet, made, BERLIN + timedelta(days=5))
    assert [row["targeted"] for row in fleet.runs(made["id"])] == [1, 0, 1]
    assert fleet.schedule(made["id"])["status"] == "completed"


@pytest.mark.parametrize("saved", [False, True])
def test_it_is_foreseen(fleet: Fleet, saved: bool) -> None:
    made = daily(fleet, *GAPS[0][:3])
    if saved:
        coming = fleet.rows(
            "select * from upcoming_runs(%s, 3, %s)", made["id"], BERLIN - timedelta(hours=30)
        )
    else:
        spec = {key: made[key] for key in ("action_type", "payload", "recurrence_config")}
        coming = fleet.rows(
            "select * from preview_schedule(%s, 3, %s)",
            Jsonb(
                {
                    **spec,
                    "owner_id": str(fleet.owner_id),
                    "recurrence_type": "daily",
                    "timezone": "Europe/Berlin",
                    "start_time": (BERLIN - timedelta(hours=30)).isoformat(),
                    "device_ids": made["device_ids"],
                    "policies": {"gap": "skip"},
                }
            ),
            BERLIN - timedelta(hours=30),
        )
    assert [(row["would"], row["reason"]) for row in coming] == [
        ("run", None),
        ("skip", SKIPPED),
        ("run", None),
    ]
    assert coming[1]["local_time"] == "Sun 2031-03-30 02:30"
    assert coming[1]["due_at"] == BERLIN
    assert "it does not run" in coming[1]["dst_note"]


@pytest.mark.parametrize("ticked", [False, True])
def test_it_is_explained_before_and_after(fleet: Fleet, ticked: bool) -> None:
    made = daily(fleet, *GAPS[0][:3])
    if ticked:
        tick_on_time(fleet, made, BERLIN)
    now = BERLIN + (timedelta(hours=1) if ticked else -timedelta(hours=1))
    said = fleet.value("select explain_schedule(%s, %s, null, %s)", made["id"], BERLIN, now)
    assert (said["verdict"], said["reason"]) == ("skipped", SKIPPED)
    assert "02:30" in said["detail"]
    assert "03:00" in said["detail"]


def test_the_calendar_counts_it_as_skipping(fleet: Fleet) -> None:
    daily(fleet, *GAPS[0][:3])
    days = fleet.rows(
        "select day::text, coming, skipping from schedule_calendar(%s, %s, %s, %s)",
        "2031-03-29",
        "2031-04-01",
        "Europe/Berlin",
        BERLIN - timedelta(days=9),
    )
    assert [(row["day"], row["coming"], row["skipping"]) for row in days] == [
        ("2031-03-29", 1, 0),
        ("2031-03-30", 0, 1),
        ("2031-03-31", 1, 0),
    ]


def test_elapsed_time_misses_nothing(fleet: Fleet) -> None:
    made = cron(fleet, "*/20 * * * *")
    tick_on_time(fleet, made, BERLIN + timedelta(hours=1))
    assert all(row["reason"] != SKIPPED for row in fleet.runs(made["id"]))
