"""pgfleet stack: up in the background, found by other commands, and down again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

Pgfleet = Any
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def program(fast_folder: Path, free_port: Callable[[], int]) -> Iterator[Program]:
    """Give a function that runs the program with a local stack of its own, down at the end."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PGFLEET_")},
        "PGFLEET_LOCAL_DATA_DIR": str(fast_folder / "stack"),
        "PGFLEET_LOCAL_API_PORT": str(free_port()),
        "PGFLEET_LOCAL_DB_PORT": str(free_port()),
        "PGFLEET_LOCAL_DURABLE": "off",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pgfleet", *words],
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    yield run
    run("stack", "down")


def test_stack_goes_up_is_found_and_goes_down(program: Program) -> None:
    up = program("stack", "up", "--background", "--json")
    assert up.returncode == 0, up.stderr
    address = json.loads(up.stdout)["API_URL"]

    assert httpx.get(f"{address}/functions/v1/health", trust_env=False).status_code in (200, 503)
    assert program("stack", "status").returncode == 0
    listed = program("device", "list", "--json")
    assert (listed.returncode, listed.stdout) == (0, "[]\n"), listed.stderr
    assert program("db", "status").returncode == 0

    shown = program("stack", "env")
    told = subprocess.run(
        [
            "sh",
            "-c",
            'eval "$1" && echo "$PGFLEET_URL $API_URL $PGFLEET_DATABASE_URL"',
            "-",
            shown.stdout,
        ],
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == [address, address, json.loads(up.stdout)["DB_URL"]]

    again = program("stack", "up", "--background")
    assert (again.returncode, again.stderr) == (0, "It is running already.\n")
    second = program("stack", "up")
    assert second.returncode == 1
    assert second.stderr.startswith("Error: a local platform is running already")

    assert program("stack", "down").stderr == "Stopped.\n"
    assert program("stack", "status").returncode == 1
    assert (program("stack", "env").returncode, program("stack", "env").stdout) == (1, "")
    assert program("stack", "down").stderr == "Nothing was running.\n"
    assert "pgfleet stack up" in program("device", "list").stderr


def test_wrong_setting_is_named(bare: Pgfleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGFLEET_LOCAL_DB_PORT", "many")

    answer = bare("stack", "status")

    assert answer.code == 1
    assert "PGFLEET_LOCAL_DB_PORT" in answer.err
