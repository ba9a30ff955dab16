"""Backing up and restoring as the guide says it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pgfleet_local.server.binaries import find_binaries

OPERATE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "operate.md"

# What the guide says of errors: these say that there is something already, or not yet.
HARMLESS = (
    'schema "public" already exists',
    'role "fleet_worker" does not exist',
    # Default privileges of the platform, which the new project has as well.
    'must be member of role "supabase_admin"',
    "permission denied to change default privileges",
)


def documented(program: str, words: str = "") -> str:
    """Give the line of the guide that calls a program."""
    (line,) = [
        line
        for line in OPERATE.read_text().splitlines()
        if line.startswith(f"{program} ") and words in line
    ]
    return line


def dump(url: str) -> bytes:
    """Dump the documented schemas."""
    program = find_binaries().program("pg_dump")
    if not Path(program).exists():
        pytest.skip("this Postgres comes without pg_dump")
    words = documented("pg_dump").split()
    schemas = [words[n + 1] for n, word in enumerate(words) if word == "-n"]
    return subprocess.run(
        [program, *[word for schema in schemas for word in ("-n", schema)], "--dbname", url],
        capture_output=True,
        check=True,
    ).stdout


def restore(dumped: bytes, url: str) -> None:
    """Restore a dump, and do what is to be done before the migrate."""
    psql = find_binaries().program("psql")
    done = subprocess.run([psql, "-q", "--dbname", url], input=dumped, capture_output=True)
    errors = [line for line in done.stderr.decode().splitlines() if "ERROR" in line]
    unknown = [line for line in errors if not any(words in line for words in HARMLESS)]
    assert unknown == [], unknown
    statement = documented("psql", "--command").split('"')[3]
    command = [psql, "-q", "-v", "ON_ERROR_STOP=1", "--dbname", url, "--command", statement]
    subprocess.run(command, check=True, capture_output=True)
