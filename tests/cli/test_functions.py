"""pgfleet functions: making the login, and serving."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from pgfleet_functions.setup import WORKER, ensure_worker_role

Pgfleet = Any


@pytest.fixture
def admin(bare: Pgfleet, own_database: Any) -> Iterator[Any]:
    """Give a function that runs a command as who may make roles, leaving the role as it was."""
    url = own_database.url("supabase_admin")
    # Roles belong to the whole cluster: other tests may have made it, or must not find it.
    was_there = exists(url)
    yield lambda *words: bare("-d", url, *words)
    with psycopg.connect(url) as conn:
        if was_there:
            ensure_worker_role(conn, own_database.settings.password(WORKER))
        else:
            for statement in ("drop owned by {}", "drop role {}"):
                conn.execute(sql.SQL(statement).format(sql.Identifier(WORKER)))


def exists(url: str) -> bool:
    with psycopg.connect(url) as conn:
        found = conn.execute("select from pg_roles where rolname = %s", (WORKER,))
        return found.fetchone() is not None


def test_setup_makes_a_login_that_may_only_work(admin: Any, own_database: Any) -> None:
    address = "https://example.com/functions/v1"
    made = admin("functions", "setup", "--url", address, "--yes", "--json")

    url = made.data["PGFLEET_FUNCTIONS_DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as conn:
        assert conn.execute("select fleet.worker_health() -> 'ok'").fetchone() == (False,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select * from public.devices")
    with psycopg.connect(own_database.url()) as conn:
        kept = conn.execute("select fleet.setting('functions_url') #>> '{}'").fetchone()
        assert kept == (address,)


def test_second_setup_wants_a_yes_because_it_changes_the_password(admin: Any) -> None:
    first = admin("functions", "setup", "--yes", "--json")
    refused = admin("functions", "setup", "--json")
    second = admin("functions", "setup", "--yes", "--json")

    assert (first.code, refused.code, second.code) == (0, 1, 0)
    assert first.data != second.data


def test_serving_without_settings_names_what_is_missing(bare: Pgfleet) -> None:
    answer = bare("functions", "run")

    assert answer.code == 1
    assert "PGFLEET_FUNCTIONS_DATABASE_URL" in answer.err
    assert "Hint: pgfleet functions setup" in answer.err


def test_served_functions_answer_at_both_paths(
    own_database: Any, free_port: Callable[[], int]
) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgfleet", "functions", "run", "--port", str(port)],
        env={
            **os.environ,
            "PGFLEET_FUNCTIONS_DATABASE_URL": own_database.url(),
            "SUPABASE_JWT_SECRET": "0" * 64,
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "running on" in line:
                break
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            answers = [client.get(path) for path in ("/health", "/functions/v1/health")]
            unknown = client.get("/nowhere")
    finally:
        process.terminate()
        process.communicate(timeout=20)

    # Nothing ticks in a cloned database, and that is what health is about.
    assert [answer.status_code for answer in answers] == [503, 503]
    assert answers[0].json() == answers[1].json()
    assert unknown.status_code == 404
