"""Long lists, keys that are to be copied, and windows that show no signs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pexpect
import psycopg
import pytest

PROGRAM = ["-m", "pgfleet"]


@pytest.fixture(scope="module", autouse=True)
def many(fleet: Any) -> None:
    with psycopg.connect(fleet.url()) as conn:
        conn.execute(
            """
            insert into devices (hostname)
            select 'pc-' || to_char(n, 'FM000') from generate_series(1, 60) as n
            """
        )


def shown(fleet: Any, *words: str, columns: int = 80, **environment: str) -> str:
    """Give what a command shows in a window of 24 lines."""
    known = {"PATH": os.environ["PATH"], "TERM": "xterm", "PGFLEET_DATABASE_URL": fleet.url()}
    child = pexpect.spawn(
        sys.executable,
        [*PROGRAM, *words],
        env={**known, **environment},
        dimensions=(24, columns),
        encoding="utf-8",
    )
    child.expect(pexpect.EOF)
    return str(child.before)


def test_a_long_list_goes_through_the_pager_of_the_person(fleet: Any, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nexec sed 's/^/| /'\n")
    pager.chmod(0o755)

    long = shown(fleet, "device", "list", PAGER=str(pager), NO_COLOR="1")
    short = shown(fleet, "device", "list", "--limit", "5", PAGER=str(pager), NO_COLOR="1")

    assert long.count("\n| ") >= 60
    assert "| " not in short
    assert "| " not in shown(fleet, "device", "list", PAGER=str(pager), PGFLEET_PAGER="cat")


def test_a_pager_that_is_not_there_or_has_enough_is_no_trouble(fleet: Any) -> None:
    assert "pc-060" in shown(fleet, "device", "list", PAGER="/no/such/pager")
    assert "Traceback" not in shown(fleet, "device", "list", PAGER="head -2")


def test_a_key_is_shown_in_one_piece_in_a_narrow_window(fleet: Any) -> None:
    said = shown(fleet, "webhook", "create", "https://hooks.example.com/a", columns=40)

    (secret,) = [line for line in said.splitlines() if "whsec_" in line]
    assert len(secret.split()[-1]) > 40


def test_where_signs_cannot_be_shown_there_are_plain_ones(fleet: Any) -> None:
    said = shown(
        fleet,
        *("device", "list", "--limit", "3"),
        PYTHONIOENCODING="ascii:replace",
        NO_COLOR="1",
    )

    assert "* active" in said
    assert "?" not in said
