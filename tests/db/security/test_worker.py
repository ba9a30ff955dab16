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
    # COPY is the one way in that is fast enough for telemetry; nothing can be read there.
    assert held == [("telemetry.staging", "insert")]
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


def test_nothing_of_a_session_s_own_runs_as_the_owner(one_world: Any) -> None:
    """A temporary type could stand in for one of Postgres, and bring a check of its own."""
    with one_world.database.connect("fleet_worker") as conn:
        conn.execute(
            "create function pg_temp.note(p_text pg_catalog.text) returns pg_catalog.bool"
            " language sql as $$ select pg_catalog.set_config('test.ran_as', pg_catalog.concat("
            "   pg_catalog.current_setting('test.ran_as', true), ' ', current_user), false)"
            "   is not null $$"
        )
        for name in ("text", "uuid", "jsonb", "bytea", "timestamptz", "regclass", "interval"):
            conn.execute(
                f"create domain pg_temp.{name} as pg_catalog.{name}"
                " check (pg_temp.note(value::pg_catalog.text))"
            )
        for query in (
            "select fleet.worker_health()",
            f"select fleet.worker_verify_poke('poke.1.{'a' * 43}', 'x', 'y')",
            f"select fleet.worker_device_token('{one_world.mine.plain_secrets[0]}')",
            f"select fleet.worker_enroll_device('{one_world.mine.plain_code}', 'new',"
            ' \'{"attributes": {"a": 1}}\')',
        ):
            assert not isinstance(one_world.outcome(conn, query), tuple)
        row = conn.execute("select current_setting('test.ran_as', true)").fetchone()
        conn.rollback()
    assert "postgres" not in (row[0] or "")
