"""Runs by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

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


def test_running_by_hand_makes_commands_at_once(fleet: Fleet, made: Row) -> None:
    run = manage(fleet, "run", made)
    assert (run["trigger"], run["status"], run["targeted"]) == ("manual", "running", 1)
    row = fleet.schedule(made["id"])
    assert (row["execution_count"], row["next_run_at"]) == (1, NOON)
    assert row["last_executed_at"] is not None


def test_the_same_key_gives_the_same_run(fleet: Fleet, made: Row) -> None:
    first = manage(fleet, "run", made, "key-1")
    again = manage(fleet, "run", made, "key-1")
    other = manage(fleet, "run", made, "key-2")
    assert first["id"] == again["id"] != other["id"]
    assert fleet.schedule(made["id"])["execution_count"] == 2
    assert len(fleet.runs(made["id"])) == 2


def test_running_twice_without_a_key_runs_twice_and_overlap_is_judged(
    fleet: Fleet, made: Row
) -> None:
    first, second = manage(fleet, "run", made), manage(fleet, "run", made)
    assert first["status"] == "running"
    assert (second["status"], second["reason"], second["skipped"]) == ("skipped", "overlap", 1)


def test_a_run_by_hand_does_not_take_a_due_instant(fleet: Fleet, made: Row) -> None:
    fleet.run("select fleet.run_schedule(%s, null, %s)", made["id"], NOON)
    fleet.tick(NOON)
    runs = {run["trigger"]: run for run in fleet.runs(made["id"])}
    assert set(runs) == {"manual", "schedule"}
    assert runs["schedule"]["scheduled_for"] == NOON


def test_a_completed_schedule_may_be_run_again_by_hand(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.create(device_ids=[device])
    fleet.finish(device, fleet.claim(device)[0])
    assert manage(fleet, "run", made)["targeted"] == 1
