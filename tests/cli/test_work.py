"""Schedules, runs and commands from the command line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

Pgfleet = Any
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def device(fleet: Any) -> str:
    """Give the name of a device that commands may go to."""
    with psycopg.connect(fleet.url()) as conn:
        conn.execute("insert into public.devices (hostname) values ('lab-01')")
        conn.execute(
            """
            insert into public.command_types (name, payload_keys)
            values ('beep', '{"times": {"type": "number", "required": true}}')
            """
        )
    return "lab-01"


@pytest.fixture
def command(pgfleet: Pgfleet, device: str) -> int:
    """Give a command that waits."""
    row = pgfleet("command", "send", device, "beep", "--payload", '{"times": 1}', "--json").data
    return int(row["id"])


@pytest.fixture
def schedule(pgfleet: Pgfleet, device: str) -> str:
    """Give the name of a schedule far ahead."""
    name = f"nightly {next(numbers)}"
    answer = pgfleet(
        *("schedule", "create", name, "--action", "beep", "--payload", '{"times": 2}'),
        *("--device", device, "--daily", "02:30", "--timezone", "Europe/Berlin"),
        *("--start", "2040-01-01T00:00:00"),
    )
    assert answer.code == 0, answer.err
    return name


def finish(fleet: Any, command_id: int, status: str) -> None:
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(
            "update public.device_commands set status = %s where id = %s", (status, command_id)
        )


def test_command_is_sent_shown_and_listed(pgfleet: Pgfleet, command: int, device: str) -> None:
    shown = pgfleet("command", "show", str(command), "--json").data
    listed = pgfleet("command", "list", "--device", device, "--status", "pending", "--json").data

    assert (shown["command_type"], shown["payload"]) == ("beep", {"times": 1})
    assert command in [row["id"] for row in listed]


def test_same_key_makes_one_command(pgfleet: Pgfleet, device: str) -> None:
    words = ("command", "send", device, "beep", "--payload", '{"times": 3}', "--key", "once")

    first = pgfleet(*words, "--json").data
    second = pgfleet(*words, "--json").data

    assert first["id"] == second["id"]


def test_payload_comes_from_a_file_or_stdin(pgfleet: Pgfleet, device: str, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{"times": 4}')

    by_file = pgfleet("command", "send", device, "beep", "--payload", f"@{file}")
    by_stdin = pgfleet("command", "send", device, "beep", "--payload", "-", stdin='{"times": 5}')

    assert (by_file.code, by_stdin.code) == (0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("beep", "--payload", "{}"), "times"),
        (("bep", "--payload", "{}"), "bep"),
        (("beep", "--payload", '{"times": "x"}'), "times"),
        (("beep", "--payload", '{"times": 1}', "--priority", "1000"), "priority"),
    ],
)
def test_wrong_command_is_refused_by_field(
    pgfleet: Pgfleet, device: str, words: tuple[str, ...], said: str
) -> None:
    answer = pgfleet("command", "send", device, *words)

    assert answer.code == 1
    assert answer.err.startswith("Error: ")
    assert said in answer.err


def test_command_is_cancelled_only_with_yes(pgfleet: Pgfleet, command: int) -> None:
    assert pgfleet("command", "cancel", str(command), "--dry-run").code == 0
    assert pgfleet("command", "cancel", str(command)).code == 1
    done = pgfleet("command", "cancel", str(command), "--reason", "mistake", "--yes", "--json").data

    assert (done["status"], done["reason"]) == ("cancelled", "mistake")


def test_finished_command_cannot_be_cancelled(pgfleet: Pgfleet, fleet: Any, command: int) -> None:
    finish(fleet, command, "completed")

    answer = pgfleet("command", "cancel", str(command), "--yes")

    assert answer.code == 1
    assert "Reason: command_final" in answer.err
    assert "Hint:" in answer.err


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1)])
def test_watch_ends_as_the_command_did(
    pgfleet: Pgfleet, fleet: Any, command: int, status: str, code: int
) -> None:
    finish(fleet, command, status)

    answer = pgfleet("command", "watch", str(command), "--json")

    assert answer.code == code
    assert answer.data["status"] == status


def test_unknown_command_is_told(pgfleet: Pgfleet, device: str) -> None:
    answer = pgfleet("command", "show", "999999")

    assert answer.code == 1
    assert "command_not_found" in answer.err


def test_types_are_listed_with_what_they_need(pgfleet: Pgfleet, device: str) -> None:
    rows = {row["name"]: row for row in pgfleet("command", "types", "--json").data}

    assert rows["beep"]["payload_keys"] == {"times": {"type": "number", "required": True}}


def test_schedule_is_shown_with_its_policies(pgfleet: Pgfleet, schedule: str) -> None:
    shown = pgfleet("schedule", "show", schedule, "--json").data
    listed = pgfleet("schedule", "list", "--search", schedule, "--json").data

    assert shown["policies"]["overlap"] == "skip"
    assert shown["recurrence_type"] == "daily"
    assert [row["id"] for row in listed] == [shown["id"]]


def test_upcoming_instants_are_local_times(pgfleet: Pgfleet, schedule: str) -> None:
    rows = pgfleet("schedule", "upcoming", schedule, "--count", "90", "--json").data

    assert len(rows) == 90
    assert rows[0]["local_time"] == "Sun 2040-01-01 02:30"
    moved = [row for row in rows if row["dst_note"]]
    assert [row["local_time"] for row in moved] == ["Sun 2040-03-25 03:00"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("--at", "2040-05-01T08:00:00"), "once"),
        (("--every", "15 minutes"), "interval"),
        (("--weekly", "mon,thu", "--time", "08:00"), "weekly"),
        (("--monthly", "last", "--time", "08:00"), "monthly"),
        (("--monthly", "15", "--time", "08:00"), "monthly"),
        (("--cron", "0 8 * * 1-5"), "cron"),
    ],
)
def test_short_options_mean_a_recurrence(
    pgfleet: Pgfleet, device: str, words: tuple[str, ...], kind: str
) -> None:
    answer = pgfleet(
        *("schedule", "create", f"short {kind}", "--action", "beep", "--device", device),
        *("--payload", '{"times": 1}', "--start", "2040-01-01T00:00:00Z", *words, "--json"),
    )

    assert answer.code == 0, answer.err
    assert answer.data["recurrence_type"] == kind
    assert answer.data["next_run_at"].startswith("2040-")


def test_schedule_comes_from_json_and_an_option_says_more(
    pgfleet: Pgfleet, device: str, tmp_path: Path
) -> None:
    spec = {
        "task_name": "From a file",
        "action_type": "beep",
        "payload": {"times": 1},
        "scheduled_time": "2040-01-01T08:00:00",
        "recurrence_type": "once",
    }
    file = tmp_path / "schedule.json"
    file.write_text(json.dumps(spec))

    by_file = pgfleet("schedule", "create", "-f", str(file), "--device", device, "--json").data
    by_stdin = pgfleet(
        *("schedule", "create", "Renamed", "--file", "-", "--device", device, "--json"),
        stdin=json.dumps({key: value for key, value in spec.items() if key != "task_name"}),
    ).data

    assert by_file["name"] == "From a file"
    assert by_stdin["name"] == "Renamed"


def test_every_wrong_field_of_a_schedule_is_named_at_once(pgfleet: Pgfleet, device: str) -> None:
    answer = pgfleet(
        *("schedule", "create", "wrong", "--action", "beep", "--device", device),
        *("--payload", '{"times": 1}', "--cron", "61 * * * *", "--timezone", "Mars/Olympus"),
        *("--policies", '{"overlap": "never"}'),
    )

    assert answer.code == 1
    for field in ("recurrence_config.cron_expression", "timezone", "policies.overlap"):
        assert field in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--daily", "02:30", "--cron", "* * * * *"), "--daily and --cron"),
        (("--daily", "02:30", "--time", "02:30"), "--time"),
        (("--file", "/no/such/file"), "--file"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    pgfleet: Pgfleet, words: tuple[str, ...], said: str
) -> None:
    answer = pgfleet("schedule", "create", "mixed", *words)

    assert answer.code == 1
    assert said in answer.err


def test_warning_is_talk_and_not_data(pgfleet: Pgfleet, device: str) -> None:
    answer = pgfleet(
        *("schedule", "create", "too late", "--action", "beep", "--device", device),
        *("--payload", '{"times": 1}', "--at", "2020-01-01T08:00:00Z", "--json"),
    )

    assert answer.code == 0
    assert answer.data["id"]
    assert "Warning: " in answer.err


def test_schedule_rests_and_goes_on(pgfleet: Pgfleet, schedule: str) -> None:
    paused = pgfleet("schedule", "pause", schedule, "--reason", "holidays", "--json").data
    resumed = pgfleet("schedule", "resume", schedule, "--json").data

    assert (paused["status"], paused["status_reason"]) == ("paused", "holidays")
    assert resumed["status"] == "active"


def test_schedule_is_cancelled_only_with_yes(pgfleet: Pgfleet, schedule: str) -> None:
    assert pgfleet("schedule", "cancel", schedule, "--dry-run").code == 0
    assert pgfleet("schedule", "cancel", schedule).code == 1
    done = pgfleet("schedule", "cancel", schedule, "--yes", "--json").data

    assert done["status"] == "cancelled"
    assert pgfleet("schedule", "resume", schedule).code == 1


def test_run_by_hand_is_in_the_ledger_and_can_be_watched(
    pgfleet: Pgfleet, fleet: Any, schedule: str
) -> None:
    run = pgfleet("schedule", "run", schedule, "--key", "now", "--json").data
    again = pgfleet("schedule", "run", schedule, "--key", "now", "--json").data
    assert run["id"] == again["id"]

    with psycopg.connect(fleet.url(), autocommit=True) as conn:
        conn.execute("select fleet.tick()")
    commands = pgfleet("command", "list", "--run", str(run["id"]), "--json").data
    finish(fleet, commands[0]["id"], "completed")
    with psycopg.connect(fleet.url(), autocommit=True) as conn:
        conn.execute("select fleet.tick()")

    watched = pgfleet("run", "watch", str(run["id"]), "--json")
    listed = pgfleet("run", "list", "--schedule", schedule, "--json").data

    assert watched.code == 0, watched.data
    assert watched.data["completed"] == 1
    assert [row["trigger"] for row in listed] == ["manual"]
    assert pgfleet("run", "show", str(run["id"])).code == 0


def test_status_counts_the_fleet(pgfleet: Pgfleet, device: str) -> None:
    assert pgfleet("status", "--json").data["devices"]["active"] >= 1
    assert "devices.active\t" in pgfleet("status").out


def test_a_command_goes_to_each_device_that_is_selected(pgfleet: Pgfleet, device: str) -> None:
    words = ("command", "send", "beep", "--selector", "{}", "--payload", '{"times": 2}')

    tried = pgfleet(*words, "--dry-run")
    first = pgfleet(*words, "--key", "to-all", "--json").data
    again = pgfleet(*words, "--key", "to-all", "--json").data

    assert tried.code == 0
    assert first["count"] >= 1
    assert first == again
    assert pgfleet(*words, "--wait").code == 1
    assert pgfleet("command", "send", device).code == 1
