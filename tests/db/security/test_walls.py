"""What no role may do to any table, and who may enter which schema."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

ROLES = ("anon", "authenticated", "fleet_worker", "service_role")


def test_nobody_may_truncate_reference_or_add_triggers(world: Any) -> None:
    with world.database.connect() as conn:
        held = conn.execute(
            "select r.name, p.name, c.oid::regclass::text"
            " from pg_class as c cross join unnest(%s::text[]) as r(name)"
            " cross join unnest('{truncate,references,trigger}'::text[]) as p(name)"
            " where c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)"
            " and c.relkind in ('r', 'v', 'm', 'p', 'f')"
            " and has_table_privilege(r.name, c.oid, p.name)",
            (list(ROLES),),
        ).fetchall()
    assert held == []


@pytest.mark.parametrize("caller", ["anon", "member", "service_role"])
def test_truncate_is_refused_in_fact(world: Any, caller: str) -> None:
    with world.acting(caller) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("truncate public.device_commands")


def test_only_the_service_role_and_signed_in_callers_may_enter_the_engine_room(world: Any) -> None:
    with world.database.connect() as conn:
        entered = conn.execute(
            "select r.name, n.name from unnest(%s::text[]) as r(name),"
            " unnest('{fleet,fleet_ledger}'::text[]) as n(name)"
            " where has_schema_privilege(r.name, n.name, 'usage')"
            " or has_schema_privilege(r.name, n.name, 'create')",
            (list(ROLES),),
        ).fetchall()
        making = conn.execute(
            "select r.name from unnest(%s::text[]) as r(name),"
            " unnest('{public,fleet}'::text[]) as n"
            " where has_schema_privilege(r.name, n, 'create')",
            (list(ROLES),),
        ).fetchall()
    assert set(entered) == {
        ("authenticated", "fleet"),
        ("service_role", "fleet"),
        ("fleet_worker", "fleet"),
    }
    assert making == []
