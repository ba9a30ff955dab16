"""Policies: what a schedule may say about how it runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.helpers.fleet import Fleet, Row

# A Tuesday, nine in the morning.
BASE = datetime(2031, 1, 7, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LASTING = {"expires_after": "1 day"}


def reasons(fleet: Fleet, made: Row) -> list[str | None]:
    return [run["reason"] for run in fleet.runs(made["id"])]


def statuses(fleet: Fleet, made: Row) -> list[str]:
    return [command["status"] for command in fleet.commands(made["id"])]


def test_one_run_may_wait_behind_another(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"overlap": "buffer_one", **LASTING})
    for minute in range(3):
        fleet.tick(BASE + minute * MINUTE)
    assert reasons(fleet, made) == [None, None, "overlap"]

    now = BASE + 3 * MINUTE - timedelta(seconds=1)
    (first,) = fleet.claim(device, now=now)
    assert fleet.claim(device, now=now) == []
    fleet.finish(device, first, now=now)
    (second,) = fleet.claim(device, now=now)
    assert second["run_id"] == fleet.runs(made["id"])[1]["id"]


def test_a_run_that_waits_begins_even_when_the_one_before_failed(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"overlap": "buffer_one", **LASTING})
    for minute in range(2):
        fleet.tick(BASE + minute * MINUTE)
    first, second = fleet.commands(made["id"])
    fleet.run("select cancel_command(%s)", first["id"])
    (claimed,) = fleet.claim(device, now=BASE + 2 * MINUTE)
    assert claimed["command_id"] == second["id"]


def test_a_new_run_may_replace_the_old_one(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"overlap": "replace", **LASTING})
    fleet.tick(BASE)
    (claimed,) = fleet.claim(device, now=BASE)
    fleet.tick(BASE + MINUTE)
    assert statuses(fleet, made) == ["cancelled", "pending"]
    assert fleet.commands(made["id"])[0]["reason"] == "replaced"
    assert fleet.finish(device, claimed)["reason"] == "cancelled"
    fleet.tick(BASE + MINUTE)
    runs = fleet.runs(made["id"])
    assert [run["status"] for run in runs] == ["failed", "running"]


def test_jitter_gives_each_device_a_slot_that_stays(fleet: Fleet) -> None:
    devices = fleet.devices(20)
    made = fleet.minutely(
        devices, BASE, policies={"overlap": "allow", "jitter": "30 seconds", **LASTING}
    )
    slots: list[dict[int, timedelta]] = []
    for minute in range(2):
        now = BASE + minute * MINUTE
        fleet.tick_until_idle(now)
        run = fleet.runs(made["id"])[minute]
        slots.append(
            {
                command["device_id"]: command["not_before"] - now
                for command in fleet.commands(made["id"])
                if command["run_id"] == run["id"]
            }
        )
    assert slots[0] == slots[1]
    assert all(timedelta(0) <= slot <= timedelta(seconds=30) for slot in slots[0].values())
    assert len(set(slots[0].values())) > 15


@pytest.mark.parametrize("place", ["schedule", "device"])
@pytest.mark.parametrize("outside", ["skip", "wait"])
def test_an_execution_window_skips_or_waits(fleet: Fleet, place: str, outside: str) -> None:
    device = fleet.device(timezone="UTC")
    window = {"from": "22:00", "to": "05:00", "in": place, "outside": outside}
    made = fleet.create(
        device_ids=[device],
        start_time=BASE.isoformat(),
        policies={"execution_window": window, **LASTING},
    )
    fleet.tick(BASE)
    if outside == "skip":
        assert reasons(fleet, made) == ["outside the execution window"]
        assert fleet.commands(made["id"]) == []
        return
    fleet.tick_until_idle(BASE + timedelta(hours=13))
    (command,) = fleet.commands(made["id"])
    assert command["not_before"] == BASE + timedelta(hours=13)
    assert command["expires_at"] == BASE + timedelta(hours=13 + 24)
    assert fleet.claim(device, now=BASE) == []
    assert len(fleet.claim(device, now=BASE + timedelta(hours=13))) == 1


def test_within_its_window_a_schedule_runs_at_once(fleet: Fleet) -> None:
    made = fleet.create(
        device_ids=[fleet.device()],
        start_time=BASE.isoformat(),
        policies={"execution_window": {"from": "08:00", "to": "17:00", "days_of_week": [1]}},
    )
    fleet.tick(BASE)
    assert statuses(fleet, made) == ["pending"]


def test_nothing_runs_in_a_blackout(fleet: Fleet) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Holidays")["id"]
    fleet.run(
        "insert into blackout_periods (calendar_id, owner_id, starts_on, ends_on)"
        " values (%s, %s, '2031-01-07', '2031-01-08')",
        calendar,
        fleet.owner_id,
    )
    made = fleet.create(
        device_ids=[fleet.device()],
        recurrence_type="daily",
        recurrence_config={"time": "09:00"},
        start_time=BASE.isoformat(),
        policies={"blackouts": ["holidays"]},
    )
    fleet.tick(BASE)
    fleet.tick(BASE + timedelta(days=1))
    assert reasons(fleet, made) == ["blackout", None]
    assert fleet.schedule(made["id"])["execution_count"] == 1


def test_a_schedule_ends_after_its_number_of_runs(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely([device], BASE, policies={"max_runs": 2, "overlap": "allow"})
    for minute in range(4):
        fleet.tick(BASE + minute * MINUTE)
    row = fleet.schedule(made["id"])
    assert (row["status"], row["execution_count"], row["next_run_at"]) == ("completed", 2, None)
    assert len(fleet.runs(made["id"])) == 2


def test_catching_up_may_be_paced(fleet: Fleet) -> None:
    made = fleet.minutely(
        [fleet.device()],
        BASE,
        policies={"catchup": "all", "catchup_rate": 2, "overlap": "allow", **LASTING},
    )
    now = BASE + timedelta(minutes=10)
    fleet.tick_until_idle(now)
    starts = [run["not_before"] for run in fleet.runs(made["id"]) if run["trigger"] == "catchup"]
    assert len(starts) > 3
    waits = [(start or now) - now for start in starts]
    assert waits == [timedelta(seconds=30 * n) for n in range(len(waits))]


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


def test_retries_follow_the_policy_of_the_schedule(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.create(
        device_ids=[device],
        start_time=BASE.isoformat(),
        policies={"retry": {"attempts": 2, "backoff": "10 seconds", "on": ["timeout"]}},
    )
    fleet.tick(BASE)
    (claimed,) = fleet.claim(device, now=BASE)
    answer = fleet.finish(device, claimed, "failed", reason="timeout", now=BASE)
    pause = datetime.fromisoformat(answer["retry_at"]) - BASE
    assert timedelta(seconds=10) <= pause <= timedelta(seconds=12)
    (again,) = fleet.claim(device, now=BASE + MINUTE)
    assert fleet.finish(device, again, "failed", reason="timeout")["status"] == "failed"


@pytest.mark.parametrize(
    ("wanted", "outcome", "follows"),
    [
        ("completed", "completed", True),
        ("completed", "failed", False),
        ("failed", "failed", True),
        ("failed", "completed", False),
        ("either", "failed", True),
    ],
)
def test_a_schedule_may_follow_another(
    fleet: Fleet, wanted: str, outcome: str, follows: bool
) -> None:
    device = fleet.device()
    first = fleet.create(device_ids=[device], start_time=BASE.isoformat())
    second = fleet.create(
        device_ids=[device], after={"schedule_id": first["id"], "on": wanted}, start_time=None
    )
    assert second["next_run_at"] is None and second["status"] == "active"
    fleet.tick(BASE)
    (claimed,) = fleet.claim(device, now=BASE)
    fleet.finish(device, claimed, outcome, reason="unsupported", now=BASE)
    fleet.tick_until_idle(BASE + timedelta(seconds=1))
    fleet.tick_until_idle(BASE + timedelta(seconds=2))
    runs = fleet.runs(second["id"])
    assert [run["trigger"] for run in runs] == (["chain"] if follows else [])
    assert len(fleet.commands(second["id"])) == int(follows)


def test_a_chain_never_closes_on_itself(fleet: Fleet) -> None:
    device = fleet.device()
    first = fleet.create(device_ids=[device], start_time=BASE.isoformat())
    second = fleet.create(device_ids=[device], after={"schedule_id": first["id"]})
    with fleet.refused("PT422", "schedule_invalid", "after"):
        fleet.run(
            "update schedules set after_schedule_id = %s, after_on = 'either' where id = %s",
            second["id"],
            first["id"],
        )
