"""The login of the HTTP functions executes fleet.worker_* and has no other right."""

from __future__ import annotations

from typing import Any

import pytest

PLATFORM = ("net", "cron", "extensions", "information_schema", "pg_catalog", "realtime")


def test_the_worker_has_no_right_on_any_table_or_sequence(world: Any) -> None:
    with world.database.connect() as conn:
        held = conn.execute(
            "select c.oid::regclass::text, p.name from pg_class as c,"
            " unnest('{select,insert,update,delete,truncate,references,trigger}'::text[])"
            "   as p(name)"
            " where c.relnamespace::regnamespace::text <> all (%s)"
            " and c.relnamespace::regnamespace::text not like 'pg\\_%%'"
            " and c.relkind in ('r', 'p', 'v', 'm', 'f')"
            " and (has_table_privilege('fleet_worker', c.oid, p.name)"
            "   or p.name in ('select', 'insert', 'update', 'references')"
            "     and has_any_column_privilege('fleet_worker', c.oid, p.name))",
            (list(PLATFORM),),
        ).fetchall()
        sequences = conn.execute(
            "select s.sequencename from pg_sequences as s"
            " where s.schemaname in ('public', 'fleet') and has_sequence_privilege("
            "   'fleet_worker', format('%I.%I', s.schemaname, s.sequencename),"
            "   'usage,select,update')"
        ).fetchall()
    assert held == []
    assert sequences == []


def test_the_worker_is_nothing_but_a_login(world: Any) -> None:
    with world.database.connect() as conn:
        attributes = conn.execute(
            "select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication,"
            " rolbypassrls from pg_roles where rolname = 'fleet_worker'"
        ).fetchone()
        member_of = conn.execute(
            "select roleid::regrole::text from pg_auth_members"
            " where member = 'fleet_worker'::regrole"
        ).fetchall()
        owned = conn.execute(
            "select count(*) from pg_proc where proowner = 'fleet_worker'::regrole"
        ).fetchone()
    assert attributes == (True, False, False, False, False, False)
    assert member_of == []
    assert owned == (0,)


def test_the_worker_executes_its_functions_and_no_other_of_ours(world: Any) -> None:
    with world.database.connect() as conn:
        rows = conn.execute(
            "select p.proname, p.prosecdef from pg_proc as p"
            " where p.pronamespace::regnamespace::text in ('public', 'fleet')"
            " and has_function_privilege('fleet_worker', p.oid, 'execute')"
        ).fetchall()
    assert rows
    assert all(name.startswith("worker_") and definer for name, definer in rows), rows


@pytest.mark.parametrize(
    "query",
    [
        "select fleet.worker_health() ->> 'ok'",
        "select fleet.worker_verify_poke('x', 'y', 'z')::text",
        "select fleet.worker_device_token('{secret}') ->> 'hostname'",
    ],
)
def test_the_worker_does_its_work_over_its_own_login(world: Any, query: str) -> None:
    with world.database.connect("fleet_worker") as conn:
        row = conn.execute(query.format(secret=world.mine.plain_secrets[0]).encode()).fetchone()
    assert row[0] is not None


@pytest.mark.parametrize("role", ["postgres", "service_role", "authenticated"])
def test_the_worker_becomes_nobody_else(one_world: Any, role: str) -> None:
    with one_world.database.connect("fleet_worker") as conn:
        assert one_world.outcome(conn, f"set role {role}")[0] == "42501"
