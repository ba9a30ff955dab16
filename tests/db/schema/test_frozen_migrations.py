"""Migrations are frozen: databases have them, so one may be added and none may be changed."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from pgfleet.schema.sources import migration_files, sql_folder

FROZEN = Path(__file__).parent / "frozen_migrations.json"


def faults(frozen: dict[str, str], here: dict[str, str]) -> list[str]:
    """Tell what of that which is frozen is not as it was, and what comes before it."""
    newest = max(frozen)
    gone = [f"{name} is gone" for name in frozen.keys() - here.keys()]
    edited = [f"{n} was edited" for n in frozen.keys() & here.keys() if frozen[n] != here[n]]
    early = [
        f"{name} is dated before {newest}" for name in here.keys() - frozen.keys() if name < newest
    ]
    return sorted(gone + edited + early)


def test_no_migration_was_changed() -> None:
    here = {
        file.path.name: sha256(file.path.read_bytes()).hexdigest()
        for file in migration_files(sql_folder())
        if file.path.suffix == ".sql"
    }
    assert faults(json.loads(FROZEN.read_text()), here) == []


@pytest.mark.parametrize(
    ("here", "told"),
    [
        ({"1_a.sql": "x", "2_b.sql": "y"}, []),
        ({"1_a.sql": "x", "2_b.sql": "y", "3_c.sql": "z"}, []),
        ({"1_a.sql": "x", "2_b.sql": "other"}, ["2_b.sql was edited"]),
        ({"2_b.sql": "y"}, ["1_a.sql is gone"]),
        ({"1_a.sql": "x", "1_z.sql": "z", "2_b.sql": "y"}, ["1_z.sql is dated before 2_b.sql"]),
    ],
)
def test_what_is_changed_is_told(here: dict[str, str], told: list[str]) -> None:
    assert faults({"1_a.sql": "x", "2_b.sql": "y"}, here) == told
