"""Migrating: what is applied, what is left alone, and what a failure leaves behind."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgfleet.errors import FleetError, InvalidInput, MigrationFailed, NotMigrated
from pgfleet.schema import applied
from pgfleet.schema.migrate import LOCK, migrate, pending, status
from pgfleet.schema.sources import digest_of, migration_files, source_files, sql_folder

FUNCTION = """
create or replace function fleet.answer({arguments}) returns integer
language sql immutable return {value};
"""

START_OF_WAIT = "select max(waitstart) from pg_locks where not granted and relation is not null"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a small SQL folder that a test may change."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "sources" / "10_things").mkdir(parents=True)
    (tmp_path / "migrations" / "20260101000000_things.sql").write_text(
        "-- Things.\ncreate schema fleet;\ncreate table public.things (id bigint primary key);\n"
    )
    write_function(tmp_path, 1)
    return tmp_path


def write_function(folder: Path, value: int, arguments: str = "") -> None:
    text = FUNCTION.format(arguments=arguments, value=value)
    (folder / "sources" / "10_things" / "answer.sql").write_text(text)


def value_of(url: str, query: str) -> Any:
    with psycopg.connect(url) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_empty_database_gets_all_and_a_second_run_finds_nothing(empty_database: Any) -> None:
    url = empty_database.url()

    first = migrate(url)
    second = migrate(url)

    assert first.applied == [file.path.stem for file in migration_files(sql_folder())]
    assert first.sources_applied == len(source_files(sql_folder()))
    assert first.leftovers == []
    assert not second.changed
    assert second.leftovers == []
    assert not status(url).pending


def test_nothing_of_ours_lies_in_public_but_what_sources_and_migrations_make(
    empty_database: Any,
) -> None:
    migrate(empty_database.url())

    assert (
        value_of(
            empty_database.url(),
            "select count(*) from pg_tables where schemaname = 'public' and tablename ~ 'yoyo'",
        )
        == 0
    )


def test_edited_source_is_applied_again(empty_database: Any, folder: Path) -> None:
    url = empty_database.url()
    migrate(url, folder=folder)
    write_function(folder, 2)

    report = migrate(url, folder=folder)

    assert report.applied == []
    assert report.sources_applied == 1
    assert value_of(url, "select fleet.answer()") == 2


def test_new_argument_leaves_the_old_function_over(empty_database: Any, folder: Path) -> None:
    url = empty_database.url()
    migrate(url, folder=folder)
    write_function(folder, 2, "p_question text")

    assert migrate(url, folder=folder).leftovers == ["fleet.answer()"]
    assert migrate(url, folder=folder).leftovers == ["fleet.answer()"]
    assert status(url, folder=folder).leftovers == ["fleet.answer()"]


def test_function_of_the_project_itself_is_no_leftover(empty_database: Any, folder: Path) -> None:
    url = empty_database.url()
    with psycopg.connect(url) as conn:
        conn.execute("create function public.theirs() returns int return 1")

    assert migrate(url, folder=folder).leftovers == []


def test_failing_source_names_file_and_line_and_leaves_nothing(
    empty_database: Any, folder: Path
) -> None:
    url = empty_database.url()
    migrate(url, folder=folder)
    write_function(folder, 2)
    (folder / "sources" / "10_things" / "broken.sql").write_text("select 1;\n\nselct 2;\n")

    with pytest.raises(
        MigrationFailed, match=r"sources/10_things/broken\.sql line 3: syntax error"
    ):
        migrate(url, folder=folder)

    assert value_of(url, "select fleet.answer()") == 1
    assert len(status(url, folder=folder).pending.sources) == 2


def test_failing_migration_is_undone_and_what_came_before_stays(
    empty_database: Any, folder: Path
) -> None:
    url = empty_database.url()
    (folder / "migrations" / "20260101000001_more.sql").write_text(
        "-- More.\ncreate table public.more (id bigint);\nselect 1 / 0;\n"
    )

    with pytest.raises(MigrationFailed, match=r"migrations/20260101000001_more\.sql: division"):
        migrate(url, folder=folder)

    assert value_of(url, "select to_regclass('public.things') is not null")
    assert value_of(url, "select to_regclass('public.more') is null")
    waiting = [file.path.stem for file in pending(url, folder=folder).migrations]
    assert waiting == ["20260101000001_more"]


def test_edited_migration_is_told_and_named_where_sources_then_fail(
    empty_database: Any, folder: Path
) -> None:
    url = empty_database.url()
    migrate(url, folder=folder)
    table = folder / "migrations" / "20260101000000_things.sql"
    table.write_text(table.read_text() + "alter table public.things add colour text;\n")

    assert migrate(url, folder=folder).edited == ["20260101000000_things"]
    assert status(url, folder=folder).edited == ["20260101000000_things"]

    (folder / "sources" / "10_things" / "colour.sql").write_text(
        "create view public.colours as select colour from public.things;"
    )
    with pytest.raises(MigrationFailed) as caught:
        migrate(url, folder=folder)
    assert "20260101000000_things was edited" in (caught.value.hint or "")


def test_migration_that_was_mended_says_which_content_it_stands_for(
    empty_database: Any, folder: Path
) -> None:
    url = empty_database.url()
    table = folder / "migrations" / "20260101000000_things.sql"
    instead_of = f"-- instead of {sha256(table.read_bytes()).hexdigest()}\n"
    migrate(url, folder=folder)

    table.write_text("-- Mended.\n" + instead_of + table.read_text())
    assert migrate(url, folder=folder).edited == []
    table.write_text(table.read_text().replace(instead_of, ""))
    assert status(url, folder=folder).edited == ["20260101000000_things"]


def test_index_is_built_concurrently_while_another_run_waits(
    empty_database: Any, folder: Path
) -> None:
    url = empty_database.url()
    (folder / "migrations" / "20260101000001_index.sql").write_text(
        "-- transactional: false\ncreate index concurrently things_idx on public.things (id);\n"
    )

    with ThreadPoolExecutor() as pool:
        reports = list(pool.map(lambda _: migrate(url, folder=folder), range(3)))

    assert sorted(len(report.applied) for report in reports) == [0, 0, 2]
    assert value_of(
        url, "select indisvalid from pg_index where indexrelid = 'things_idx'::regclass"
    )


def test_two_at_once_apply_everything_once(empty_database: Any) -> None:
    url = empty_database.url()

    with ThreadPoolExecutor() as pool:
        reports = list(pool.map(lambda _: migrate(url), range(2)))

    assert sorted(report.changed for report in reports) == [False, True]


def test_job_that_works_is_waited_for(empty_database: Any, folder: Path) -> None:
    url = empty_database.url()
    with ThreadPoolExecutor() as pool, psycopg.connect(url) as job:
        job.execute("select pg_advisory_xact_lock_shared(hashtext(%s))", (LOCK,))
        running = pool.submit(migrate, url, folder=folder)
        wait_for_waiter(empty_database)
        assert not running.done()
        job.commit()

        assert running.result().changed


def wait_for_waiter(database: Any) -> None:
    query = """
        select exists (
          select from pg_locks as l
          join pg_database as d on d.oid = l.database
          where l.locktype = 'advisory' and not l.granted and d.datname = current_database()
        )
    """
    while not value_of(database.url("supabase_admin"), query):
        pass


def test_table_that_supabase_pushed_is_marked_not_applied(
    empty_database: Any, folder: Path
) -> None:
    url = empty_database.url()
    with psycopg.connect(url) as conn:
        conn.execute((folder / "migrations" / "20260101000000_things.sql").read_bytes())
        conn.execute(
            """
            create schema supabase_migrations;
            create table supabase_migrations.schema_migrations (
              version text primary key, statements text[], name text
            );
            insert into supabase_migrations.schema_migrations (version, name)
            values ('20260101000000', 'things');
            """
        )
    (folder / "migrations" / "20260101000001_more.sql").write_text(
        "-- More.\ncreate table public.more (id bigint);\n"
    )

    report = migrate(url, folder=folder)

    assert report.marked == ["20260101000000_things"]
    assert report.applied == ["20260101000001_more"]
    pushed = "select string_agg(name, ' ' order by version) from supabase_migrations."
    assert value_of(url, pushed + "schema_migrations") == "things more"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@pooler.example.com:6543/postgres",
        "host=pooler.example.com port=6543",
        "postgresql://a:5432,b:6543/postgres",
    ],
)
def test_transaction_pooler_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        migrate(url)

    assert caught.value.reason == "transaction_pooler"
    assert "5432" in (caught.value.hint or "")


def test_database_url_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="database url"):
        migrate("not a url")


def test_order_inside_a_room_is_topics_views_triggers_access(tmp_path: Path) -> None:
    for name in ("b/access", "b/views", "b/20_zebra", "b/triggers", "b/10_ant", "a/10_x"):
        path = tmp_path / "sources" / f"{name}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("select 1;")

    found = [file.name.removeprefix("sources/") for file in source_files(tmp_path)]

    assert found == [
        *("a/10_x.sql", "b/10_ant.sql", "b/20_zebra.sql", "b/views.sql", "b/triggers.sql"),
        "b/access.sql",
    ]


def test_two_migrations_of_one_version_are_refused(folder: Path) -> None:
    """Whoever keeps account of them knows a migration by its version alone."""
    (folder / "migrations" / "20260101000000_twin.sql").write_text("-- Twin.\nselect 1;\n")

    with pytest.raises(FleetError, match=r"_things\.sql and 20260101000000_twin\.sql have one"):
        migration_files(folder)


def test_source_outside_of_every_room_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "stray.sql").write_text("select 1;")

    with pytest.raises(FleetError, match=r"sources/stray\.sql lies in no room"):
        source_files(tmp_path)


def test_digest_tells_a_renamed_file(tmp_path: Path) -> None:
    (tmp_path / "sources" / "10_room").mkdir(parents=True)
    file = tmp_path / "sources" / "10_room" / "10_a.sql"
    file.write_text("select 1;")
    before = digest_of(source_files(tmp_path))
    file.rename(file.with_name("10_b.sql"))

    assert digest_of(source_files(tmp_path)) != before


def test_yoyo_alone_applies_sources_by_its_hook(empty_database: Any, folder: Path) -> None:
    url = empty_database.url()
    shutil.copytree(sql_folder() / "migrations", folder / "own", dirs_exist_ok=True)
    with psycopg.connect(url) as conn:
        conn.execute("create schema fleet_ledger")

    with applied.open_backend(url) as backend:
        migrations = applied.read(str(folder / "own"))
        backend.apply_migrations(backend.to_apply(migrations))

    assert not status(url).pending


def test_database_without_pgfleet_says_to_migrate(empty_database: Any) -> None:
    from pgfleet.errors import translate_errors

    with pytest.raises(NotMigrated) as caught, translate_errors():
        value_of(empty_database.url(), "select public.fleet_status()")

    assert "pgfleet db migrate" in (caught.value.hint or "")


def test_pooler_port_of_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6543")

    with pytest.raises(InvalidInput, match="6543"):
        migrate("postgresql://postgres@pooler.example.com/postgres")


def test_table_that_somebody_holds_is_waited_for(empty_database: Any, folder: Path) -> None:
    url = empty_database.url()
    migrate(url, folder=folder)
    (folder / "sources" / "10_things" / "note.sql").write_text(
        "comment on table public.things is 'Held.';"
    )
    with ThreadPoolExecutor() as pool, psycopg.connect(url) as holder:
        holder.execute("lock table public.things in access exclusive mode")
        running = pool.submit(migrate, url, folder=folder)
        # A second start of waiting: the first was given up, and tried again.
        waits: set[Any] = set()
        while len(waits) < 2:
            waits |= {value_of(empty_database.url("supabase_admin"), START_OF_WAIT)} - {None}
        holder.commit()

        assert running.result().sources_applied == 2
