"""Pausing, resuming, cancelling and running by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.helpers.fleet import Fleet, Row

NOON = datetime(2999, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def made(fleet: Fleet) -> Row:
    """Give a schedule of one device that is due each minute of a far year."""
    return fleet.minutely([fleet.device()], NOON)


def manage(fleet: Fleet, verb: str, made: Row, *values: Any) -> Row:
    places = ", %s" * len(values)
    with fleet.acting(fleet.owner_id):
        return fleet.row(f"select * from {verb}_schedule(%s{places})", made["id"], *values)


def owe(fleet: Fleet, made: Row, since: timedelta) -> datetime:
    """Make the schedule one that counts from a while ago, and is due since then."""
    past = (datetime.now(UTC) - since).replace(microsecond=0)
    fleet.run(
        "update schedules set next_run_at = %s,"
        " recurrence = recurrence || jsonb_build_object('start', %s::text) where id = %s",
        past,
        past.isoformat(),
        made["id"],
    )
    return past


def test_a_paused_schedule_rests(fleet: Fleet, made: Row) -> None:
    paused = manage(fleet, "pause", made, "holidays")
    assert (paused["status"], paused["status_reason"]) == ("paused", "holidays")
    assert manage(fleet, "pause", made, "again")["status_reason"] == "holidays"
    fleet.tick(NOON + timedelta(minutes=5))
    assert fleet.runs(made["id"]) == []


def test_resuming_tells_the_pause_in_one_row(fleet: Fleet, made: Row) -> None:
    manage(fleet, "pause", made, None)
    past = owe(fleet, made, timedelta(days=30))
    resumed = manage(fleet, "resume", made)

    assert (resumed["status"], resumed["status_reason"]) == ("active", None)
    assert datetime.now(UTC) < resumed["next_run_at"] <= datetime.now(UTC) + timedelta(minutes=1)
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["reason"]) == ("skipped", "paused")
    assert (run["missed_from"], run["scheduled_for"]) == (past, past)
    assert run["missed_count"] == 30 * 24 * 60 + 1
    assert run["missed_to"] == past + timedelta(minutes=run["missed_count"] - 1)
    assert fleet.commands(made["id"]) == []


def test_a_pause_without_a_due_instant_leaves_no_trace(fleet: Fleet, made: Row) -> None:
    manage(fleet, "pause", made, None)
    resumed = manage(fleet, "resume", made)
    assert resumed["next_run_at"] == NOON
    assert fleet.runs(made["id"]) == []


def test_a_single_run_that_a_pause_swallowed_is_accounted_for(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()], start_time=NOON.isoformat())
    manage(fleet, "pause", made, None)
    owe(fleet, made, timedelta(hours=2))
    resumed = manage(fleet, "resume", made)
    assert (resumed["status"], resumed["next_run_at"]) == ("completed", None)
    (run,) = fleet.runs(made["id"])
    assert (run["reason"], run["missed_count"]) == ("paused", 1)


@pytest.mark.parametrize("change", ["start_time = '2999-02-01'", "timezone = 'Asia/Kolkata'"])
def test_a_pause_is_told_even_when_the_times_change_meanwhile(
    fleet: Fleet, made: Row, change: str
) -> None:
    manage(fleet, "pause", made, None)
    past = owe(fleet, made, timedelta(days=2))
    fleet.run(f"update schedules set {change} where id = %s", made["id"])
    manage(fleet, "resume", made)
    (run,) = fleet.runs(made["id"])
    assert (run["scheduled_for"], run["reason"]) == (past, "paused")
    assert run["missed_count"] == 2 * 24 * 60 + 1


def test_cancelling_ends_what_no_device_has_begun(fleet: Fleet) -> None:
    begun, waiting = fleet.devices(2)
    made = fleet.create(device_ids=[begun, waiting])
    (claimed,) = fleet.claim(begun)
    cancelled = manage(fleet, "cancel", made, "no longer wanted")

    assert (cancelled["status"], cancelled["next_run_at"]) == ("cancelled", None)
    states = {
        row["device_id"]: (row["status"], row["reason"]) for row in fleet.commands(made["id"])
    }
    assert states == {begun: ("running", None), waiting: ("cancelled", "no longer wanted")}
    assert fleet.finish(begun, claimed)["accepted"] is True
    fleet.tick()
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"], run["failed"]) == ("failed", 1, 1)
    assert run["reason"] == "1 of 2 commands did not complete"


def test_cancelling_stops_a_run_on_its_way(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('inline_expand_limit', '2')")
    made = fleet.create(device_ids=fleet.devices(5))
    assert len(fleet.commands(made["id"])) == 2
    manage(fleet, "cancel", made, None)
    fleet.tick_until_idle()
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["targeted"], run["failed"]) == ("cancelled", 2, 2)
    assert len(fleet.commands(made["id"])) == 2


def test_cancelling_accounts_for_what_was_due(fleet: Fleet, made: Row) -> None:
    manage(fleet, "pause", made, None)
    owe(fleet, made, timedelta(hours=1))
    manage(fleet, "cancel", made, None)
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["missed_count"]) == ("skipped", 61)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_is_over_is_neither_paused_nor_resumed(fleet: Fleet, made: Row, verb: str) -> None:
    completed = fleet.create(device_ids=[fleet.device()])
    assert completed["status"] == "completed"
    with fleet.refused("PT409", "schedule_completed"):
        manage(fleet, verb, completed)
    manage(fleet, "cancel", made)
    with fleet.refused("PT409", "schedule_cancelled"):
        manage(fleet, verb, made)
    with fleet.refused("PT409", "schedule_cancelled"):
        manage(fleet, "run", made)
    assert manage(fleet, "cancel", made)["status"] == "cancelled"


def test_an_active_schedule_is_resumed_without_effect(fleet: Fleet, made: Row) -> None:
    assert manage(fleet, "resume", made)["next_run_at"] == NOON


def test_a_cancelled_schedule_stays_so_by_update(fleet: Fleet, made: Row) -> None:
    manage(fleet, "cancel", made)
    with fleet.refused("PT409", "schedule_cancelled"):
        fleet.run("update schedules set status = 'active' where id = %s", made["id"])
    row = fleet.row(
        "update schedules set start_time = '2999-02-01' where id = %s returning *", made["id"]
    )
    assert (row["status"], row["next_run_at"]) == ("cancelled", None)


def test_status_may_be_set_by_update_too(fleet: Fleet, made: Row) -> None:
    with fleet.acting(fleet.owner_id):
        fleet.run("update schedules set status = 'paused' where id = %s", made["id"])
        past = fleet.row(
            "update schedules set status = 'active' where id = %s returning *", made["id"]
        )
    assert past["next_run_at"] == NOON


def test_strangers_and_viewers_manage_nothing(fleet: Fleet, made: Row) -> None:
    viewer = uuid4()
    fleet.insert("owner_members", owner_id=fleet.owner_id, user_id=viewer, permissions=["view"])
    for verb in ("pause", "resume", "cancel", "run"):
        call = f"select {verb}_schedule(%s)"
        with fleet.refused("PT404", "schedule_not_found"), fleet.acting(uuid4()):
            fleet.run(call, made["id"])
        with fleet.refused("PT404", "schedule_not_found"):
            fleet.run(call, 10**12)
        with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
            fleet.run(call, made["id"])
    assert fleet.schedule(made["id"])["status"] == "active"
