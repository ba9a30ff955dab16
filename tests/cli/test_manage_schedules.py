"""Schedules changed, filtered, exported and applied from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

Pgfleet = Any


@pytest.fixture
def lab(pgfleet: Pgfleet, fleet: Any) -> str:
    """Give a device name and leave no schedule of other tests."""
    with psycopg.connect(fleet.url()) as conn:
        conn.execute("delete from public.schedules")
        conn.execute("delete from public.schedule_templates")
        conn.execute("delete from public.blackout_calendars")
        conn.execute(
            "insert into public.devices (hostname) values ('lab-01') on conflict do nothing"
        )
    return "lab-01"


def create(pgfleet: Pgfleet, name: str, *words: str) -> int:
    answer = pgfleet(
        *("schedule", "create", name, "--action", "lock", "--device", "lab-01"),
        *("--daily", "02:30", "--start", "2040-01-01T00:00:00", "--json", *words),
    )
    assert answer.code == 0, answer.err
    return int(answer.data["id"])


def test_a_schedule_is_updated_by_options(pgfleet: Pgfleet, lab: str) -> None:
    create(pgfleet, "nightly", "--end", "2041-01-01T00:00:00")
    answer = pgfleet(
        *("schedule", "update", "nightly", "--name", "later", "--daily", "04:00"),
        *("--clear", "end_time", "--json"),
    )
    assert answer.code == 0, answer.err
    assert answer.data["next_run_at"].startswith("2040-01-01T04:00")
    assert (answer.data["name"], answer.data["end_time"]) == ("later", None)


def test_every_wrong_option_of_an_update_is_named(pgfleet: Pgfleet, lab: str) -> None:
    create(pgfleet, "nightly")
    answer = pgfleet("schedule", "update", "nightly", "--timezone", "Berlin", "--priority", "999")
    assert answer.code == 1
    assert "timezone" in answer.err
    assert "priority" in answer.err


def test_a_copy_waits_to_be_resumed(pgfleet: Pgfleet, lab: str) -> None:
    create(pgfleet, "nightly")
    copy = pgfleet("schedule", "duplicate", "nightly", "--json").data
    live = pgfleet("schedule", "duplicate", "nightly", "--active", "--name", "live", "--json").data
    assert (copy["name"], copy["status"]) == ("nightly (copy)", "paused")
    assert (live["name"], live["status"]) == ("live", "active")


def test_delete_says_what_goes_and_wants_yes(pgfleet: Pgfleet, lab: str) -> None:
    create(pgfleet, "nightly")
    tried = pgfleet("schedule", "delete", "nightly", "--dry-run")
    assert tried.err == "Dry run: nothing was changed. It would touch 1 device.\n"
    assert pgfleet("schedule", "delete", "nightly").code == 1
    assert pgfleet("schedule", "delete", "nightly", "--yes").code == 0
    assert pgfleet("schedule", "show", "nightly").code == 1


def test_bulk_counts_first_and_does_it_with_yes(pgfleet: Pgfleet, lab: str) -> None:
    for name in ("lab a", "lab b", "office"):
        create(pgfleet, name)
    words = ("schedule", "bulk", "pause", "--where", "status=active", "--where", "name=%lab%")
    counted = pgfleet(*words, "--dry-run")
    assert "2 schedules found" in counted.err
    refused = pgfleet(*words)
    assert (refused.code, "not_confirmed" in refused.err) == (1, True)
    done = pgfleet(*words, "--yes", "--reason", "holidays")
    assert done.code == 0, done.err
    assert "pause: 2 schedules" in done.err
    paused = pgfleet("schedule", "list", "--status", "paused", "--json").data
    assert [row["status_reason"] for row in paused] == ["holidays", "holidays"]
    found = pgfleet("schedule", "bulk", "run", "--where", f"device={lab}", "--dry-run", "--json")
    assert len(found.data) == 3
    ids = ",".join(str(row["id"]) for row in found.data[:2])
    found = pgfleet("schedule", "bulk", "delete", "--where", f"id={ids}", "--dry-run", "--json")
    assert len(found.data) == 2


@pytest.mark.parametrize("where", ["status", "nmae=x", "status=done", "id=a", "device=nowhere"])
def test_a_wrong_filter_is_told(pgfleet: Pgfleet, lab: str, where: str) -> None:
    answer = pgfleet("schedule", "bulk", "pause", "--where", where, "--dry-run")
    assert answer.code == 1
    assert answer.err.startswith("Error: ")


def test_a_document_goes_out_and_in_again(pgfleet: Pgfleet, lab: str, tmp_path: Path) -> None:
    pgfleet("blackout", "create", "holidays", "--day", "2040-12-21..2041-01-03=Winter")
    create(pgfleet, "nightly", "--policies", '{"blackouts": ["holidays"]}')
    first = create(pgfleet, "chained", "--priority", "3")
    pgfleet("schedule", "update", str(first), "--after", "nightly", "--after-on", "failed")

    for form in ("yaml", "json"):
        file = tmp_path / f"schedules.{form}"
        assert pgfleet("schedule", "export", "-o", str(file)).code == 0
        plan = pgfleet("schedule", "apply", str(file), "--dry-run")
        assert plan.code == 0, plan.err
        assert "0 to create, 0 to change, 0 to remove, 3 unchanged" in plan.err
    text = pgfleet("schedule", "export").out
    assert text.index("name: chained") < text.index("recurrence_type")
    assert 'after:\n    schedule: nightly\n    "on": failed' in text
    assert json.loads(pgfleet("schedule", "export", "--format", "json").out)["version"] == 1


ODD = [
    "12e4",
    "3e2",
    "1_000",
    "0x1F",
    "no",
    "22:30",
    "~",
    "2026-12-25",
    "null",
    "🎒 bag",
    "a: b",
    "é",
]


def test_odd_names_tags_and_numbers_change_nothing_on_the_way(
    pgfleet: Pgfleet, lab: str, tmp_path: Path
) -> None:
    payload = {
        "message": "1e5", "list": ODD, "1e5": True, "text": "word " * 200, "lines": "a\n  b: #c\n",
    }  # fmt: skip
    # More digits than a float holds.
    numbers = '{"big": 12345678901234567890.123, "small": 0.1, "whole": 1e5, "zero": 1.10'
    text = numbers + ", " + json.dumps(payload)[1:]
    for name in ODD:
        made = pgfleet(
            "schedule", "create", name, "--action", "broadcast_message", "--payload", text,
            "--device", lab, "--daily", "02:30", "--start", "2040-01-01T00:00:00",
        )  # fmt: skip
        assert made.code == 0, made.err
        pgfleet("group", "create", f"group {name}", "--selector", json.dumps({"tags": [name]}))

    for form in ("yaml", "json"):
        file = tmp_path / f"odd.{form}"
        assert pgfleet("schedule", "export", "-o", str(file)).code == 0
        assert "12345678901234567890.123" in file.read_text(encoding="utf-8")
        plan = pgfleet("schedule", "apply", str(file), "--dry-run")
        assert plan.code == 0, plan.err
        assert "0 to create, 0 to change, 0 to remove" in plan.err


def test_a_key_that_stands_twice_is_refused(pgfleet: Pgfleet, lab: str) -> None:
    for text in ("version: 1\nschedules: []\nschedules: []\n", '{"version": 1, "version": 1}'):
        answer = pgfleet("schedule", "apply", "-", "--yes", stdin=text)
        assert answer.code == 1
        assert "neither YAML nor JSON" in answer.err


def test_a_group_in_use_is_deleted_only_with_its_consequence(pgfleet: Pgfleet, lab: str) -> None:
    pgfleet("group", "create", "room", "--device", lab)
    pgfleet("schedule", "create", "bell", "--action", "lock", "--group", "room", "--every", "1 day",
            "--start", "2040-01-01T00:00:00")  # fmt: skip
    refused = pgfleet("group", "delete", "room", "--yes")
    assert refused.code == 1
    assert 'group "room" is used by "bell"' in refused.err
    assert "--cascade" in refused.err
    done = pgfleet("group", "delete", "room", "--cascade", "--yes")
    assert done.code == 0, done.err
    assert "Paused: bell." in done.err
    (row,) = pgfleet("schedule", "list", "--status", "paused", "--json").data
    assert row["status_reason"] == 'group "room" was deleted'


def test_a_document_by_hand_is_planned_then_applied(pgfleet: Pgfleet, lab: str) -> None:
    document = """
