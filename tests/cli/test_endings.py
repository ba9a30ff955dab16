"""How the program ends: nobody reads any more, no room is left, somebody waits no longer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pexpect
import psycopg
import pytest

from pgfleet import spoken
from pgfleet.schema.sources import sql_folder

Pgfleet = Any
PROGRAM = [sys.executable, "-m", "pgfleet"]


@pytest.fixture(scope="module", autouse=True)
def busy(fleet: Any) -> None:
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(
            "insert into devices (hostname) select 'pc-' || n from generate_series(1, 9) as n"
        )


def environment(fleet: Any, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PGFLEET_DATABASE_URL": fleet.url(), **more}


def test_a_reader_who_leaves_gets_no_traceback(fleet: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, "device", "list", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(fleet),
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_disk_is_told(fleet: Any) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "device", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(fleet),
        )

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Error: what was found cannot be written: no space left on device",
        "Reason: output_unwritable",
        "Hint: Make room, or write to another place",
    ]


def test_a_folder_that_cannot_be_is_told() -> None:
    done = subprocess.run(
        [*PROGRAM, "stack", "status"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PGFLEET_LOCAL_DATA_DIR": "/dev/null/data"},
    )

    assert done.returncode == 1
    assert done.stderr.startswith("Error: /dev/null")
    assert "Traceback" not in done.stderr


def test_after_ctrl_c_it_is_told_what_goes_on(fleet: Any) -> None:
    words = ["-m", "pgfleet", "command", "send", "pc-1", "lock", "--wait"]
    child = pexpect.spawn(sys.executable, words, env=environment(fleet), dimensions=(24, 80))
    child.expect(r"command (\d+): pending")
    number = child.match[1].decode()
    child.sendintr()
    child.expect(f"No longer waiting; command {number} goes on")
    child.expect(f"pgfleet command cancel {number}")
    child.expect(pexpect.EOF)
    child.close()

    assert child.exitstatus == 130
    with psycopg.connect(fleet.url()) as conn:
        found = conn.execute("select status from device_commands where id = %s", (number,))
        assert found.fetchone() == ("pending",)


@pytest.mark.parametrize(
    "words",
    [
        ("command", "send", "pc-2", "lock", "--wait", "--timeout", "0"),
        ("command", "watch", "1", "--timeout", "0"),
        ("device", "wait", "pc-3", "--timeout", "0"),
    ],
)
def test_waiting_ends_with_the_timeout_and_says_how_to_go_on(
    pgfleet: Pgfleet, words: tuple[str, ...]
) -> None:
    answer = pgfleet(*words)

    assert answer.code == 1
    assert re.search(r"^Error: .*: still .* after 0 s$", answer.err, re.MULTILINE)
    assert "Hint: " in answer.err


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("status", "Devices"),
        ("run list", "Nothing found"),
        ("command list", "pc-1"),
        ("command show 1", "pending"),
    ],
)
def test_looking_on_draws_until_ctrl_c(fleet: Any, words: str, seen: str) -> None:
    arguments = ["-m", "pgfleet", *words.split(), "--watch"]
    child = pexpect.spawn(
        sys.executable, arguments, env=environment(fleet, TERM="xterm"), dimensions=(40, 80)
    )
    child.expect(seen)
    child.expect(seen)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()

    assert child.exitstatus == 130


def test_looking_on_needs_somebody_who_looks(pgfleet: Pgfleet) -> None:
    answer = pgfleet("status", "--watch")

    assert (answer.code, "not_a_terminal" in answer.err) == (1, True)


def test_printed_sql_can_be_pasted_back(fleet: Any, pgfleet: Pgfleet) -> None:
    answer = pgfleet("device", "enroll-code", "--show-sql")

    assert "-- On the device: pgfleet agent enroll" in answer.err
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(answer.err.encode())
    refused = pgfleet("device", "show", "nowhere", "--show-sql").err
    assert all(line.startswith(("select", "--")) for line in refused.splitlines())


HINTS = re.compile(r"'((?:[^']|'')*\b(?:select|insert into) (?:[^']|'')*)'")


def hints() -> set[str]:
    """Find what the database's functions tell people to paste."""
    found = set()
    for file in sql_folder().rglob("sources/*/*.sql"):
        for line in file.read_text().splitlines():
            found.update(
                text.replace("''", "'") for text in HINTS.findall(line) if ": select" in text
            )
    return found


def test_hints_speak_sql_in_sql_and_the_command_line_on_it() -> None:
    assert len(hints()) > 25
    for hint in hints():
        said = spoken.as_said_here(hint.replace("%s", "7").replace("%L", "'x'"))
        assert "pgfleet " in said, hint
        assert not re.search(r"\bselect\b|_list\b|\w\(", said), said


def test_no_hint_of_the_database_speaks_of_the_command_line() -> None:
    spoken_there = {
        (file.name, line.strip())
        for file in sql_folder().rglob("sources/*/*.sql")
        for line in file.read_text().splitlines()
        if re.search(r"hint|'[^']*: pgfleet [a-z]+ [a-z]+", line) and "pgfleet " in line
    }
    # What has no function, and what is said to a device, which has no SQL.
    kept = (
        *("pgfleet db migrate", "pgfleet device enroll-code", "pgfleet blackout import"),
        *("pgfleet stack user create", "pgfleet device rekey"),
    )
    assert [line for _, line in spoken_there if not any(word in line for word in kept)] == []


def test_termination_is_no_traceback(fleet: Any) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "device", "wait", "never"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(fleet),
    )
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.wait()
    process.stderr.close()

    assert process.returncode == 130
    assert "Traceback" not in rest


def test_a_demo_that_is_terminated_leaves_nothing_behind(tmp_path: Path) -> None:
    # Of Postgres, a path that is short enough for its socket.
    with tempfile.TemporaryDirectory(prefix="pgf-", dir="/tmp") as short:
        os.chmod(short, 0o711)
        process = subprocess.Popen(
            [*PROGRAM, "demo", "--devices", "2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": short, "HOME": str(tmp_path)},
        )
        assert process.stderr is not None
        # The second line comes when the platform is up.
        told = [process.stderr.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 143, told
        process.stderr.close()
        assert "Traceback" not in rest
        assert os.listdir(short) == []
