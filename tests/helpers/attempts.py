"""One caller tries one verb on one table, and says which rows it reached."""

from __future__ import annotations

from typing import Any

import psycopg

# A column that whoever may update the table at all may update.
CHANGED = {
    "public.fleet_metrics": "value",
    "public.owners": "name",
    "public.owner_members": "permissions",
    "public.devices": "tags",
    "public.device_groups": "name",
    "public.enrollment_codes": "revoked_at",
    "public.schedules": "priority",
    "public.blackout_calendars": "name",
    "public.device_commands": "result",
    "public.locations": "name",
    "public.location_policies": "name",
    "public.telemetry_rules": "name",
    "public.command_types": "description",
    "public.blocklist_entries": "note",
    "public.app_categories": "name",
    "public.deployment_files": "description",
    "public.software_packages": "name",
    "public.audit_log": "action",
    "public.audit_list": "action",
}


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


def labels(conn: Any, world: Any, table: str, key: str) -> dict[str, str]:
    """Say of each row whose it is: m, f, or a for what belongs to nobody."""
    owned = {
        "public.owners": "id",
        "fleet.run_progress": "(select owner_id from public.schedule_runs where id = run_id)",
        "fleet.run_zones": "(select owner_id from public.schedule_runs where id = run_id)",
        "fleet.judged_movers": "(select owner_id from public.schedule_runs where id = run_id)",
        "public.scheduled_tasks": "(select s.owner_id from public.schedules as s"
        " where s.id = scheduled_tasks.id)",
        "public.scheduled_task_executions": "(select s.owner_id from public.schedules as s"
        " where s.id = task_id)",
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
    everybodys = {found for found, of in all_rows.items() if of == "a"}
    if everybodys and everybodys < reached:
        return letter(reached - everybodys, all_rows).upper()
    assert len(kinds) == 1, f"a mixture of {kinds}"
    (kind,) = kinds
    whole = {found for found, of in all_rows.items() if of == kind}
    return kind if reached == whole or kind == "f" else "s"


def attempt(
    conn: Any,
    world: Any,
    caller: str,
    table: str,
    verb: str,
    matrix: dict[str, dict[str, str]],
    inserts: dict[str, str],
) -> str:
    """Try one verb on one table as one caller, and say what was reached."""
    key = matrix[table]["key"]
    before = labels(conn, world, table, key)
    column = CHANGED.get(table, key if key.isidentifier() else "owner_id")
    statements = {
        "select": f"select ({key})::text from {table}",
        "update": f"update {table} set {column} = {column}",
        "delete": f"delete from {table}",
        "insert": f"insert into {table} "
        + inserts.get(table, "default values").format(**vars(world.mine)),
    }
    world.become(conn, caller)
    try:
        found = conn.execute(statements[verb])
        rows = {row[0] for row in found.fetchall()} if verb == "select" else set()
        conn.execute("reset role")
    except psycopg.Error as error:
        assert error.sqlstate is not None
        # 55000 is a view that cannot be written at all.
        if error.sqlstate in ("42501", "PT403", "PT404", "55000"):
            return "x"
        # 409 is a rule of ours about the rows that are there.
        assert error.sqlstate.startswith(("23", "PT409")), f"{error.sqlstate} {error}"
        return "c"
    if verb == "select":
        return letter(rows, before)
    after = labels(conn, world, table, key)
    if verb == "insert":
        return "m" if len(after) > len(before) else "-"
    if verb == "delete":
        return letter(set(before) - set(after), before)
    touched = conn.execute(
        f"select ({key})::text from {table} where xmin = pg_current_xact_id()::xid"
    ).fetchall()
    return letter({row[0] for row in touched}, before)