version: 1
blackout_calendars:
  - name: holidays
    periods:
      - starts_on: 2040-12-21
        ends_on: 2041-01-04
schedules:
  - name: lunch
    action_type: lock
    recurrence_type: daily
    recurrence_config: {time: 12:30}
    start_time: 2040-01-01T00:00:00
    devices: [lab-01]
    policies: {blackouts: [holidays]}
  - name: then
    action_type: unlock
    selector: {}
    after: {schedule: lunch, on: failed}
"""
    create(pgfleet, "old")
    words = ("schedule", "apply", "-", "--prune")
    plan = pgfleet(*words, "--dry-run", "--json", stdin=document)
    assert plan.code == 0, plan.err
    assert [(row["do"], row["name"]) for row in plan.data] == [
        ("create", "holidays"),
        ("create", "lunch"),
        ("create", "then"),
        ("remove", "old"),
    ]
    assert pgfleet(*words, stdin=document).code == 1
    assert pgfleet(*words, "--yes", stdin=document).code == 0
    shown = pgfleet("schedule", "show", "lunch", "--json").data
    assert shown["recurrence_config"] == {"time": "12:30"}
    changed = document.replace("12:30", "13:30")
    lines = pgfleet(*words, "--dry-run", stdin=changed).out
    assert 'recurrence_config: {"time": "12:30"} → {"time": "13:30"}' in lines
    again = pgfleet(*words, "--yes", stdin=document)
    assert (again.code, "3 unchanged" in again.err) == (0, True)


def test_what_is_no_document_is_refused(pgfleet: Pgfleet, lab: str) -> None:
    for text in ("a: [", "- 1", "version: 3"):
        answer = pgfleet("schedule", "apply", "-", "--yes", stdin=text)
        assert answer.code == 1
        assert "document_invalid" in answer.err


def test_history_and_stats_are_shown(pgfleet: Pgfleet, lab: str) -> None:
    create(pgfleet, "nightly")
    pgfleet("schedule", "run", "nightly")
    rows = pgfleet("schedule", "history", "nightly", "--json").data
    assert [row["trigger"] for row in rows] == ["manual"]
    stats = pgfleet("schedule", "stats", "--json").data
    assert stats["total"] == 1
    assert stats["executions"]["total"] == 1
