"""Who reaches which rows, tried by every kind of caller with every verb.

A table, view, sequence or column grant that this page does not name fails by its name.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

CALLERS = (
    "anon",
    "nobody",
    "member",
    "stranger",
    "device",
    "sibling",
    "retired",
    "foreign_device",
    "fleet_worker",
    "service_role",
)
VERBS = ("select", "insert", "update", "delete")

# Each column is a caller, in the order above; each letter is what that caller reaches:
# x refused, - no row, m all of my fleet's rows, s some of them, f only the other fleet's,
# a every row, c a constraint. An insert is of a row for my fleet: x refused, m done.
NOTHING = "x x x x x x x x x"
MATRIX: dict[str, dict[str, str]] = {
    "public.owners": {
        "key": "id",
        "select": "x - m f - - - - x a",
        "insert": f"{NOTHING} m",
        "update": "x - m f - - - - x a",
        "delete": f"{NOTHING} c",
    },
    "public.owner_members": {
        "key": "owner_id || '/' || user_id",
        "select": "x - m f - - - - x a",
        "insert": "x x m x x x x x x m",
        "update": "x - m f - - - - x a",
        "delete": "x - m f - - - - x a",
    },
    "public.devices": {
        "key": "id",
        "select": "x - m f s s - f x a",
        "insert": "x x m x x x x x x m",
        "update": "x - m f - - - - x a",
        "delete": "x - m f - - - - x a",
    },
    "public.device_groups": {
        "key": "id",
        "select": "x - m f - - - - x a",
        "insert": "x x m x x x x x x m",
        "update": "x - m f - - - - x a",
        "delete": "x - m f - - - - x a",
    },
    "public.device_group_members": {
        "key": "group_id || '/' || device_id",
        "select": "x - m f - - - - x a",
        "insert": "x x m x x x x x x m",
        "update": f"{NOTHING} a",
        "delete": "x - m f - - - - x a",
    },
    "public.enrollment_codes": {
        "key": "id",
        "select": "x - m f - - - - x a",
        "insert": f"{NOTHING} m",
        "update": "x - m f - - - - x a",
        "delete": f"{NOTHING} a",
    },
    "public.schedules": {
        "key": "id",
        "select": "x - m f - - - - x a",
        "insert": "x x m x x x x x x m",
        "update": "x - m f - - - - x a",
        "delete": "x - m f - - - - x a",
    },
    "public.schedule_runs": {
        "key": "id",
        "select": "x - m f - - - - x a",
        "insert": f"{NOTHING} m",
        "update": f"{NOTHING} a",
        "delete": f"{NOTHING} a",
    },
    "public.command_types": {
        "key": "name",
        "select": "x - a a - - - - x a",
        "insert": f"{NOTHING} m",
        "update": f"{NOTHING} a",
        "delete": f"{NOTHING} a",
    },
    "public.device_commands": {
        "key": "id",
        "select": "x - m f m - - f x a",
        "insert": "x x m x x x x x x m",
        "update": "x - m f m - - f x a",
        "delete": f"{NOTHING} a",
    },
    "public.pg_cron_secrets": {
        "key": "name",
        "select": f"{NOTHING} a",
        "insert": f"{NOTHING} m",
        "update": f"{NOTHING} a",
        "delete": f"{NOTHING} a",
    },
    "fleet.settings": {"key": "name", "select": f"{NOTHING} a"},
    "fleet.heartbeat": {"key": "id", "select": f"{NOTHING} a"},
    "fleet.time_zones": {"key": "name", "select": f"{NOTHING} a"},
    "fleet.device_credentials": {"key": "device_id"},
    "fleet.doorbells": {"key": "device_id"},
    "fleet.run_progress": {"key": "run_id"},
}
REFUSED = f"{NOTHING} x"

# A row for my fleet, as an attacker would write it; {…} are ids of my fleet.
INSERTS = {
    "public.owners": "(name) values ('new')",
    "public.owner_members": "(owner_id, user_id) values ('{owner}', '{sibling_auth}')",
    "public.devices": "(owner_id, hostname) values ('{owner}', 'new')",
    "public.device_groups": "(owner_id, name) values ('{owner}', 'new')",
    "public.device_group_members": "(group_id, device_id) values ({empty_group}, {device})",
    "public.enrollment_codes": "(owner_id, code_hash, expires_at)"
    " values ('{owner}', '\\x00', now())",
    "public.schedules": "(owner_id, name, action_type, device_ids)"
    " values ('{owner}', 'new', 'lock', '{{{device}}}')",
    "public.schedule_runs": "(schedule_id, owner_id, scheduled_for)"
    " values ({schedule}, '{owner}', '2020-01-01')",
    "public.command_types": "(name) values ('new')",
    "public.device_commands": "(device_id, command_type) values ({sibling}, 'lock')",
    "public.pg_cron_secrets": "(name, secret) values ('new', 'x')",
    "fleet.settings": "(name, value) values ('history_days', '1')",
    "fleet.heartbeat": "(id) values (true)",
    "fleet.time_zones": "(name) values ('new')",
    "fleet.device_credentials": "(device_id, secret_hash) values ({retired}, '\\x00')",
    "fleet.doorbells": "(device_id, ring_at, command_id, command_type)"
    " values ({device}, now(), 1, 'lock')",
    "fleet.run_progress": "(run_id, completed, failed) values ({run}, 1, 0)",
}

# What a signed-in caller may name in a statement; all other columns are the engine's.
# Select is of every column unless it is named here.
SELECT_COLUMNS = {
    "public.enrollment_codes": "id owner_id device_id max_uses used_count tags group_ids expires_at"
    " revoked_at created_by created_at",
}
INSERT_COLUMNS = {
    "public.owner_members": "owner_id user_id permissions",
    "public.devices": "owner_id hostname platform timezone tags attributes",
    "public.device_groups": "owner_id name description selector",
    "public.device_group_members": "group_id device_id",
    "public.schedules": "owner_id name description action_type payload recurrence_type"
    " recurrence_config start_time end_time timezone device_ids group_ids selector profile_id"
    " device_id policies priority ui_initiated after_schedule_id after_on",
    "public.device_commands": "owner_id device_id device_hostname command_type payload priority"
    " status not_before expires_at max_attempts idempotency_key",
}
UPDATE_COLUMNS = {
    "public.owners": "name",
    "public.owner_members": "permissions",
    "public.devices": "hostname platform timezone tags attributes",
    "public.device_groups": "name description selector",
    "public.enrollment_codes": "revoked_at",
    "public.schedules": "name description action_type payload recurrence_type recurrence_config"
    " start_time end_time timezone device_ids group_ids selector profile_id device_id policies"
    " priority status status_reason after_schedule_id after_on",
    "public.device_commands": "status result error_message",
}

SEQUENCES = {
    "public.devices_id_seq",
    "public.device_groups_id_seq",
    "public.enrollment_codes_id_seq",
    "public.schedules_id_seq",
    "public.schedule_runs_id_seq",
    "public.device_commands_id_seq",
    "fleet.run_progress_id_seq",
}
ROLES = ("anon", "authenticated", "fleet_worker", "service_role")


def relations(world: Any, kinds: str) -> set[str]:
    with world.database.connect() as conn:
        return {
            name
            for (name,) in conn.execute(
                "select n.nspname || '.' || c.relname from pg_class as c"
                " join pg_namespace as n on n.oid = c.relnamespace"
                " where n.nspname in ('public', 'fleet')"
                " and c.relkind::text = any (%s)",
                (list(kinds),),
            )
        }


def labels(conn: Any, world: Any, table: str) -> dict[str, str]:
    """Say of each row whose it is: m, f, or a for what belongs to nobody."""
    key = MATRIX[table]["key"]
    owned = {
        "public.owners": "id",
        "fleet.device_credentials": "(select owner_id from public.devices where id = device_id)",
        "fleet.doorbells": "(select owner_id from public.devices where id = device_id)",
        "fleet.run_progress": "(select owner_id from public.schedule_runs where id = run_id)",
    }
    has_owner = conn.execute(
        "select 1 from pg_attribute where attrelid = %s::regclass and attname = 'owner_id'",
        (table,),
    ).fetchone()
    owner = owned.get(table, "owner_id" if has_owner else "null")
    whose = {str(world.mine.owner): "m", str(world.theirs.owner): "f"}
    rows = conn.execute(f"select ({key})::text, ({owner})::text from {table}").fetchall()
    return {str(found): whose.get(str(of), "a") for found, of in rows}


def letter(reached: set[str], all_rows: dict[str, str]) -> str:
    if not reached:
        return "-"
    if reached == set(all_rows):
        return "a"
    kinds = {all_rows[found] for found in reached}
    assert len(kinds) == 1, f"a mixture of {kinds}"
    (kind,) = kinds
    whole = {found for found, of in all_rows.items() if of == kind}
    return kind if reached == whole or kind == "f" else "s"


def attempt(conn: Any, world: Any, caller: str, table: str, verb: str) -> str:
    """Try one verb on one table as one caller, and say what was reached."""
    key = MATRIX[table]["key"]
    before = labels(conn, world, table)
    column = UPDATE_COLUMNS.get(table, key if key.isidentifier() else "owner_id").split()[0]
    statements = {
        "select": f"select ({key})::text from {table}",
        "update": f"update {table} set {column} = {column}",
        "delete": f"delete from {table}",
        "insert": f"insert into {table} "
        + INSERTS.get(table, "default values").format(**vars(world.mine)),
    }
    world.become(conn, caller)
    try:
        found = conn.execute(statements[verb])
        rows = {row[0] for row in found.fetchall()} if verb == "select" else set()
        conn.execute("reset role")
    except psycopg.Error as error:
        assert error.sqlstate is not None
        if error.sqlstate == "42501" or error.sqlstate in ("PT403", "PT404"):
            return "x"
        assert error.sqlstate.startswith("23"), f"{error.sqlstate} {error}"
        return "c"
    if verb == "select":
        return letter(rows, before)
    after = labels(conn, world, table)
    if verb == "insert":
        return "m" if len(after) > len(before) else "-"
    if verb == "delete":
        return letter(set(before) - set(after), before)
    touched = conn.execute(
        f"select ({key})::text from {table} where xmin = pg_current_xact_id()::xid"
    ).fetchall()
    return letter({row[0] for row in touched}, before)


def test_every_table_view_and_sequence_is_in_the_matrix(world: Any) -> None:
    assert relations(world, "rvmpf") == set(MATRIX)
    assert relations(world, "S") == SEQUENCES


@pytest.mark.parametrize("table", MATRIX)
def test_each_caller_reaches_what_the_matrix_says(world: Any, table: str) -> None:
    found = {}
    with world.database.connect("supabase_admin") as conn:
        for verb in VERBS:
            results = []
            for caller in CALLERS:
                results.append(attempt(conn, world, caller, table, verb))
                conn.rollback()
            found[verb] = " ".join(results)

    assert found == {verb: MATRIX[table].get(verb, REFUSED) for verb in VERBS}


@pytest.mark.parametrize("table", MATRIX)
def test_nobody_may_truncate_reference_or_add_triggers(world: Any, table: str) -> None:
    with world.database.connect() as conn:
        held = conn.execute(
            "select r.name, p.name from unnest(%s::text[]) as r(name),"
            " unnest('{truncate,references,trigger}'::text[]) as p(name)"
            " where has_table_privilege(r.name, %s, p.name)",
            (list(ROLES), table),
        ).fetchall()
    assert held == []


@pytest.mark.parametrize("caller", ["anon", "member", "service_role"])
def test_truncate_is_refused_in_fact(world: Any, caller: str) -> None:
    with world.acting(caller) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("truncate public.device_commands")


@pytest.mark.parametrize("table", MATRIX)
def test_a_person_may_name_only_these_columns(world: Any, table: str) -> None:
    with world.database.connect() as conn:
        rows = conn.execute(
            "select p.name, array_agg(a.attname::text order by a.attname)"
            " from unnest('{select,insert,update}'::text[]) as p(name), pg_attribute as a"
            " where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped"
            " and has_schema_privilege('authenticated', split_part(%s, '.', 1), 'usage')"
            " and has_column_privilege('authenticated', a.attrelid, a.attname, p.name)"
            " group by p.name",
            (table, table),
        ).fetchall()
        every = conn.execute(
            "select array_agg(attname::text) from pg_attribute"
            " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (table,),
        ).fetchone()
    assert every is not None
    visible = "select" in MATRIX[table] and MATRIX[table]["select"].split()[1] != "x"
    expected = {
        "select": SELECT_COLUMNS.get(table, " ".join(every[0]) if visible else "").split(),
        "insert": INSERT_COLUMNS.get(table, "").split(),
        "update": UPDATE_COLUMNS.get(table, "").split(),
    }
    assert dict(rows) == {verb: sorted(names) for verb, names in expected.items() if names}


@pytest.mark.parametrize("sequence", sorted(SEQUENCES))
def test_nobody_but_the_service_role_touches_sequences(world: Any, sequence: str) -> None:
    with world.database.connect() as conn:
        held = conn.execute(
            "select r.name || ' ' || p.name from unnest(%s::text[]) as r(name),"
            " unnest('{usage,select,update}'::text[]) as p(name)"
            " where has_sequence_privilege(r.name, %s, p.name)",
            (list(ROLES), sequence),
        ).fetchall()
    allowed = {"service_role usage", "service_role select"}
    assert {found for (found,) in held} <= (allowed if sequence.startswith("public.") else set()), (
        json.dumps(held)
    )


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
