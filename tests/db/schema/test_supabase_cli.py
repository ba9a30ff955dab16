"""The official Supabase CLI: it pushes our bundle, and finds little to say about the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgfleet.schema.bundle import bundle_folder, write
from pgfleet.schema.migrate import migrate
from pgfleet.schema.sources import rooms, sql_folder
from pgfleet_local.server.cluster import Cluster

pytestmark = pytest.mark.node

NODE_TESTS = Path(__file__).parents[2] / "local" / "node"
PACKAGE = "supabase@3.1"

Cli = Callable[..., str]


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


@pytest.fixture
def cli(supabase: Path, tmp_path: Path, empty_database: Any) -> Cli:
    """Give a function that runs the CLI on an empty database, in a project with our bundle."""
    project = tmp_path / "supabase"
    write(project / "migrations")
    shutil.copy(bundle_folder().parent / "config.toml", project / "config.toml")
    url = f"{empty_database.url()}?sslmode=disable"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SUPABASE_TELEMETRY_DISABLED": "1",
        "DO_NOT_TRACK": "1",
    }

    def run(*words: str, fails: bool = False) -> str:
        done = subprocess.run(
            [str(supabase), *words, f"--remote={url}"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


def dump(cluster: Cluster, url: str) -> list[str]:
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
    # Looked at only where pg_cron is there, which in a second database of a cluster it is not.
    return issue["sqlState"] == "42P01" and message.startswith('relation "cron.')


def test_pushed_database_equals_the_migrated_one(
    cli: Cli, cluster: Cluster, empty_database: Any, own_database: Any
) -> None:
    cli("db", "push", "--yes")

    pushed = dump(cluster, empty_database.url("supabase_admin"))
    assert pushed == dump(cluster, own_database.url("supabase_admin"))

    # And from there on our own command goes on.
    report = migrate(empty_database.url())
    assert report.applied == []
    assert report.leftovers == []


def test_second_push_finds_nothing(cli: Cli, empty_database: Any) -> None:
    cli("db", "push", "--yes")
    with psycopg.connect(empty_database.url()) as conn:
        before = conn.execute("select count(*) from supabase_migrations.schema_migrations")
        expected = before.fetchall()

    cli("db", "push", "--yes")

    with psycopg.connect(empty_database.url()) as conn:
        after = conn.execute("select count(*) from supabase_migrations.schema_migrations")
        assert after.fetchall() == expected


def test_room_that_changed_since_a_push_is_refused_until_it_is_to_be_pushed_again(
    cli: Cli, tmp_path: Path, empty_database: Any
) -> None:
    migrations = tmp_path / "supabase" / "migrations"
    cli("db", "push", "--yes")
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
    with psycopg.connect(empty_database.url()) as conn:
        comment = conn.execute("select obj_description('public.devices'::regclass)").fetchone()
    assert comment == ("Pushed again.",)
    # The table of versions is one that the CLI can print.
    assert version[:14] in cli("migration", "list")


def test_changes_after_a_release_are_pushed_without_a_word(
    cli: Cli, cluster: Cluster, tmp_path: Path, empty_database: Any, own_database: Any
) -> None:
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
    pushed = dump(cluster, empty_database.url("supabase_admin"))
    assert pushed == dump(cluster, own_database.url("supabase_admin"))


def test_linter_finds_nothing_in_our_functions(cli: Cli, empty_database: Any) -> None:
    cli("db", "push", "--yes")
    # The CLI creates it where it is missing, which only on a hosted project postgres may do.
    with psycopg.connect(empty_database.url("supabase_admin")) as conn:
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
    assert found == []


def test_advisors_find_nothing_that_is_not_meant(cli: Cli, empty_database: Any) -> None:
    cli("db", "push", "--yes")
    with psycopg.connect(empty_database.url()) as conn:
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

    said = json.loads(cli("db", "advisors", "--level", "warn", "-o", "json") or "[]")

    found = [
        (advice["name"], advice["detail"])
        for advice in said
        if advice["name"] != "function_search_path_mutable"
        or "{schema}.{name}".format(**advice["metadata"]) not in meant
    ]
    assert found == []
