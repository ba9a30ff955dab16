"""pgfleet db: migrating, comparing and bundling from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgfleet.schema.sources import migration_files, rooms, source_files, sql_folder

Pgfleet = Any


def test_status_then_migrate_then_status(bare: Pgfleet, empty_database: Any) -> None:
    url = empty_database.url()
    names = [file.path.stem for file in migration_files(sql_folder())]

    before = bare("db", "status", "-d", url, "--json")
    migrated = bare("db", "migrate", "-d", url, "--json")
    after = bare("db", "status", "-d", url, "--json")

    assert (before.code, before.data["pending"]) == (1, names)
    assert (migrated.code, migrated.data["applied"]) == (0, names)
    assert (after.code, after.data["up_to_date"]) == (0, True)


def test_printed_sql_is_all_that_is_pending_and_changes_nothing(
    bare: Pgfleet, empty_database: Any
) -> None:
    answer = bare("db", "migrate", "--print", "-d", empty_database.url())

    assert all(file.text.strip() in answer.out for file in migration_files(sql_folder()))
    with psycopg.connect(empty_database.url()) as conn:
        made = conn.execute("select to_regnamespace('fleet'), to_regnamespace('fleet_ledger')")
        assert made.fetchone() == (None, None)


def test_dry_run_lists_the_files(bare: Pgfleet, empty_database: Any) -> None:
    rows = bare("db", "migrate", "--dry-run", "-d", empty_database.url(), "--json").data

    kinds = [row["kind"] for row in rows]
    assert kinds.count("migration") == len(migration_files(sql_folder()))
    assert kinds.count("source") == len(source_files(sql_folder()))


def test_nothing_pending_is_said(pgfleet: Pgfleet) -> None:
    assert "Nothing is pending." in pgfleet("db", "migrate", "--print").err
    assert "up to date" in pgfleet("db", "migrate").err


@pytest.mark.parametrize("verb", ["migrate", "status"])
def test_transaction_pooler_is_refused(bare: Pgfleet, verb: str) -> None:
    answer = bare("db", verb, "-d", "postgresql://postgres@pooler.example.com:6543/postgres")

    assert answer.code == 1
    assert "6543" in answer.err
    assert "Hint: Use the direct connection" in answer.err


def test_bundle_is_written_and_checked(bare: Pgfleet, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"

    missing = bare("db", "bundle", "--check", "--output", str(folder), "--json")
    written = bare("db", "bundle", "--output", str(folder), "--json")
    checked = bare("db", "bundle", "--check", "--output", str(folder))

    assert (missing.code, written.code, checked.code) == (1, 0, 0)
    files = len(migration_files(sql_folder())) + len(rooms(sql_folder()))
    assert len(written.data) == len(missing.data) == files
    assert "Hint: Write it again" in missing.err
