from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from pgfleet_functions.setup import ensure_worker_role


def test_the_worker_executes_its_functions_and_nothing_else(site: Any) -> None:
    with site.database.connect("fleet_worker", autocommit=True) as worker:
        assert worker.execute("select fleet.worker_health()").fetchone() is not None
        for statement in (
            "select * from public.devices",
            "select * from public.pg_cron_secrets",
            "select fleet.poke_key()",
            "select fleet.sign_poke('ring', '{}')",
            "select fleet.tick()",
            "select public.retire_device(1)",
            "create table public.mine (id integer)",
            "create table fleet.mine (id integer)",
            "set role postgres",
            "set role service_role",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(statement)


def test_the_only_functions_of_the_worker_are_named_so(site: Any) -> None:
    with site.connect() as owner:
        names = owner.execute(
            "select proname from pg_proc where pronamespace in"
            " ('fleet'::regnamespace, 'public'::regnamespace)"
            " and has_function_privilege('fleet_worker', oid, 'execute')"
        ).fetchall()

    assert names
    assert all(name.startswith("worker_") for (name,) in names)


def test_setup_may_be_repeated_and_changes_the_password(site: Any) -> None:
    settings = site.settings
    database = site.database
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, "another")
        row = admin.execute(
            "select rolcanlogin, rolsuper, rolcreaterole, rolbypassrls, rolpassword"
            " from pg_authid where rolname = 'fleet_worker'"
        ).fetchone()
        admin.commit()
        with pytest.raises(psycopg.OperationalError):
            database.connect("fleet_worker")
        ensure_worker_role(admin, settings.password("fleet_worker"))

    database.connect("fleet_worker").close()
    assert row is not None
    assert row[:4] == (True, False, False, False)
    assert row[4].startswith("SCRAM-SHA-256$")


def test_functions_without_a_database_say_so_and_find_it_again(
    own_database: Any, serving_site: Any, free_port: Callable[[], int]
) -> None:
    with serving_site(own_database, free_port()) as site:
        with psycopg.connect(own_database.url("supabase_admin"), autocommit=True) as admin:
            admin.execute("alter role fleet_worker nologin")
            try:
                # A connection may have been on its way in when the role was closed.
                for _ in range(20):
                    admin.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where usename = 'fleet_worker' and datname = current_database()"
                    )
                    down = site.post("device-token", {"device_secret": "x"})
                    if down.status_code != 401:
                        break
                ill = httpx.get(f"{site.url}/functions/v1/health", timeout=20)
            finally:
                admin.execute("alter role fleet_worker login")
        back = site.post("device-token", {"device_secret": "x"})

    assert (down.status_code, down.json()["details"]) == (503, "database_unavailable")
    assert (ill.status_code, ill.json()["ok"]) == (503, False)
    assert back.status_code == 401


def test_no_statement_of_any_login_of_ours_goes_on_for_ever(site: Any) -> None:
    with site.database.connect("fleet_worker") as conn:
        assert conn.execute("show statement_timeout").fetchone() == ("30s",)
        assert conn.execute("show lock_timeout").fetchone() == ("10s",)
    for role, most in (("authenticator", "8s"), ("postgres", "2min")):
        with site.database.connect(role) as conn:
            assert conn.execute("show statement_timeout").fetchone() == (most,)
