"""Claiming and finishing: what a lease protects, and what a device may say late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

NOW = datetime(2031, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BASE = datetime(2031, 5, 5, 6, 30, tzinfo=UTC)
PRIORITIES = (-5, 0, 7, 100)


@pytest.fixture
def device(fleet: Fleet) -> int:
    """Give one device."""
    return fleet.device()


def send(fleet: Fleet, device: int, kind: str = "broadcast_message", **named: object) -> Row:
    return fleet.send(device, kind, p_not_before=NOW, **named)


def extend(fleet: Fleet, device: int, claimed: Row, now: datetime) -> Row:
    with fleet.as_device(device):
        answer: Row = fleet.value(
            "select fleet.extend_command(%s, %s, null, %s)",
            claimed["command_id"],
            claimed["attempt"],
            now,
        )
    return answer


def release(fleet: Fleet, device: int, claimed: Row) -> Row:
    with fleet.as_device(device):
        answer: Row = fleet.value(
            "select release_command(%s, %s)", claimed["command_id"], claimed["attempt"]
        )
    return answer


def due(fleet: Fleet, priority: int, devices: list[int]) -> int:
    made = fleet.create(device_ids=devices, start_time=BASE.isoformat(), priority=priority)
    schedule_id: int = made["id"]
    return schedule_id


def test_a_claim_tells_all_that_the_agent_needs(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device, "lock")
    (claimed,) = fleet.claim(device, now=NOW)
    assert claimed == {
        "command_id": sent["id"],
        "command_type": "lock",
        "payload": {},
        "attempt": 1,
        "priority": 0,
        "rerun_safe": True,
        "timeout_seconds": 30,
        "lease_expires_at": NOW + MINUTE,
        "lease_seconds": 60,
        "expires_at": sent["expires_at"],
        "run_id": None,
        "step": 0,
        "created_at": sent["created_at"],
        "trace_id": fleet.value("select trace_id from command_list where id = %s", sent["id"]),
    }
    assert fleet.claim(device, now=NOW) == []


def test_the_most_urgent_is_claimed_first_then_the_oldest(fleet: Fleet, device: int) -> None:
    priorities = [0, 5, -5, 5, 100]
    ids = [send(fleet, device, p_priority=priority)["id"] for priority in priorities]
    first = fleet.claim(device, 2, now=NOW)
    rest = fleet.claim(device, now=NOW)
    assert [c["command_id"] for c in [*first, *rest]] == [ids[i] for i in (4, 1, 3, 0, 2)]


def test_only_an_active_device_claims(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    with fleet.refused("PT403", "not_a_device"), fleet.acting(fleet.owner_id):
        fleet.run("select * from claim_commands()")
    with fleet.as_device(device):
        # The public function goes by the clock, which is far from NOW.
        assert fleet.rows("select * from claim_commands(5, %s)", uuid4()) == []


def test_a_device_cannot_touch_the_commands_of_another(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    other = fleet.device()
    refused = {"accepted": False, "reason": "not_found"}
    assert fleet.finish(other, claimed) == refused
    assert extend(fleet, other, claimed, NOW) == refused
    assert release(fleet, other, claimed) == refused
    assert fleet.claim(other, now=NOW) == []


def test_what_nobody_starts_expires(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device, p_expires_after="1 hour")
    assert fleet.claim(device, now=NOW + timedelta(hours=1)) == []
    fleet.tick(NOW + timedelta(hours=1))
    row = fleet.command(sent["id"])
    assert (row["status"], row["reason"]) == ("expired", "expired")
    assert row["executed_at"] is not None


def test_what_is_being_carried_out_does_not_expire_under_the_device(
    fleet: Fleet, device: int
) -> None:
    send(fleet, device, p_expires_after="1 minute")
    (claimed,) = fleet.claim(device, now=NOW)
    assert extend(fleet, device, claimed, NOW + 0.9 * MINUTE)["accepted"] is True
    fleet.tick(NOW + 1.5 * MINUTE)
    assert fleet.finish(device, claimed, now=NOW + 1.6 * MINUTE)["status"] == "completed"


def test_a_lease_that_runs_out_is_offered_again(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device, "lock")
    fleet.claim(device, now=NOW)
    fleet.tick(NOW + 0.9 * MINUTE)
    assert fleet.command(sent["id"])["status"] == "running"
    fleet.tick(NOW + 1.1 * MINUTE)
    row = fleet.command(sent["id"])
    assert (row["status"], row["reason"], row["failure_count"]) == ("pending", "lease_expired", 1)
    (again,) = fleet.claim(device, now=NOW + 1.1 * MINUTE)
    assert again["attempt"] == 2


def test_an_extended_lease_lasts(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    answer = extend(fleet, device, claimed, NOW + 0.5 * MINUTE)
    assert answer["accepted"] is True
    assert datetime.fromisoformat(answer["lease_expires_at"]) == NOW + 1.5 * MINUTE
    fleet.tick(NOW + 1.4 * MINUTE)
    assert fleet.finish(device, claimed, now=NOW + 1.4 * MINUTE)["accepted"] is True


def test_a_device_that_never_answers_fails_after_its_attempts(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device, "lock", p_max_attempts=2)
    for attempt in (1, 2):
        at = NOW + attempt * 2 * MINUTE
        assert fleet.claim(device, now=at)[0]["attempt"] == attempt
        fleet.tick(at + 1.5 * MINUTE)
    row = fleet.command(sent["id"])
    assert (row["status"], row["reason"]) == ("failed", "lease_expired")
    assert row["error_message"]


def test_a_stale_attempt_is_refused(fleet: Fleet, device: int) -> None:
    send(fleet, device, "lock")
    (first,) = fleet.claim(device, now=NOW)
    fleet.tick(NOW + 2 * MINUTE)
    (second,) = fleet.claim(device, now=NOW + 2 * MINUTE)
    refused = {"accepted": False, "reason": "stale_attempt"}
    assert fleet.finish(device, first) == refused
    assert extend(fleet, device, first, NOW + 2 * MINUTE) == refused
    assert release(fleet, device, first) == refused
    assert fleet.finish(device, second)["accepted"] is True


def test_a_late_finish_is_accepted_while_nobody_took_the_command(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    fleet.tick(NOW + 5 * MINUTE)
    assert fleet.command(sent["id"])["status"] == "pending"
    answer = fleet.finish(device, claimed, result={"ok": 1}, now=NOW + 6 * MINUTE)
    assert answer == {"accepted": True, "status": "completed"}
    row = fleet.command(sent["id"])
    assert (row["result"], row["reason"], row["executed_at"]) == ({"ok": 1}, None, NOW + 6 * MINUTE)


def test_a_late_extension_takes_the_command_back(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    fleet.tick(NOW + 5 * MINUTE)
    assert extend(fleet, device, claimed, NOW + 5 * MINUTE)["accepted"] is True
    assert fleet.claim(device, now=NOW + 5 * MINUTE) == []
    assert fleet.finish(device, claimed)["status"] == "completed"


def test_the_same_finish_again_is_the_same_success(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    first = fleet.finish(device, claimed, result={"n": 1})
    assert fleet.finish(device, claimed, result={"n": 1}) == first
    assert fleet.finish(device, claimed, "failed") == {
        "accepted": False,
        "reason": "already_final",
    }
    assert fleet.command(sent["id"])["result"] == {"n": 1}


def test_the_same_failure_again_is_the_same_retry(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    first = fleet.finish(device, claimed, "failed", error="no", now=NOW)
    again = fleet.finish(device, claimed, "failed", error="no", now=NOW + MINUTE)
    assert first["status"] == "pending"
    assert again == first
    assert fleet.command(sent["id"])["failure_count"] == 1


def test_failures_are_retried_later_each_time(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device, p_max_attempts=4)
    now, pauses = NOW, []
    for _ in range(3):
        (claimed,) = fleet.claim(device, now=now)
        answer = fleet.finish(device, claimed, "failed", error="boom", now=now)
        retry_at = datetime.fromisoformat(answer["retry_at"])
        pauses.append((retry_at - now).total_seconds())
        assert fleet.claim(device, now=retry_at - timedelta(seconds=1)) == []
        now = retry_at
    # A fifth more by chance at most, so that a fleet does not come back in step.
    for pause, least in zip(pauses, (30, 60, 120), strict=True):
        assert least <= pause <= least * 1.2
    (claimed,) = fleet.claim(device, now=now)
    assert fleet.finish(device, claimed, "failed", error="boom")["status"] == "failed"
    row = fleet.command(sent["id"])
    assert (row["reason"], row["error_message"], row["failure_count"]) == ("error", "boom", 4)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (None, "pending"),
        ("error", "pending"),
        ("timeout", "pending"),
        ("interrupted", "failed"),
        ("unsupported", "failed"),
        ("forbidden", "failed"),
        ("invalid_payload", "failed"),
    ],
)
def test_a_failure_is_retried_by_its_class(
    fleet: Fleet, device: int, reason: str | None, status: str
) -> None:
    sent = send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    assert fleet.finish(device, claimed, "failed", reason=reason, now=NOW)["status"] == status
    assert fleet.command(sent["id"])["reason"] == (reason or "error")


def test_nothing_is_retried_beyond_its_expiry(fleet: Fleet, device: int) -> None:
    send(fleet, device, p_expires_after="20 seconds")
    (claimed,) = fleet.claim(device, now=NOW)
    assert fleet.finish(device, claimed, "failed", now=NOW)["status"] == "failed"


def test_a_late_failure_counts_once(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    fleet.tick(NOW + 2 * MINUTE)
    fleet.finish(device, claimed, "failed", now=NOW + 2 * MINUTE)
    assert fleet.command(sent["id"])["failure_count"] == 1


def test_giving_back_is_no_failure(fleet: Fleet, device: int) -> None:
    sent = send(fleet, device, p_max_attempts=1)
    for attempt in (1, 2, 3):
        (claimed,) = fleet.claim(device, journal=uuid4(), now=NOW)
        assert claimed["attempt"] == attempt
        assert release(fleet, device, claimed) == {"accepted": True, "status": "pending"}
    row = fleet.command(sent["id"])
    assert (row["status"], row["failure_count"], row["lease_expires_at"]) == ("pending", 0, None)
    assert fleet.finish(device, claimed) == {"accepted": False, "reason": "stale_attempt"}


@pytest.mark.parametrize("status", ["running", "done", "", None])
def test_a_finish_is_completed_or_failed(fleet: Fleet, device: int, status: str | None) -> None:
    with fleet.refused("PT422", "status_invalid"), fleet.as_device(device):
        fleet.run("select finish_command(1, 1, %s)", status)


@pytest.mark.parametrize(
    ("kind", "journals", "outcome"),
    [
        # What is safe to repeat is handed out, whoever asks.
        ("lock", "same", "running"),
        ("lock", "other", "running"),
        ("lock", "none", "running"),
        # The journal that was there may tell what happened; any other cannot.
        ("broadcast_message", "same", "running"),
        ("broadcast_message", "other", "failed"),
        ("broadcast_message", "lost", "failed"),
        ("broadcast_message", "found", "failed"),
        ("broadcast_message", "none", "failed"),
    ],
)
def test_what_is_unsafe_to_repeat_needs_the_journal_that_saw_it(
    fleet: Fleet, device: int, kind: str, journals: str, outcome: str
) -> None:
    mine = uuid4()
    before, after = {
        "same": (mine, mine),
        "other": (mine, uuid4()),
        "lost": (mine, None),
        "found": (None, mine),
        "none": (None, None),
    }[journals]
    sent = send(fleet, device, kind)
    fleet.claim(device, journal=before, now=NOW)
    fleet.tick(NOW + 2 * MINUTE)
    claimed = fleet.claim(device, journal=after, now=NOW + 2 * MINUTE)
    row = fleet.command(sent["id"])
    assert row["status"] == outcome
    assert len(claimed) == (outcome == "running")
    if outcome == "failed":
        assert row["reason"] == "interrupted"


def test_a_failure_that_was_told_is_no_interruption(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, journal=uuid4(), now=NOW)
    fleet.finish(device, claimed, "failed", now=NOW)
    (again,) = fleet.claim(device, journal=uuid4(), now=NOW + 2 * MINUTE)
    assert again["attempt"] == 2


def test_a_command_whose_type_is_gone_is_still_handed_out(fleet: Fleet, device: int) -> None:
    fleet.run("insert into command_types (name) values ('short_lived')")
    sent = send(fleet, device, "short_lived")
    fleet.run("delete from command_types where name = 'short_lived'")
    (claimed,) = fleet.claim(device, now=NOW)
    assert (claimed["command_id"], claimed["rerun_safe"]) == (sent["id"], False)


def test_the_most_urgent_is_claimed_first_and_then_the_oldest(fleet: Fleet) -> None:
    device = fleet.device()
    for priority in (*PRIORITIES, *PRIORITIES):
        due(fleet, priority, [device])
    fleet.tick_until_idle(BASE)
    claimed = [fleet.claim(device, 1, now=BASE)[0] for _ in range(8)]
    assert [c["priority"] for c in claimed] == [100, 100, 7, 7, 0, 0, -5, -5]
    ids = [c["command_id"] for c in claimed]
    assert all(first < second for first, second in zip(ids[::2], ids[1::2], strict=True))


def test_progress_is_taken_down_at_a_pace_and_never_costs_the_lease(
    fleet: Fleet, device: int
) -> None:
    sent = send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    second = timedelta(seconds=1)
    kept = []
    for at, said in (
        (NOW, {"percent": 10}),
        (NOW + second / 2, {"percent": 20}),
        (NOW + second, {"percent": 30, "state": "copying"}),
        (NOW + 2 * second, {"log": "x" * 5000}),
        (NOW + 3 * second, [40]),
        (NOW + 4 * second, None),
    ):
        with fleet.as_device(device):
            answer = fleet.value(
                "select fleet.extend_command(%s, 1, %s, %s)",
                *(claimed["command_id"], None if said is None else Jsonb(said), at),
            )
        assert answer["accepted"], said
        row = fleet.command(sent["id"])
        assert row["lease_expires_at"] == at + MINUTE
        kept.append((row["progress"] or {}).get("percent"))
    assert kept == [10, 10, 30, 30, 30, 30]
