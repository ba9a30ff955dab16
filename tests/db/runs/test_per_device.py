"""Chains device by device: each goes on when it is done, in one run for each that is followed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Chain:
    """A schedule each hour, and one that follows it device by device."""

    def __init__(self, fleet: Fleet, devices: list[int], on: str = "completed", **spec: Any):
        self.fleet, self.now = fleet, BASE
        self.first = fleet.create(
            name="first",
            recurrence_type="interval",
            recurrence_config={"hours": 1},
            start_time=BASE.isoformat(),
            device_ids=devices,
            policies={"retry": {"attempts": 1}},
        )
        self.second = fleet.create(
            **{
                "name": "second",
                "device_ids": devices,
                "after": {"schedule_id": self.first["id"], "on": on, "per_device": True},
                **spec,
            }
        )
        self.tick()

    def tick(self) -> None:
        # What one tick ends, the next ones close and count.
        for _ in range(3):
            self.fleet.tick_until_idle(self.now)

    def done(self, device: int, status: str = "completed", schedule: str = "first") -> None:
        wanted = (self.first if schedule == "first" else self.second)["id"]
        for command in self.fleet.claim(device, now=self.now):
            assert self.fleet.command(command["command_id"])["schedule_id"] == wanted
            reason = None if status == "completed" else "unsupported"
            self.fleet.finish(device, command, status, reason=reason, now=self.now)
        self.tick()

    def next_hour(self) -> None:
        self.now += timedelta(hours=1)
        self.tick()

    def runs(self) -> list[Row]:
        return self.fleet.runs(self.second["id"])

    def went_on(self) -> list[int]:
        return sorted(c["device_id"] for c in self.fleet.commands(self.second["id"]))


def test_each_device_goes_on_when_it_is_done_in_one_run_for_all(fleet: Fleet) -> None:
    one, two, three = fleet.devices(3)
    chain = Chain(fleet, [one, two, three])
    assert chain.runs() == []
    chain.done(two)
    assert chain.went_on() == [two]
    chain.done(two, schedule="second")
    chain.done(one)
    (run,) = chain.runs()
    (before,) = fleet.runs(chain.first["id"])
    assert (run["status"], run["trigger"], run["after_run_id"]) == (
        "running",
        "chain",
        before["id"],
    )
    assert chain.went_on() == [one, two]

    chain.done(three)
    assert chain.runs()[0]["status"] == "running"
    for device in (one, three):
        chain.done(device, schedule="second")
    (run,) = chain.runs()
    assert (run["status"], run["targeted"], run["completed"]) == ("completed", 3, 3)


def test_it_is_whole_only_when_the_run_before_is(fleet: Fleet) -> None:
    quick, slow = fleet.devices(2)
    chain = Chain(fleet, [quick, slow])
    chain.done(quick)
    chain.done(quick, schedule="second")
    assert chain.runs()[0]["status"] == "running"
    chain.next_hour()
    # The slow one's command has expired by then: nobody is to come any more.
    assert chain.runs()[0]["status"] == "completed"


@pytest.mark.parametrize(
    ("on", "expected"), [("completed", [0]), ("failed", [1]), ("either", [0, 1])]
)
def test_how_a_device_ended_decides(fleet: Fleet, on: str, expected: list[int]) -> None:
    devices = fleet.devices(2)
    chain = Chain(fleet, devices, on)
    chain.done(devices[0])
    chain.done(devices[1], "failed")
    assert chain.went_on() == [devices[n] for n in expected]


def test_only_whom_both_mean_goes_on(fleet: Fleet) -> None:
    both, first_only, second_only = (
        fleet.device(tags=["x"]),
        fleet.device(),
        fleet.device(tags=["x"]),
    )
    chain = Chain(fleet, [both, first_only], device_ids=[], selector={"tags": ["x"]})
    for device in (both, first_only):
        chain.done(device)
    assert chain.went_on() == [both]
    assert fleet.claim(second_only, now=chain.now) == []


def test_where_nobody_goes_on_the_run_is_skipped_and_does_not_count(fleet: Fleet) -> None:
    device, other = fleet.devices(2)
    chain = Chain(fleet, [device], device_ids=[other], policies={"max_runs": 1})
    chain.done(device)
    (run,) = chain.runs()
    assert (run["status"], run["reason"]) == ("skipped", "no targets")
    assert fleet.schedule(chain.second["id"])["status"] == "active"


def test_max_runs_counts_it_once_and_lets_its_devices_come(fleet: Fleet) -> None:
    devices = fleet.devices(3)
    chain = Chain(fleet, devices, policies={"max_runs": 1})
    for device in devices:
        chain.done(device)
        chain.done(device, schedule="second")
    chain.next_hour()
    chain.done(devices[0])
    assert chain.went_on() == devices
    assert fleet.schedule(chain.second["id"])["status"] == "completed"


def test_each_run_that_is_followed_has_its_own(fleet: Fleet) -> None:
    device = fleet.device()
    chain = Chain(fleet, [device])
    for _ in range(3):
        chain.done(device)
        chain.done(device, schedule="second")
        chain.next_hour()
    assert [run["status"] for run in chain.runs()] == ["completed"] * 3
    assert len({run["after_run_id"] for run in chain.runs()}) == 3


def test_what_is_paused_or_cancelled_is_not_followed(fleet: Fleet) -> None:
    one, two = fleet.devices(2)
    chain = Chain(fleet, [one, two], "either")
    chain.done(one)
    fleet.run("select pause_schedule(%s)", chain.second["id"])
    chain.done(two)
    assert chain.went_on() == [one]

    fleet.run("select resume_schedule(%s)", chain.second["id"])
    chain.next_hour()
    fleet.run("select cancel_schedule(%s)", chain.first["id"])
    chain.tick()
    assert chain.went_on() == [one]


def test_a_chain_of_three(fleet: Fleet) -> None:
    one, two = fleet.devices(2)
    chain = Chain(fleet, [one, two])
    third = fleet.create(
        device_ids=[one, two], after={"schedule_id": chain.second["id"], "per_device": True}
    )
    whole = fleet.create(device_ids=[one, two], after={"schedule_id": chain.second["id"]})
    chain.done(one)
    chain.done(one, schedule="second")
    assert [c["device_id"] for c in fleet.commands(third["id"])] == [one]
    assert fleet.runs(whole["id"]) == []


def test_an_error_is_told_in_its_run(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.run("insert into command_types (name) values ('passing')")
    chain = Chain(fleet, [device], action_type="passing", payload={})
    fleet.run("delete from command_types where name = 'passing'")
    chain.done(device)
    (run,) = chain.runs()
    assert (run["status"], run["reason"]) == ("failed", "error")
    assert "passing" in run["error_message"]


def test_who_is_done_waits_for_nobody_who_holds_the_follower(connect: Any) -> None:
    fleet = connect()
    device = fleet.device()
    chain = Chain(fleet, [device])
    other = connect(owner=fleet)
    with other.conn.transaction():
        other.run("update schedules set description = 'x' where id = %s", chain.second["id"])
        fleet.run("set lock_timeout = '5s'")
        with fleet.conn.transaction():
            (command,) = fleet.claim(device, now=BASE)
            fleet.finish(device, command, now=BASE)
        fleet.tick(BASE)
        assert chain.went_on() == []
    fleet.tick_until_idle(BASE)
    assert chain.went_on() == [device]


def test_it_is_said_described_and_written_down(fleet: Fleet) -> None:
    device = fleet.device("pc-1")
    chain = Chain(fleet, [device])
    said = fleet.value("select describe_schedule(%s)", chain.second["id"])
    assert 'on each device as soon as its command of "first" has completed' in said
    document = fleet.value(
        "select fleet.schedule_document(s) from schedules as s where id = %s", chain.second["id"]
    )
    assert document["after"] == {"schedule": "first", "on": "completed", "per_device": True}
    made = fleet.schedule(chain.second["id"])
    assert made["after_per_device"] is True
    fleet.run("select update_schedule(%s, '{\"after\": null}')", made["id"])
    assert fleet.schedule(made["id"])["after_per_device"] is False


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"after": {"schedule_id": 1, "per_device": "yes"}}, "after.per_device"),
        (
            {"after": {"per_device": True}, "policies": {"rollout": {"groups": [{"percent": 10}]}}},
            "after.per_device",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fleet: Fleet, spec: Row, word: str) -> None:
    device = fleet.device()
    first = fleet.create(device_ids=[device])
    spec["after"]["schedule_id"] = first["id"]
    with fleet.refused("PT422", "schedule_invalid", word):
        fleet.create(device_ids=[device], **spec)
