"""The bundle for the Supabase CLI: the same database by another way, and no release changes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgfleet.errors import Conflict
from pgfleet.schema.bundle import FROZEN, bundle_folder, differences, write
from pgfleet.schema.migrate import migrate
from pgfleet.schema.sources import sql_folder
from pgfleet_local.server.cluster import Cluster

# What a dump of our schemas does not tell.
ALSO_THE_SAME = (
    "select name from fleet.time_zones order by 1",
    "select name, value from fleet.settings order by 1",
    "select name, channel, payload_keys from public.command_types order by 1",
    "select pubname, schemaname, tablename from pg_publication_tables order by 1, 2, 3",
    "select schemaname, tablename, policyname, cmd, qual from pg_policies order by 1, 2, 3",
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Give a small SQL folder that a test may change."""
    folder = tmp_path / "db"
    (folder / "migrations").mkdir(parents=True)
    (folder / "sources").mkdir()
    (folder / "migrations" / "20260101000000_things.sql").write_text("-- Things.\nselect 1;\n")
    (folder / "migrations" / "20260101000000_things.rollback.sql").write_text("select 0;\n")
    (folder / "sources" / "one.sql").write_text("select 1;\n")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dump(cluster: Cluster, url: str) -> str:
    """Describe the schemas that are ours."""
    done = subprocess.run(
        [
            *(cluster.binaries.program("pg_dump"), "--schema-only", "--dbname", url),
            *("--schema=public", "--schema=fleet"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    # Newer releases guard the script by a random word.
    # The login of the functions is the cluster's, and may come while the tests run.
    return re.sub(r"(?m)^(\\(un)?restrict .*|(GRANT|REVOKE) .* fleet_worker;)$\n?", "", done.stdout)


def rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as conn:
        return conn.execute(query.encode()).fetchall()


def test_committed_bundle_is_up_to_date() -> None:
    assert differences(bundle_folder()) == []


def test_bundle_builds_the_same_database_as_migrate(
    cluster: Cluster, empty_database: Any, own_database: Any, target: Path
) -> None:
    write(target)
    with psycopg.connect(empty_database.url(), autocommit=True) as conn:
        for path in sorted(target.glob("*.sql")):
            # As the Supabase CLI does it: settings of the file before are gone, and the whole
            # file is one transaction.
            conn.execute("reset all")
            conn.execute(path.read_bytes())

    bundled = dump(cluster, empty_database.url("supabase_admin"))
    migrated = dump(cluster, own_database.url("supabase_admin"))
    assert bundled.splitlines() == migrated.splitlines()
    for query in ALSO_THE_SAME:
        assert rows(empty_database.url(), query) == rows(own_database.url(), query)


def test_database_from_the_bundle_is_taken_over_by_migrate(
    empty_database: Any, target: Path
) -> None:
    url = empty_database.url()
    write(target)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create schema supabase_migrations")
        conn.execute(
            "create table supabase_migrations.schema_migrations "
            "(version text primary key, statements text[], name text)"
        )
        for path in sorted(target.glob("*.sql")):
            conn.execute("reset all")
            conn.execute(path.read_bytes())
            conn.execute(
                "insert into supabase_migrations.schema_migrations (version) values (%s)",
                (path.name[:14],),
            )

    report = migrate(url)

    assert report.applied == []
    assert len(report.marked) == len(list((sql_folder() / "migrations").glob("2*.sql")))
    assert report.leftovers == []


def test_files_are_copied_under_their_versions_and_sources_come_a_second_later(
    source: Path, target: Path
) -> None:
    write(target, source=source)

    assert files_in(target) == ["20260101000000_things.sql", "20260101000001_sources.sql"]
    assert (target / "20260101000000_things.sql").read_text().endswith("-- Things.\nselect 1;\n")
    assert differences(target, source=source) == []
    assert write(target, source=source) == []


def test_edited_source_and_stray_file_are_told(source: Path, target: Path) -> None:
    write(target, source=source)
    (source / "sources" / "one.sql").write_text("select 2;\n")
    (target / "20250101000000_stray.sql").write_text("select 3;\n")

    found = {
        difference.name: difference.problem for difference in differences(target, source=source)
    }

    assert found == {
        "20250101000000_stray.sql": "is not generated any more",
        "20260101000001_sources.sql": "differs",
    }


def test_new_table_before_a_release_moves_the_snapshot(source: Path, target: Path) -> None:
    write(target, source=source)
    (source / "migrations" / "20260201000000_more.sql").write_text("-- More.\n")

    write(target, source=source)

    assert files_in(target) == [
        *("20260101000000_things.sql", "20260201000000_more.sql", "20260201000001_sources.sql")
    ]


def test_after_a_release_the_next_edit_opens_a_new_snapshot(source: Path, target: Path) -> None:
    write(target, source=source, release=True)
    released = (target / "20260101000001_sources.sql").read_bytes()
    assert write(target, source=source) == []
    (source / "sources" / "one.sql").write_text("select 2;\n")

    write(target, source=source)

    assert (target / "20260101000001_sources.sql").read_bytes() == released
    assert "select 2;" in (target / "20260101000002_sources.sql").read_text()
    assert FROZEN in files_in(target)
    assert differences(target, source=source) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("20260101000000_things.sql", "released_migration_changed"),
        ("20251231000000_late.sql", "migration_too_old"),
    ],
)
def test_released_tables_do_not_change(source: Path, target: Path, name: str, reason: str) -> None:
    write(target, source=source, release=True)
    (source / "migrations" / name).write_text("-- Other.\nselect 9;\n")

    with pytest.raises(Conflict) as caught:
        differences(target, source=source)

    assert caught.value.reason == reason


def test_released_migration_that_is_gone_is_missed(source: Path, target: Path) -> None:
    write(target, source=source, release=True)
    (source / "migrations" / "20260101000000_things.sql").unlink()

    with pytest.raises(Conflict, match="is gone"):
        write(target, source=source)


def test_released_snapshot_that_was_edited_is_refused(source: Path, target: Path) -> None:
    write(target, source=source, release=True)
    (target / "20260101000001_sources.sql").write_text("select 'edited';\n")

    with pytest.raises(Conflict, match="missing or changed"):
        write(target, source=source)


def test_bundle_of_a_copy_is_the_same(target: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sql_folder(), copy)
    write(target)

    assert differences(target, source=copy) == []
