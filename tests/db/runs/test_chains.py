"""Chains: a schedule that runs when a run of another one has ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def first(fleet: Fleet, device: int, **spec: Any) -> int:
    """Create the schedule with which a chain begins: once a day."""
    made = fleet.create(
        name="first",
        recurrence_type="daily",
        recurrence_config={"time": "06:30"},
        start_time=BASE.isoformat(),
        device_ids=[device],
        **spec,
    )
    schedule_id: int = made["id"]
    return schedule_id


def follower(fleet: Fleet, device: int, parent: int, on: str | None = None, **spec: Any) -> int:
    after = {"schedule_id": parent, **({"on": on} if on else {})}
    made = fleet.create(**{"name": "follower", "device_ids": [device], **spec}, after=after)
    schedule_id: int = made["id"]
    return schedule_id


def work(fleet: Fleet, device: int, now: datetime, status: str = "completed") -> None:
    """Let the device do all that it finds, then let the tick hear of it."""
    fleet.tick(now)
    for command in fleet.claim(device, now=now):
        fleet.finish(device, command, status, reason="unsupported", now=now)
    fleet.tick(now)


@pytest.mark.parametrize(
    ("on", "status", "follows"),
    [
        (None, "completed", True),
        (None, "failed", False),
        ("completed", "completed", True),
        ("completed", "failed", False),
        ("failed", "completed", False),
        ("failed", "failed", True),
        ("either", "completed", True),
        ("either", "failed", True),
    ],
)
def test_a_follower_runs_when_the_other_ends_so(
    fleet: Fleet, on: str | None, status: str, follows: bool
) -> None:
    device = fleet.device()
    parent = first(fleet, device)
    chained = follower(fleet, device, parent, on)
    work(fleet, device, BASE, status)
    (run,) = fleet.runs(parent)
    assert run["status"] == status
    found = fleet.runs(chained)
    assert [r["after_run_id"] for r in found] == ([run["id"]] if follows else [])
    if follows:
        fleet.tick(BASE)
        (command,) = fleet.commands(chained)
        assert (found[0]["trigger"], command["device_id"]) == ("chain", device)
        assert fleet.schedule(chained)["execution_count"] == 1


def test_a_chain_of_three_runs_one_after_the_other(fleet: Fleet) -> None:
    device = fleet.device()
    chain = [first(fleet, device)]
    for _ in range(2):
        chain.append(follower(fleet, device, chain[-1]))
    for day in range(2):
        for step in range(3):
            work(fleet, device, BASE + day * DAY + timedelta(seconds=step))
    assert [[run["status"] for run in fleet.runs(s)] for s in chain] == [["completed"] * 2] * 3
    ends = [fleet.runs(schedule)[0]["finished_at"] for schedule in chain]
    assert ends == sorted(ends)
    assert len(set(ends)) == 3


def test_one_schedule_may_have_several_followers(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device)
    good, bad = follower(fleet, device, parent), follower(fleet, device, parent, "failed")
    work(fleet, device, BASE)
    work(fleet, device, BASE + DAY, "failed")
    assert (len(fleet.runs(good)), len(fleet.runs(bad))) == (1, 1)


def test_one_run_follows_however_often_the_end_is_seen(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device)
    chained = follower(fleet, device, parent)
    work(fleet, device, BASE)
    (run,) = fleet.runs(parent)
    for _ in range(2):
        fleet.run("select fleet.settle_runs(%s)", BASE)
        fleet.run("select fleet.start_followers(array[%s::bigint], %s)", run["id"], BASE)
    assert len(fleet.runs(chained)) == 1


def test_runs_that_end_at_once_are_each_followed(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device, policies={"overlap": "allow", "expires_after": "9 days"})
    chained = follower(fleet, device, parent, policies={"overlap": "allow"})
    for day in range(3):
        fleet.tick(BASE + day * DAY)
    now = BASE + 3 * DAY - timedelta(hours=1)
    for command in fleet.claim(device, now=now):
        fleet.finish(device, command, now=now)
    # One after the other, at the very same moment.
    for _ in range(3):
        fleet.run("select fleet.settle_runs(%s, 1)", now)
    ends = {run["id"] for run in fleet.runs(parent)}
    assert {run["after_run_id"] for run in fleet.runs(chained)} == ends
    assert len(ends) == 3


def test_a_run_that_was_skipped_starts_nothing(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device, policies={"execution_window": {"from": "22:00", "to": "23:00"}})
    nobody = fleet.create(
        name="nobody", selector={"tags": ["nobody"]}, start_time=BASE.isoformat()
    )["id"]
    chained = [follower(fleet, device, s, "either") for s in (parent, nobody)]
    work(fleet, device, BASE)
    assert fleet.runs(parent)[0]["status"] == fleet.runs(nobody)[0]["status"] == "skipped"
    assert [fleet.runs(schedule) for schedule in chained] == [[], []]


@pytest.mark.parametrize("fault", ["expansion", "decision"])
def test_a_run_that_failed_with_an_error_is_followed_too(
    fleet: Fleet, database: Any, fault: str
) -> None:
    kind = fleet.insert("command_types", name="brew_tea")["name"]
    device = fleet.device()
    parent = first(fleet, device, action_type=kind, payload={})
    chained = follower(fleet, device, parent, "failed")
    if fault == "expansion":
        fleet.run("delete from command_types where name = %s", kind)
    else:
        fleet.run("alter table schedules disable trigger user")
        fleet.run(
            'update schedules set policies = \'{"catchup_window": "?"}\' where id = %s', parent
        )
        fleet.run("alter table schedules enable trigger user")
    fleet.tick(BASE)
    fleet.tick(BASE)
    (run,) = fleet.runs(parent)
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert [r["after_run_id"] for r in fleet.runs(chained)] == [run["id"]]


def test_a_run_by_hand_is_followed(fleet: Fleet) -> None:
    device = fleet.device()
    parent = first(fleet, device)
    chained = follower(fleet, device, parent)
    fleet.run("select run_schedule(%s)", parent)
    (command,) = fleet.claim(device)
    fleet.finish(device, command)
    fleet.tick()
    assert len(fleet.runs(chained)) == 1


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"policies": {"blackouts": ["Fair"]}}, "blackout"),
        ({"policies": {"execution_window": {"from": "22:00", "to": "05:00"}}},
         "outside the execution window"),
        ({"timezone": "device", "policies": {"blackouts": ["Fair"]}}, "blackout"),
        ({"start_time": (BASE + DAY).isoformat()}, "the schedule has not begun"),
        ({"end_time": (BASE - DAY).isoformat()}, "the schedule has ended"),
    ],
)  # fmt: skip
def test_what_may_not_follow_now_is_in_the_ledger_as_skipped(
    fleet: Fleet, spec: Row, reason: str
) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Fair")
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=calendar["id"],
        starts_on=BASE.date(),
        ends_on=(BASE + DAY).date(),
    )
    device = fleet.device()
    parent = first(fleet, device)
    chained = follower(fleet, device, parent, **spec)
    work(fleet, device, BASE)
    (run,) = fleet.runs(chained)
    assert (run["status"], run["reason"]) == ("skipped", reason)
    assert run["after_run_id"] == fleet.runs(parent)[0]["id"]
    assert fleet.schedule(chained)["execution_count"] == 0


def test_a_follower_may_wait_for_its_window(fleet: Fleet) -> None:
    device = fleet.device()
    window = {"from": "22:00", "to": "05:00", "outside": "wait"}
    chained = follower(fleet, device, first(fleet, device), policies={"execution_window": window})
    work(fleet, device, BASE)
    (run,) = fleet.runs(chained)
    opens = BASE.replace(hour=22, minute=0)
    assert (run["status"], run["not_before"]) == ("pending", opens)
    fleet.tick(opens)
    assert len(fleet.commands(chained)) == 1


def test_a_follower_in_device_time_leaves_out_who_has_a_holiday(fleet: Fleet) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Holiday")
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=calendar["id"],
        starts_on=BASE.date() - DAY,
        ends_on=BASE.date(),
    )
    # In Honolulu it is still the day before.
    there, here = fleet.device(timezone="Pacific/Honolulu"), fleet.device(timezone="Europe/Berlin")
    chained = follower(
        fleet,
        here,
        first(fleet, here),
        device_ids=[here, there],
        timezone="device",
        policies={"blackouts": ["Holiday"]},
    )
    work(fleet, here, BASE)
    fleet.tick(BASE)
    assert [command["device_id"] for command in fleet.commands(chained)] == [here]


def test_a_follower_stops_at_max_runs(fleet: Fleet) -> None:
    device = fleet.device()
    chained = follower(fleet, device, first(fleet, device), policies={"max_runs": 1})
    for day in range(2):
        work(fleet, device, BASE + day * DAY)
    assert len(fleet.runs(chained)) == 1
    row = fleet.schedule(chained)
    assert (row["status"], row["status_reason"]) == ("completed", "max_runs reached")


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_a_follower_that_is_not_active_does_not_follow(fleet: Fleet, status: str) -> None:
    device = fleet.device()
    chained = follower(fleet, device, first(fleet, device))
    fleet.run("update schedules set status = %s where id = %s", status, chained)
    work(fleet, device, BASE)
    assert fleet.runs(chained) == []


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
