"""Retries by class of failure, and until when a command may be started at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
JOURNAL = UUID(int=7)
MINUTE = timedelta(minutes=1)


def started(fleet: Fleet, at: datetime = BASE, **policies: object) -> tuple[int, Row]:
    """Run a schedule on one device and let it claim the command."""
    device = fleet.device()
    made = fleet.create(
        device_ids=[device],
        start_time=at.isoformat(),
        policies={"expires_after": "10 days", **policies},
    )
    fleet.tick(at)
    (command,) = fleet.claim(device, journal=JOURNAL, now=at)
    assert command["run_id"] == fleet.runs(made["id"])[0]["id"]
    return device, command


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        (None, True),
        ("error", True),
        ("timeout", True),
        ("network", True),
        ("rate_limited", True),
        ("unavailable", True),
        ("interrupted", False),
        ("unsupported", False),
        ("forbidden", False),
        ("invalid_payload", False),
        ("what is this", False),
    ],
)
def test_only_what_may_pass_is_tried_again(fleet: Fleet, reason: str | None, again: bool) -> None:
    device, command = started(fleet)
    answer = fleet.finish(device, command, "failed", reason=reason, now=BASE)
    assert answer["status"] == ("pending" if again else "failed")
    assert ("retry_at" in answer) is again


def test_the_pause_doubles_up_to_its_most(fleet: Fleet) -> None:
    device, command = started(
        fleet, retry={"attempts": 6, "backoff": "1 minute", "max_backoff": "5 minutes"}
    )
    now, pauses = BASE, []
    while True:
        answer = fleet.finish(device, command, "failed", now=now)
        if answer["status"] == "failed":
            break
        retry_at = datetime.fromisoformat(answer["retry_at"])
        pauses.append((retry_at - now) / timedelta(minutes=1))
        assert fleet.claim(device, now=retry_at - timedelta(seconds=1)) == []
        now = retry_at
        (command,) = fleet.claim(device, now=now)

    # Up to a fifth more by chance, so that what failed together does not come back together.
    for pause, least in zip(pauses, [1, 2, 4, 5, 5], strict=True):
        assert least <= pause <= least * 1.2 + 1e-6


def test_the_schedule_says_which_classes_are_tried_again(fleet: Fleet) -> None:
    device, command = started(fleet, retry={"on": ["timeout"]})
    assert fleet.finish(device, command, "failed", reason="error", now=BASE)["status"] == "failed"
    device, command = started(fleet, retry={"on": ["timeout"]})
    answer = fleet.finish(device, command, "failed", reason="timeout", now=BASE)
    assert answer["status"] == "pending"
    device, command = started(fleet, retry={"on": []})
    assert fleet.finish(device, command, "failed", now=BASE)["status"] == "failed"


def test_a_device_that_does_not_answer_is_asked_again(fleet: Fleet) -> None:
    device, command = started(fleet, retry={"attempts": 2})
    late = BASE + timedelta(minutes=5)
    fleet.tick(late)
    (again,) = fleet.claim(device, journal=JOURNAL, now=late)
    assert (again["command_id"], again["attempt"]) == (command["command_id"], 2)
    fleet.tick(late + timedelta(minutes=5))
    row = fleet.command(command["command_id"])
    assert (row["status"], row["reason"]) == ("failed", "lease_expired")


def test_a_device_that_does_not_answer_may_not_be_asked_again(fleet: Fleet) -> None:
    _, command = started(fleet, retry={"on": ["error"]})
    fleet.tick(BASE + timedelta(minutes=5))
    row = fleet.command(command["command_id"])
    assert (row["status"], row["reason"], row["failure_count"]) == ("failed", "lease_expired", 1)


def test_nothing_is_tried_again_that_would_expire_first(fleet: Fleet) -> None:
    device, command = started(fleet, expires_after="1 minute", retry={"backoff": "2 minutes"})
    assert fleet.finish(device, command, "failed", now=BASE)["status"] == "failed"


@pytest.mark.parametrize(
    ("spec", "lives"),
    [
        ({}, timedelta(hours=24)),
        ({"recurrence_type": "interval", "recurrence_config": {"hours": 2}}, 2 * HOUR),
        ({"recurrence_type": "daily", "recurrence_config": {"time": "06:30"}}, 24 * HOUR),
        ({"recurrence_type": "weekly", "recurrence_config": {"time": "06:30"}}, 24 * HOUR),
        ({"policies": {"expires_after": "3 days"}}, 72 * HOUR),
        ({"recurrence_type": "interval", "recurrence_config": {"hours": 2},
          "policies": {"expires_after": "3 hours"}}, 3 * HOUR),
    ],
)  # fmt: skip
def test_a_command_expires_when_the_next_is_due_or_after_a_day(
    fleet: Fleet, spec: Row, lives: timedelta
) -> None:
    made = fleet.create(device_ids=[fleet.device()], start_time=BASE.isoformat(), **spec)
    fleet.tick(BASE)
    (command,) = fleet.commands(made["id"])
    assert command["expires_at"] == BASE + lives
    assert fleet.claim(command["device_id"], now=BASE + lives) == []
    fleet.run("select fleet.sweep_commands(%s)", BASE + lives)
    assert fleet.command(command["id"])["status"] == "expired"


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
