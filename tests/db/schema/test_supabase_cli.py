"""The official Supabase CLI: it pushes our bundle, and finds little to say about the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.db.schema.test_catalogue_functions import WITHOUT_SEARCH_PATH

from pgfleet.schema.bundle import bundle_folder, write
from pgfleet.schema.migrate import migrate
from pgfleet.schema.sources import rooms, sql_folder
from pgfleet_local.bootstrap import prepare_database
from pgfleet_local.server.cluster import Cluster

pytestmark = pytest.mark.node

NODE_TESTS = Path(__file__).parents[2] / "local" / "node"
PACKAGE = "supabase@3.1"

Cli = Callable[..., str]
Command = Callable[[Any, Path], Cli]
Clone = Callable[[str | None], AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def supabase(request: pytest.FixtureRequest) -> Path:
    """Find the CLI among the Node packages of the tests, else install it beside pytest's cache."""
    if shutil.which("npm") is None:
        pytest.skip("the official Supabase CLI is a Node package, and npm is not installed")
    cache = request.config.cache
    assert cache is not None
    own = cache.mkdir("supabase-cli")
    for folder in (NODE_TESTS, own):
        if (program := folder / "node_modules" / ".bin" / "supabase").exists():
            return program
    done = subprocess.run(
        ["npm", "install", "--prefix", str(own), "--no-audit", "--no-fund", PACKAGE],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"npm could not install the Supabase CLI: {done.stderr.strip()[-200:]}")
    return program


@pytest.fixture(scope="module")
def command(supabase: Path) -> Command:
    """Give a function that makes the CLI work on a database, in a project with our bundle."""

    def work_on(database: Any, home: Path) -> Cli:
        write(home / "supabase" / "migrations")
        shutil.copy(bundle_folder().parent / "config.toml", home / "supabase" / "config.toml")
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "SUPABASE_TELEMETRY_DISABLED": "1",
            "DO_NOT_TRACK": "1",
        }

        def run(*words: str, fails: bool = False) -> str:
            done = subprocess.run(
                [str(supabase), *words, f"--remote={database.url()}?sslmode=disable"],
                cwd=home,
                env=environment,
                capture_output=True,
                text=True,
                timeout=90,
            )
            assert (done.returncode != 0) is fails, done.stdout + done.stderr
            return done.stderr if fails else done.stdout

        return run

    return work_on


