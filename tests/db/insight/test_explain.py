"""Why a schedule ran at an instant or did not: every reason that the engine writes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row
from tests.helpers.insight import DAY, HOUR, MINUTE, NOON, daily, explain, finish_all, verdict


@pytest.fixture
def device(fleet: Fleet) -> int:
    """Give the only device."""
    return fleet.device()


def holiday(fleet: Fleet) -> None:
    """Make a calendar in which the second of January is a day off."""
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="School holidays")
    fleet.insert(
        "blackout_periods",
        calendar_id=calendar["id"],
        owner_id=fleet.owner_id,
        starts_on="2100-01-02",
        ends_on="2100-01-03",
        summary="New Year",
    )


def test_ran(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    fleet.tick(NOON)
    assert verdict(fleet, made, NOON, NOON) == ("running", "0 of 1 commands are final")
    finish_all(fleet, device, NOON)
    fleet.tick(NOON + MINUTE)
    answer = explain(fleet, made, NOON, NOON + MINUTE)

    assert (answer["verdict"], answer["reason"]) == ("ran", "completed")
    assert answer["detail"] == "1 of 1 commands completed"
    assert answer["run"]["status"] == "completed"
    assert answer["local_time"] == "Fri 2100-01-01 12:00"


def test_ran_and_failed(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    fleet.tick(NOON)
    finish_all(fleet, device, NOON, "failed")
    fleet.tick(NOON + MINUTE)

    assert verdict(fleet, made, NOON, NOON + MINUTE) == ("ran", "1 of 1 commands did not complete")


def test_ran_by_hand_and_is_found_by_its_second(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    run = fleet.row("select * from run_schedule(%s)", made["id"])
    answer = explain(fleet, made, run["scheduled_for"].replace(microsecond=0), NOON)

    assert (answer["verdict"], answer["run"]["id"]) == ("running", run["id"])


def test_paused_in_the_future_in_the_past_and_afterwards(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    fleet.run("select pause_schedule(%s, 'exams')", made["id"])

    assert verdict(fleet, made, NOON, NOON - DAY) == ("paused", "paused")
    assert "exams" in explain(fleet, made, NOON, NOON - DAY)["detail"]
    assert verdict(fleet, made, NOON, NOON + DAY) == ("paused", "exams")
    fleet.run("select fleet.skip_due(s, %s, 'paused') from schedules as s", NOON + 9 * DAY)
    answer = explain(fleet, made, NOON + 5 * DAY, NOON + 9 * DAY)
    assert (answer["verdict"], answer["run"]["missed_count"]) == ("paused", 10)
    assert "one of 10 instants" in answer["detail"]


def test_overlap(fleet: Fleet, device: int) -> None:
    made = fleet.minutely([device], NOON, policies={"expires_after": "1 day"})
    fleet.tick(NOON)
    fleet.tick(NOON + MINUTE)
    answer = explain(fleet, made, NOON + MINUTE, NOON + MINUTE)

    assert (answer["verdict"], answer["reason"]) == ("overlap", "overlap")
    assert f"with run {fleet.runs(made['id'])[0]['id']}" in answer["detail"]


def test_outside_the_window_before_and_after(fleet: Fleet, device: int) -> None:
    window = {"from": "22:00", "to": "05:00", "days_of_week": [0, 1]}
    made = daily(fleet, [device], policies={"execution_window": window})
    expected = ("outside window", "outside the execution window")

    assert verdict(fleet, made, NOON, NOON - DAY) == expected
    fleet.tick(NOON)
    assert verdict(fleet, made, NOON, NOON) == expected
    assert "22:00 to 05:00 on Monday and Tuesday" in explain(fleet, made, NOON, NOON)["detail"]


def test_waiting_for_the_window(fleet: Fleet, device: int) -> None:
    window = {"from": "13:00", "to": "14:00", "outside": "wait"}
    made = daily(fleet, [device], policies={"execution_window": window})

    assert "13:00" in explain(fleet, made, NOON, NOON - DAY)["detail"]
    fleet.tick(NOON)
    answer = explain(fleet, made, NOON, NOON)
    assert (answer["verdict"], answer["reason"]) == ("waiting", "the execution window is closed")
    assert "13:00" in answer["detail"]


def test_blackout_before_and_after(fleet: Fleet, device: int) -> None:
    holiday(fleet)
    made = daily(fleet, [device], policies={"blackouts": ["School holidays"]})

    assert verdict(fleet, made, NOON + DAY, NOON) == ("blackout", "blackout")
    fleet.tick(NOON)
    fleet.tick(NOON + DAY)
    answer = explain(fleet, made, NOON + DAY, NOON + DAY)
    assert (answer["verdict"], answer["detail"]) == ("blackout", "New Year")


@pytest.mark.parametrize(
    ("policies", "back", "reason"),
    [
        ({"catchup": "none"}, 5, "catch-up is off"),
        ({}, 5, "superseded by a later instant"),
        ({}, 150, "outside the catch-up window"),
        ({"catchup": "all", "catchup_limit": 3}, 5, "beyond the catch-up limit"),
        ({"catchup": "all"}, 150, "outside the catch-up window"),
    ],
)
def test_missed_and_beyond_catch_up(
    fleet: Fleet, device: int, policies: dict[str, Any], back: int, reason: str
) -> None:
    made = fleet.minutely([device], NOON, policies=policies)
    now = NOON + 3 * HOUR
    assert verdict(fleet, made, now - back * MINUTE, now)[0] == "waiting"
    fleet.tick(now)

    assert verdict(fleet, made, now - back * MINUTE, now) == ("missed", reason)


def test_catching_up_at_a_pace(fleet: Fleet, device: int) -> None:
    policies = {"catchup": "all", "catchup_rate": 1, "overlap": "allow"}
    made = fleet.minutely([device], NOON, policies=policies)
    now = NOON + 10 * MINUTE
    fleet.tick(now)

    assert verdict(fleet, made, NOON + 8 * MINUTE, now) == ("waiting", "catching up is paced")


def test_no_targets(fleet: Fleet) -> None:
    made = daily(fleet, [], selector={"tags": ["nobody"]})
    fleet.tick(NOON)

    assert verdict(fleet, made, NOON, NOON) == ("no targets", "no targets")


def test_not_yet_due_and_no_tick_since(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])

    assert verdict(fleet, made, NOON, NOON - MINUTE) == ("not yet due", "it is in the future")
    answer = explain(fleet, made, NOON, NOON + MINUTE)
    assert (answer["verdict"], answer["reason"]) == ("waiting", "no tick has come by since")
    assert "a tick now would run it" in answer["detail"]
    late = explain(fleet, made, NOON, NOON + 5 * HOUR)
    assert "skip it: " in late["detail"]


def test_before_the_start_after_the_end_and_between(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device], end_time=(NOON + 3 * DAY).isoformat())

    assert verdict(fleet, made, NOON - DAY, NOON) == ("before start", "it had not begun")
    assert verdict(fleet, made, NOON + 9 * DAY, NOON) == ("ended", "no due instant is left")
    answer = explain(fleet, made, NOON + HOUR, NOON)
    assert (answer["verdict"], answer["reason"]) == ("not due", "not due at that instant")
    assert answer["nearest"]["before"].startswith("2100-01-01T12:00")
    assert answer["nearest"]["after"].startswith("2100-01-02T12:00")
    assert "due after: Sat 2100-01-02 12:00" in answer["detail"]


def test_once_is_ended_afterwards(fleet: Fleet, device: int) -> None:
    made = fleet.create(start_time=NOON.isoformat(), device_ids=[device])
    fleet.tick(NOON)

    assert verdict(fleet, made, NOON, NOON)[0] == "running"
    assert verdict(fleet, made, NOON + DAY, NOON)[0] == "ended"


def test_cancelled_before_and_while_waiting(fleet: Fleet, device: int) -> None:
    window = {"from": "13:00", "to": "14:00", "outside": "wait"}
    made = daily(fleet, [device], policies={"execution_window": window})
    fleet.tick(NOON)
    fleet.run("select cancel_schedule(%s, 'a mistake')", made["id"])

    assert verdict(fleet, made, NOON, NOON) == ("cancelled", "a mistake")
    assert verdict(fleet, made, NOON + DAY, NOON) == ("cancelled", "a mistake")
    assert verdict(fleet, made, NOON + DAY, NOON + 2 * DAY) == ("cancelled", "a mistake")


def test_max_runs_before_and_after(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device], policies={"max_runs": 2})

    assert verdict(fleet, made, NOON + DAY, NOON - DAY)[0] == "not yet due"
    assert verdict(fleet, made, NOON + 2 * DAY, NOON - DAY) == ("max runs", "max_runs reached")
    fleet.tick(NOON)
    fleet.tick(NOON + DAY)
    assert verdict(fleet, made, NOON + 2 * DAY, NOON + DAY) == ("max runs", "max_runs reached")
    assert verdict(fleet, made, NOON + 2 * DAY, NOON + 5 * DAY) == ("max runs", "max_runs reached")


def test_max_runs_in_a_row_of_the_ledger(fleet: Fleet, device: int) -> None:
    policies = {"max_runs": 2, "catchup": "all", "overlap": "allow"}
    made = fleet.minutely([device], NOON, policies=policies)
    fleet.tick(NOON + 5 * MINUTE)

    assert verdict(fleet, made, NOON + 4 * MINUTE, NOON + HOUR) == ("max runs", "max_runs reached")


def test_error(fleet: Fleet, device: int) -> None:
    fleet.run("insert into command_types (name) values ('short_lived')")
    made = daily(fleet, [device], action_type="short_lived", payload={})
    fleet.run("delete from command_types where name = 'short_lived'")
    fleet.tick(NOON)
    answer = explain(fleet, made, NOON, NOON)

    assert (answer["verdict"], answer["reason"]) == ("error", "error")
    assert '"short_lived" is gone' in answer["detail"]


def test_times_that_were_changed_when_due_and_later(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    fleet.tick(NOON)
    change = "update schedules set recurrence_config = %s where id = %s"
    fleet.run(change, '{"time": "18:00"}', made["id"])

    assert verdict(fleet, made, NOON, NOON)[0] == "running"
    assert verdict(fleet, made, NOON + DAY, NOON) == ("not due", "not due at that instant")
    past = fleet.value("select now() - interval '2 days'").replace(microsecond=0, second=0)
    fleet.run("update schedules set created_at = now() - interval '9 days'")
    fleet.run(
        "update schedules set start_time = now() - interval '8 days', recurrence_type = 'cron',"
        ' recurrence_config = \'{"cron_expression": "* * * * *"}\' where id = %s',
        made["id"],
    )
    assert verdict(fleet, made, past, NOON) == ("not due", "its times have changed since")


def test_times_changed_before_a_tick_came_by(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    fleet.run("select fleet.skip_due(s, %s, 'the times were changed') from schedules as s", NOON)

    assert verdict(fleet, made, NOON, NOON) == ("not due", "the times were changed")


def test_created_later(fleet: Fleet, device: int) -> None:
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "12:00"},
        start_time="2020-01-01T00:00:00Z",
        device_ids=[device],
    )
    then = NOON.replace(year=2020)

    assert verdict(fleet, made, then, NOON) == ("before start", "the schedule did not exist yet")


def test_unknown_only_when_the_ledger_has_lost_it(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device])
    fleet.tick(NOON)
    fleet.run("delete from schedule_runs")

    lost = ("unknown", "its row is gone from the ledger")
    pruned = ("unknown", "the ledger does not go back that far")
    assert verdict(fleet, made, NOON, NOON + MINUTE) == lost
    assert verdict(fleet, made, NOON, NOON + timedelta(days=400)) == pruned


def follow(fleet: Fleet, first: Row, device: int, **spec: Any) -> Row:
    """Create a schedule that follows another one."""
    after = {"schedule_id": first["id"], **spec.pop("after", {})}
    return fleet.create(name="second", device_ids=[device], after=after, **spec)


def test_chain_followed_and_did_not(fleet: Fleet, device: int) -> None:
    first = daily(fleet, [device])
    second = follow(fleet, first, device)
    on_failure = follow(fleet, first, device, after={"on": "failed"})

    assert verdict(fleet, second, NOON, NOON) == ("not due", "it has no instants of its own")
    fleet.tick(NOON)
    assert verdict(fleet, second, NOON, NOON) == ("waiting", "the run before it has not ended")
    finish_all(fleet, device, NOON)
    fleet.tick(NOON + MINUTE)
    assert verdict(fleet, second, NOON, NOON + MINUTE)[0] == "running"
    answer = explain(fleet, on_failure, NOON, NOON + MINUTE)
    assert (answer["verdict"], answer["reason"]) == ("not due", "the run before it completed")
    assert "only a run that has failed" in answer["detail"]


def test_chain_that_was_paused_when_it_would_have_followed(fleet: Fleet, device: int) -> None:
    first = daily(fleet, [device])
    second = follow(fleet, first, device)
    fleet.run("select pause_schedule(%s, 'later')", second["id"])
    fleet.tick(NOON)
    finish_all(fleet, device, NOON)
    fleet.tick(NOON + MINUTE)

    assert verdict(fleet, second, NOON, NOON + MINUTE) == ("paused", "later")


def test_chain_whose_end_has_come(fleet: Fleet, device: int) -> None:
    first = daily(fleet, [device])
    ended = follow(
        fleet, first, device, start_time="2026-01-01T00:00:00Z", end_time="2099-01-01T00:00:00Z"
    )
    fleet.tick(NOON)
    finish_all(fleet, device, NOON)
    fleet.tick(NOON + MINUTE)

    assert verdict(fleet, ended, NOON, NOON + MINUTE) == ("ended", "the schedule has ended")


def test_chain_that_has_not_begun(fleet: Fleet, device: int) -> None:
    first = daily(fleet, [device])
    later = follow(fleet, first, device, start_time=(NOON + DAY).isoformat())
    fleet.tick(NOON)
    finish_all(fleet, device, NOON)
    fleet.tick(NOON + MINUTE)

    expected = ("before start", "the schedule has not begun")
    assert verdict(fleet, later, NOON, NOON + MINUTE) == expected


def test_the_verdict_of_each_reason_that_the_engine_writes(fleet: Fleet) -> None:
    reasons = [
        "no targets",
        "overlap",
        "paused",
        "outside the catch-up window",
        "catch-up is off",
        "superseded by a later instant",
        "beyond the catch-up limit",
        "outside the execution window",
        "blackout",
        "max_runs reached",
        "error",
        "the schedule was cancelled",
        "the schedule has ended",
        "the schedule has not begun",
        "the times were changed",
        "cancelled",
        "completed",
    ]
    verdicts = {
        reason: fleet.value("select fleet.verdict_of_reason(%s)", reason) for reason in reasons
    }

    assert {r: v for r, v in verdicts.items() if v in ("unknown", "skipped")} == {}


def test_the_engine_writes_no_reason_that_has_no_verdict() -> None:
    # Reasons are literals in the functions that decide.
    sources = Path(__file__).parents[3] / "db" / "sources"
    known = (sources / "70_insight" / "41_explain_skips.sql").read_text()
    decided = "\n".join(
        (sources / f"{name}.sql").read_text()
        for name in ("30_schedules/45_blackouts", "35_runs/10_decide", "35_runs/60_followers")
    )
    texts = set(re.findall(r"(?:then|else|return) '([a-z][a-z_ -]+ [a-z_ -]+)'", decided))

    assert {"outside the execution window", "catch-up is off", "max_runs reached"} <= texts
    assert {text for text in texts if f"'{text}'" not in known} == set()
