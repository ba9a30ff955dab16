"""Limits of a schedule: how often it runs, from when and until when, and when it gives up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


def daily(fleet: Fleet, device: int, **spec: object) -> int:
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        device_ids=[device],
        **{"start_time": BASE.isoformat(), **spec},
    )
    schedule_id: int = made["id"]
    return schedule_id


def run_day(fleet: Fleet, device: int, day: int, status: str | None = "completed") -> None:
    """Let the device do what is due on a day, and let the tick hear how it ended."""
    now = BASE + day * DAY
    fleet.tick(now)
    for command in fleet.claim(device, now=now):
        if status:
            fleet.finish(device, command, status, reason="unsupported", now=now)
    fleet.tick(now + timedelta(seconds=1))


def state(fleet: Fleet, schedule_id: int) -> tuple[str, str | None]:
    row = fleet.schedule(schedule_id)
    return row["status"], row["status_reason"]


def test_a_schedule_is_completed_after_max_runs(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(fleet, device, policies={"max_runs": 2})
    for day in range(4):
        run_day(fleet, device, day)
    assert [run["status"] for run in fleet.runs(schedule)] == ["completed", "completed"]
    assert state(fleet, schedule) == ("completed", "max_runs reached")
    assert fleet.schedule(schedule)["next_run_at"] is None


def test_what_is_skipped_does_not_count_as_a_run(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(
        fleet,
        device,
        policies={
            "max_runs": 2,
            "execution_window": {"from": "06:00", "to": "07:00", "days_of_week": [0, 2, 4]},
        },
    )
    for day in range(4):
        run_day(fleet, device, day)
    assert [run["status"] for run in fleet.runs(schedule)] == ["completed", "skipped", "completed"]


def test_catching_up_stops_at_max_runs(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(
        fleet,
        device,
        policies={"max_runs": 2, "catchup": "all", "catchup_window": "9 days", "overlap": "allow"},
    )
    fleet.tick_until_idle(BASE + 3 * DAY)
    runs = fleet.runs(schedule)
    assert [run["reason"] for run in runs] == [None, None, "max_runs reached", "max_runs reached"]
    assert state(fleet, schedule) == ("completed", "max_runs reached")


def test_more_runs_bring_a_completed_schedule_back(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(fleet, device, policies={"max_runs": 1})
    run_day(fleet, device, 0)
    assert state(fleet, schedule)[0] == "completed"
    fleet.value('select update_schedule(%s, \'{"policies": {"max_runs": 2}}\')', schedule)
    assert state(fleet, schedule) == ("active", None)


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True])
@pytest.mark.parametrize("policy", ["max_runs", "pause_on_failure", "catchup_rate"])
def test_a_number_that_is_none_is_refused(fleet: Fleet, policy: str, value: object) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", f"policies.{policy}: "):
        fleet.create(device_ids=[device], policies={policy: value})


@pytest.mark.parametrize("policy", ["jitter", "expires_after", "catchup_window"])
def test_a_duration_that_is_none_is_refused(fleet: Fleet, policy: str) -> None:
    device = fleet.device()
    for value in ("soon", "0 seconds", "-1 hour", 60, "200000 years"):
        with fleet.refused("PT422", "schedule_invalid", f"policies.{policy}: "):
            fleet.create(device_ids=[device], policies={policy: value})


def test_a_policy_may_be_null_where_it_is_so_by_default(fleet: Fleet) -> None:
    defaults: Row = fleet.value("select fleet.default_policies()")
    nulls = {key: None for key, value in defaults.items() if value is None}
    made = fleet.create(
        device_ids=[fleet.device()],
        start_time=BASE.isoformat(),
        policies={**nulls, "retry": {"backoff": None}},
    )
    fleet.tick(BASE)
    assert len(fleet.commands(made["id"])) == 1


def test_nothing_runs_before_the_start_or_after_the_end(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(
        fleet,
        device,
        start_time=(BASE + DAY + timedelta(seconds=1)).isoformat(),
        end_time=(BASE + 3 * DAY).isoformat(),
    )
    for day in range(6):
        run_day(fleet, device, day)
    days = [(run["scheduled_for"] - BASE) / DAY for run in fleet.runs(schedule)]
    assert days == [2, 3]
    assert state(fleet, schedule) == ("completed", "no due instant is left")


def test_a_schedule_pauses_after_so_many_failures_in_a_row(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(fleet, device, policies={"pause_on_failure": 2})
    for day, status in enumerate(["failed", "completed", "failed"]):
        run_day(fleet, device, day, status)
        assert state(fleet, schedule) == ("active", None)
    run_day(fleet, device, 3, "failed")
    assert state(fleet, schedule) == ("paused", "2 runs in a row failed (pause_on_failure)")
    run_day(fleet, device, 4)
    assert len(fleet.runs(schedule)) == 4


def test_one_failure_may_be_enough(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(fleet, device, policies={"pause_on_failure": 1})
    run_day(fleet, device, 0, "failed")
    assert state(fleet, schedule) == ("paused", "a run failed (pause_on_failure)")


def test_runs_that_were_skipped_neither_count_nor_reset(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(
        fleet,
        device,
        policies={
            "pause_on_failure": 2,
            "execution_window": {"from": "06:00", "to": "07:00", "days_of_week": [0, 2]},
        },
    )
    for day in range(3):
        run_day(fleet, device, day, "failed")
    assert [run["status"] for run in fleet.runs(schedule)] == ["failed", "skipped", "failed"]
    assert state(fleet, schedule)[0] == "paused"


def test_what_could_not_be_expanded_counts_as_a_failure(fleet: Fleet) -> None:
    kind = fleet.insert("command_types", name="brew_tea")["name"]
    device = fleet.device()
    schedule = daily(fleet, device, action_type=kind, payload={}, policies={"pause_on_failure": 1})
    fleet.run("delete from command_types where name = %s", kind)
    run_day(fleet, device, 0)
    (run,) = fleet.runs(schedule)
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert state(fleet, schedule)[0] == "paused"


def test_a_schedule_goes_on_after_it_was_resumed(fleet: Fleet) -> None:
    device = fleet.device()
    schedule = daily(fleet, device, policies={"pause_on_failure": 1})
    run_day(fleet, device, 0, "failed")
    fleet.run("select resume_schedule(%s)", schedule)
    assert state(fleet, schedule) == ("active", None)
    run_day(fleet, device, 1)
    assert state(fleet, schedule) == ("active", None)
    run_day(fleet, device, 2, "failed")
    assert state(fleet, schedule)[0] == "paused"


def test_a_schedule_ends_after_its_number_of_runs(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"max_runs": 2, "overlap": "allow"})
    for minute in range(4):
        fleet.tick(BASE + minute * MINUTE)
    row = fleet.schedule(made["id"])
    assert (row["status"], row["execution_count"], row["next_run_at"]) == ("completed", 2, None)
    assert len(fleet.runs(made["id"])) == 2


def test_a_schedule_that_keeps_failing_is_paused(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"pause_on_failure": 2})
    for minute, status in enumerate(("failed", "completed", "failed", "failed")):
        now = BASE + minute * MINUTE
        fleet.tick(now)
        assert fleet.schedule(made["id"])["status"] == "active"
        (claimed,) = fleet.claim(device, now=now)
        fleet.finish(device, claimed, status, reason="unsupported", now=now)
    fleet.tick(BASE + 3 * MINUTE + timedelta(seconds=1))
    row = fleet.schedule(made["id"])
    assert row["status"] == "paused"
    assert "2 runs in a row failed" in row["status_reason"]


@pytest.mark.parametrize("priority", [-101, 101, "high", 1.5])
def test_a_priority_out_of_bounds_is_refused(fleet: Fleet, priority: object) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", "priority: "):
        fleet.create(device_ids=[device], priority=priority)


@pytest.mark.parametrize(
    ("retry", "words"),
    [
        ({"attempts": 0}, "policies.retry.attempts"),
        ({"backoff": "soon"}, "policies.retry.backoff"),
        ({"max_backoff": "-1 minute"}, "policies.retry.max_backoff"),
        ({"max_backoff": "11 years"}, "policies.retry.max_backoff"),
        ({"on": "error"}, "policies.retry.on"),
        ({"on": ["erorr"]}, 'policies.retry.on: "erorr" is not a class of failure'),
        # It may have happened: nothing that is not safe to repeat is repeated.
        ({"on": ["interrupted"]}, 'policies.retry.on: "interrupted" is not a class of failure'),
        ({"on": [["error"]]}, "policies.retry.on"),
        ({"times": 3}, "policies.retry.times: is not part of retry"),
        (3, "policies.retry: must be an object"),
        (None, "policies.retry: must be an object"),
    ],
)
def test_a_policy_about_retries_that_is_none_is_refused(
    fleet: Fleet, retry: object, words: str
) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "schedule_invalid", words):
        fleet.create(device_ids=[device], policies={"retry": retry})
