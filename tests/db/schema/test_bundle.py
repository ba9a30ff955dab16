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
    for room in ("10_low", "20_high"):
        (folder / "sources" / room).mkdir(parents=True)
    (folder / "migrations" / "20260101000000_things.sql").write_text("-- Things.\nselect 1;\n")
    (folder / "migrations" / "20260101000000_things.rollback.sql").write_text("select 0;\n")
    (folder / "sources" / "10_low" / "10_one.sql").write_text("select 1;\n")
    (folder / "sources" / "10_low" / "views.sql").write_text("select 2;\n")
    (folder / "sources" / "20_high" / "10_three.sql").write_text("select 3;\n")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


def files_in(folder: Path) -> list[str]:
    """List the files without the digits that tell what is in them."""
    return sorted(without_content(path.name) for path in folder.iterdir())


def without_content(name: str) -> str:
    return re.sub(r"^(\d{14})\d{4}_", r"\1…_", name)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.sql")}


def text_of(folder: Path, name: str) -> str:
    (path,) = (path for path in folder.iterdir() if without_content(path.name) == name)
    return path.read_text()


def edit(source: Path, file: str, text: str) -> None:
    (source / "sources" / file).write_text(text)


def dump(cluster: Cluster, url: str) -> str:
    """Describe the schemas that are ours."""
    if not Path(cluster.binaries.program("pg_dump")).exists():
        pytest.skip("this Postgres comes without pg_dump")
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


def test_files_are_copied_under_their_versions_and_rooms_come_a_second_apart(
    source: Path, target: Path
) -> None:
    write(target, source=source)

    assert files_in(target) == [
        "20260101000000_things.sql",
        "20260101000001…_10_low.sql",
        "20260101000002…_20_high.sql",
    ]
    assert (target / "20260101000000_things.sql").read_text().endswith("-- Things.\nselect 1;\n")
    low = text_of(target, "20260101000001…_10_low.sql")
    assert low.index("select 1;") < low.index("select 2;")
    # What follows from the sources is brought in line once, at the very end.
    assert "after_migrate" not in low
    assert "after_migrate" in text_of(target, "20260101000002…_20_high.sql")
    assert differences(target, source=source) == []
    assert write(target, source=source) == []


def test_edited_source_and_stray_file_are_told(source: Path, target: Path) -> None:
    write(target, source=source)
    edit(source, "10_low/10_one.sql", "select 9;\n")
    (target / "20250101000000_stray.sql").write_text("select 3;\n")

    found = [(without_content(d.name), d.problem) for d in differences(target, source=source)]

    assert sorted(found) == [
        ("20250101000000_stray.sql", "is not generated any more"),
        ("20260101000001…_10_low.sql", "is missing"),
        ("20260101000001…_10_low.sql", "is not generated any more"),
    ]


def test_file_that_was_edited_by_hand_is_told(source: Path, target: Path) -> None:
    write(target, source=source)
    (low,) = target.glob("*_10_low.sql")
    low.write_text("select 'edited';\n")

    assert [(d.name, d.problem) for d in differences(target, source=source)] == [
        (low.name, "differs")
    ]


def test_only_the_room_that_changed_gets_another_version(source: Path, target: Path) -> None:
    write(target, source=source)
    before = texts(target)
    edit(source, "10_low/views.sql", "select 9;\n")

    write(target, source=source)

    gone, come = (
        a.keys() - b.keys() for a, b in ((before, texts(target)), (texts(target), before))
    )
    assert [without_content(name) for name in gone] == ["20260101000001…_10_low.sql"]
    assert [without_content(name) for name in come] == ["20260101000001…_10_low.sql"]


def test_new_table_before_a_release_moves_the_rooms(source: Path, target: Path) -> None:
    write(target, source=source)
    (source / "migrations" / "20260201000000_more.sql").write_text("-- More.\n")

    write(target, source=source)

    assert files_in(target) == [
        *("20260101000000_things.sql", "20260201000000_more.sql"),
        *("20260201000001…_10_low.sql", "20260201000002…_20_high.sql"),
    ]


@pytest.mark.parametrize(
    ("edited", "opened"),
    [
        ("20_high/10_three.sql", ["20260101000003…_20_high.sql"]),
        ("10_low/views.sql", ["20260101000003…_10_low.sql", "20260101000004…_20_high.sql"]),
    ],
)
def test_after_a_release_what_changed_and_what_stands_on_it_is_written_beside_it(
    source: Path, target: Path, edited: str, opened: list[str]
) -> None:
    write(target, source=source, release=True)
    released = texts(target)
    assert write(target, source=source) == []
    edit(source, edited, "select 9;\n")

    write(target, source=source)

    now = texts(target)
    assert {name: now[name] for name in released} == released
    assert sorted(without_content(name) for name in now.keys() - released.keys()) == opened
    assert "select 9;" in text_of(target, opened[0])
    assert "after_migrate" in text_of(target, opened[-1])
    assert FROZEN in files_in(target)
    assert differences(target, source=source) == []


def test_after_a_release_a_new_table_opens_all_rooms(source: Path, target: Path) -> None:
    write(target, source=source, release=True)
    (source / "migrations" / "20260201000000_more.sql").write_text("-- More.\n")

    write(target, source=source)

    assert files_in(target)[3:-1] == [
        *("20260201000000_more.sql", "20260201000001…_10_low.sql", "20260201000002…_20_high.sql")
    ]


def test_second_release_keeps_both(source: Path, target: Path) -> None:
    write(target, source=source, release=True)
    edit(source, "20_high/10_three.sql", "select 9;\n")
    write(target, source=source, release=True)
    released = texts(target)

    assert write(target, source=source) == []
    edit(source, "20_high/10_three.sql", "select 3;\n")
    write(target, source=source)

    # Back to what the first release had, and yet to be applied again.
    (come,) = texts(target).keys() - released.keys()
    assert without_content(come) == "20260101000004…_20_high.sql"


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


def test_released_room_that_was_edited_is_refused(source: Path, target: Path) -> None:
    write(target, source=source, release=True)
    (low,) = target.glob("*_10_low.sql")
    low.write_text("select 'edited';\n")

    with pytest.raises(Conflict, match="missing or changed"):
        write(target, source=source)


def test_bundle_of_a_copy_is_the_same(target: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sql_folder(), copy)
    write(target)

    assert differences(target, source=copy) == []