@pytest.fixture(scope="module")
def pushed_once(
    command: Command, clone: Clone, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Push the bundle to an empty database of hosted manners, once for all tests."""
    with clone(None) as database:
        prepare_database(database.url("supabase_admin"), cron=False, net=True)
        command(database, tmp_path_factory.mktemp("pushed"))("db", "push", "--yes")
        yield database.name


@pytest.fixture
def pushed(pushed_once: str, clone: Clone) -> Iterator[Any]:
    """Give a database of its own to each test, to which the bundle was pushed."""
    with clone(pushed_once) as database:
        yield database


@pytest.fixture
def cli(command: Command, tmp_path: Path, pushed: Any) -> Cli:
    """Give a function that runs the CLI on the database that has the bundle."""
    return command(pushed, tmp_path)


def dump(cluster: Cluster, url: str) -> list[str]:
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
    # The login of the functions is the cluster's, and may come while the tests run.
    left_out = r"(?m)^(\\(un)?restrict .*|(GRANT|REVOKE) .* fleet_worker;)$\n?"
    return re.sub(left_out, "", done.stdout).splitlines()


def is_meant(issue: dict[str, Any]) -> bool:
    """Tell what the linter need not say."""
    message, detail = issue["message"], issue.get("detail") or ""
    # A constant such as '{}' is read as the type of its variable, and never as text.
    if issue["sqlState"] == "42804" and detail.startswith('cast "text" value to'):
        return True
    # It knows neither what dynamic SQL gives nor a row beside another value in an answer.
    if "result of dynamic SQL" in detail or message.startswith("composite OUT variable"):
        return True
    # Looked at only where pg_cron is there, which in a second database of a cluster it is not, and
    # where pgfleet db migrate has kept its books, which after a push of the bundle are not there.
    return issue["sqlState"] == "42P01" and message.startswith(
        ('relation "cron.', 'relation "fleet_ledger.')
    )


def test_pushed_database_equals_the_migrated_one(
    cluster: Cluster, pushed: Any, own_database: Any
) -> None:
    found = dump(cluster, pushed.url("supabase_admin"))
    assert found == dump(cluster, own_database.url("supabase_admin"))

    # And from there on our own command goes on.
    report = migrate(pushed.url())
    assert report.applied == []
    assert report.leftovers == []


def test_second_push_finds_nothing(cli: Cli, pushed: Any) -> None:
    with psycopg.connect(pushed.url()) as conn:
        before = conn.execute("select count(*) from supabase_migrations.schema_migrations")
        expected = before.fetchall()

    cli("db", "push", "--yes")

    with psycopg.connect(pushed.url()) as conn:
        after = conn.execute("select count(*) from supabase_migrations.schema_migrations")
        assert after.fetchall() == expected


def test_room_that_changed_since_a_push_is_refused_until_it_is_to_be_pushed_again(
    cli: Cli, tmp_path: Path, pushed: Any
) -> None:
    migrations = tmp_path / "supabase" / "migrations"
    changed = tmp_path / "db"
    shutil.copytree(sql_folder(), changed, ignore=shutil.ignore_patterns("*.py"))
    views = changed / "sources" / rooms(changed)[-1].name / "views.sql"
    views.write_text("comment on table public.devices is 'Pushed again.';")
    before = {path.name for path in migrations.iterdir()}
    write(migrations, source=changed)
    (gone,) = before - {path.name for path in migrations.iterdir()}
    version = gone.partition("_")[0]

    said = cli("db", "push", "--yes", fails=True)

    assert f"supabase migration repair --status reverted {version}" in said
    cli("migration", "repair", "--yes", "--status", "reverted", version)
    cli("db", "push", "--yes")
    with psycopg.connect(pushed.url()) as conn:
        comment = conn.execute("select obj_description('public.devices'::regclass)").fetchone()
    assert comment == ("Pushed again.",)
    # The table of versions is one that the CLI can print.
    assert version[:14] in cli("migration", "list")


def test_changes_after_a_release_are_pushed_without_a_word(
    command: Command, cluster: Cluster, tmp_path: Path, empty_database: Any, own_database: Any
) -> None:
    cli = command(empty_database, tmp_path)
    migrations = tmp_path / "supabase" / "migrations"
    write(migrations, release=True)
    cli("db", "push", "--yes")
    changed = tmp_path / "db"
    shutil.copytree(sql_folder(), changed, ignore=shutil.ignore_patterns("*.py"))
    for room, text in ((rooms(changed)[1], "'Low.'"), (rooms(changed)[-1], "'High.'")):
        with (changed / "sources" / room.name / "views.sql").open("a") as file:
            file.write(f"\ncomment on table public.devices is {text};\n")

    write(migrations, source=changed)
    cli("db", "push", "--yes")

    migrate(own_database.url(), folder=changed)
    found = dump(cluster, empty_database.url("supabase_admin"))
    assert found == dump(cluster, own_database.url("supabase_admin"))


def test_linter_finds_nothing_in_our_functions(cli: Cli, pushed: Any) -> None:
    # The CLI creates it where it is missing, which only on a hosted project postgres may do.
    with psycopg.connect(pushed.url("supabase_admin")) as conn:
        known = conn.execute("select from pg_available_extensions where name = 'plpgsql_check'")
        if not known.fetchall():
            pytest.skip("the extension plpgsql_check is not installed")
        conn.execute("create extension plpgsql_check with schema extensions")

    said = cli("db", "lint", "--schema", "public,fleet", "--level", "warning", "-o", "json")

    found = [
        (function["function"], issue["message"], issue.get("detail"))
        for function in json.loads(said or "[]")
        for issue in function["issues"]
        if not is_meant(issue)
    ]
    assert found == [], "\n".join(map(str, found))


def test_advisors_find_nothing_that_is_not_meant(cli: Cli, pushed: Any) -> None:
    with psycopg.connect(pushed.url()) as conn:
        meant = {
            name
            for (name,) in conn.execute(
                """
                select n.nspname || '.' || p.proname
                from pg_proc as p
                join pg_namespace as n on n.oid = p.pronamespace
                -- A body in the form `return expression` is bound when it is made, and only
                -- without a setting can it be inlined; a procedure that commits may have none.
                where p.prosqlbody is not null or p.prokind = 'p'
                """
            )
        }

    # The tables of telemetry have no row security, so that they can be anywhere; nobody has a
    # right on them, and these two say who sees what.
    over_telemetry = {"public.device_telemetry_history", "public.device_telemetry_latest"}
    meant |= WITHOUT_SEARCH_PATH
    allowed = {"function_search_path_mutable": meant, "security_definer_view": over_telemetry}

    said = json.loads(cli("db", "advisors", "--level", "warn", "-o", "json") or "[]")

    found = [
        (advice["name"], advice["detail"])
        for advice in said
        if "{schema}.{name}".format(**advice["metadata"]) not in allowed.get(advice["name"], ())
    ]
    assert found == []
