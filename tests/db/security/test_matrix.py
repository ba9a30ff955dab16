"""Who reaches which rows, tried by every kind of caller with every verb.

A table or view that this page does not name fails by its name.
"""

from __future__ import annotations

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
#            anon nobody member stranger device sibling retired foreign_device worker service_role
REFUSED = "x x x x x x x x x x"
SERVICE = "x x x x x x x x x a"  # the service role reaches every row
MEMBERS = "x - m f - - - - x a"  # people reach what is theirs, devices nothing
ADDED = "x x m x x x x x x m"  # people and the service role add rows
ADDED_BY_SERVICE = "x x x x x x x x x m"


def table(
    key: str,
    select: str = REFUSED,
    insert: str = REFUSED,
    update: str = REFUSED,
    delete: str = REFUSED,
) -> dict[str, str]:
    return {"key": key, "select": select, "insert": insert, "update": update, "delete": delete}


def kept(key: str, select: str = MEMBERS) -> dict[str, str]:
    """Describe a table that people see, and only functions and the service role write."""
    return table(key, select, ADDED_BY_SERVICE, SERVICE, SERVICE)


MATRIX: dict[str, dict[str, str]] = {
    "public.owners": table("id", MEMBERS, ADDED_BY_SERVICE, MEMBERS, "x x x x x x x x x c"),
    "public.owner_members": table("owner_id || '/' || user_id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.devices": table("id", "x - m f s s - f x a", ADDED, MEMBERS, MEMBERS),
    "public.device_groups": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.device_group_members": table(
        "group_id || '/' || device_id", MEMBERS, ADDED, SERVICE, MEMBERS
    ),
    "public.enrollment_codes": table("id", MEMBERS, ADDED_BY_SERVICE, MEMBERS, SERVICE),
    "public.schedules": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.schedule_runs": kept("id"),
    "public.schedule_templates": table("id", MEMBERS, ADDED_BY_SERVICE, REFUSED, SERVICE),
    "public.scheduled_tasks": table("id", MEMBERS),
    "public.scheduled_task_executions": table("id", MEMBERS),
    "public.blackout_calendars": table("id", MEMBERS, ADDED_BY_SERVICE, MEMBERS, SERVICE),
    "public.blackout_periods": kept("id"),
    "public.command_types": kept("name", "x - a a - - - - x a"),
    "public.device_commands": table(
        "id", "x - m f m - - f x a", ADDED, "x - m f m - - f x a", SERVICE
    ),
    "public.webhook_endpoints": kept("id"),
    "public.webhook_deliveries": kept("id"),
    "public.calendar_feeds": kept("id"),
    "public.device_integrations": kept("id"),
    "public.device_links": kept("device_id || '/' || integration_id"),
    "public.mdm_api_logs": kept("id"),
    "public.integration_activity_log": kept("id"),
    "public.integration_webhooks": kept("id"),
    "public.profile_installs": kept("id"),
    "public.profile_assignments": kept("id"),
    "public.device_profiles": kept("device_id || '/' || profile_id"),
    "public.profiles": kept("id"),
    "public.profile_schedules": table("id", MEMBERS),
    "public.temporary_profiles": table("install_id", MEMBERS),
    "public.locations": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.location_policies": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.device_positions": table("device_id", MEMBERS),
    "public.device_places": table("device_id || '/' || location_id", MEMBERS),
    "public.location_events": table("id", MEMBERS),
    "public.location_actions": table("event_id || '/' || policy_id", MEMBERS),
    "public.app_categories": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.geo_schedules": table("id", MEMBERS, ADDED),
    "public.geo_actions": table("id", MEMBERS),
    "public.geo_action_reports": table("geo_action_id || '/' || device_id", MEMBERS),
    "public.geo_commitments": table("id", MEMBERS),
    "public.geo_schedule_list": table("id", MEMBERS),
    "public.geo_action_list": table("id", MEMBERS),
    "public.profile_holds": table("device_id || '/' || holder", MEMBERS),
    "public.audit_log": table("id", MEMBERS),
    "public.audit_list": table("id", MEMBERS),
    "public.owner_list": table("id", MEMBERS),
    "public.device_list": table("id", MEMBERS),
    "public.group_list": table("id", MEMBERS),
    "public.enrollment_code_list": table("id", MEMBERS),
    "public.schedule_list": table("id", MEMBERS),
    "public.run_list": table("id", MEMBERS),
    "public.template_list": table("id", MEMBERS),
    "public.blackout_list": table("id", MEMBERS),
    "public.blackout_period_list": table("id", MEMBERS),
    "public.command_list": table("id", "x - m f m - - f x a"),
    "public.location_list": table("id", MEMBERS),
    "public.location_policy_list": table("id", MEMBERS),
    "public.device_location_list": table("id", MEMBERS),
    "public.integration_list": table("id", MEMBERS),
    "public.integration_activity_list": table("id", MEMBERS),
    "public.integration_webhook_list": table("id", MEMBERS),
    "public.profile_list": table("id", MEMBERS),
    "public.calendar_feed_list": table("id", MEMBERS),
    "public.webhook_list": table("id", MEMBERS),
    "public.webhook_delivery_list": table("id", MEMBERS),
    "public.setting_list": table("name", SERVICE),
    "public.pg_cron_secrets": kept("name", SERVICE),
    "fleet.settings": table("name", SERVICE),
    "fleet.heartbeat": table("id", SERVICE),
    "fleet.time_zones": table("name", SERVICE),
    "fleet.device_credentials": table("device_id"),
    "fleet.doorbells": table("device_id"),
    "fleet.mdm_work": table("command_id"),
    "fleet.mdm_rereads": table("external_id"),
    "fleet.rate_limits": table("integration_id"),
    "fleet.profile_uploads": table("profile_id"),
    "fleet.pokes": table("function"),
    "fleet.run_progress": table("run_id"),
    "fleet.webhook_handlers": table("integration_type"),
    "fleet.webhook_secrets": table("endpoint_id"),
}

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
    "public.schedule_templates": "(owner_id, name, version, spec)"
    " values ('{owner}', 'new', 1, '{{}}')",
    "public.blackout_calendars": "(owner_id, name) values ('{owner}', 'new')",
    "public.blackout_periods": "(calendar_id, owner_id, starts_on, ends_on)"
    " values ({calendar}, '{owner}', '2031-01-01', '2031-01-02')",
    "public.webhook_endpoints": "(owner_id, url) values ('{owner}', 'https://hooks.example.com')",
    "public.webhook_deliveries": "(endpoint_id, owner_id, event_id, event, payload,"
    " next_attempt_at) values ({endpoint}, '{owner}', 'new', 'run.failed', '{{}}', now())",
    "public.calendar_feeds": "(owner_id, token_hash) values ('{owner}', '\\x00')",
    "public.device_integrations": "(owner_id, name, integration_type)"
    " values ('{owner}', 'new', 'simplemdm')",
    "public.device_links": "(device_id, integration_id, owner_id, external_id)"
    " values ({sibling}, {integration}, '{owner}', '2')",
    "public.mdm_api_logs": "(owner_id, method, url) values ('{owner}', 'GET', 'x')",
    "public.integration_activity_log": "(owner_id, integration_id, activity_type, status)"
    " values ('{owner}', {integration}, 'sync_import', 'completed')",
    "public.integration_webhooks": "(owner_id, integration_id, token_hash)"
    " values ('{owner}', {integration}, '\\x00')",
    "public.profile_installs": "(owner_id, profile_id, device_id, install_schedule_id)"
    " values ('{owner}', '7', {device}, {schedule})",
    "public.profile_assignments": "(owner_id, profile_id) values ('{owner}', '7')",
    "public.device_profiles": "(device_id, profile_id, owner_id, is_installed, changed_at)"
    " values ({device}, 'new', '{owner}', true, now())",
    "public.profiles": "(owner_id, integration_id, name) values ('{owner}', {integration}, 'new')",
    "fleet.profile_uploads": "(profile_id, owner_id, integration_id, action, asked_at, next_at)"
    " values ({profile}, '{owner}', {integration}, 'delete', now(), now())",
    "fleet.mdm_work": "(command_id, device_id, integration_id, due_at)"
    " values (1, {device}, {integration}, now())",
    "fleet.mdm_rereads": "(integration_id, external_id, asked_at, look_at)"
    " values ({integration}, 'new', now(), now())",
    "fleet.rate_limits": "(integration_id, rate, tokens, filled_at)"
    " values ({integration}, 1, 1, now())",
    "public.locations": "(owner_id, name, latitude, longitude, radius_m)"
    " values ('{owner}', 'new', 0, 0, 10)",
    "public.location_policies": "(owner_id, location_id, event, action_type)"
    " values ('{owner}', {location}, 'leave', 'lock')",
    "public.device_positions": "(device_id, owner_id) values ({sibling}, '{owner}')",
    "public.device_places": "(device_id, location_id, owner_id, is_inside, seen_at)"
    " values ({sibling}, {location}, '{owner}', true, now())",
    "public.location_events": "(owner_id, device_id, event, at)"
    " values ('{owner}', {device}, 'left', now())",
    "public.location_actions": "(event_id, policy_id, owner_id)"
    " values ({location_event}, {location_policy}, '{owner}')",
    "public.app_categories": "(owner_id, name, apps) values ('{owner}', 'new', '{{chess}}')",
    "public.geo_schedules": "(owner_id, name, device_id, apps, start_minute, end_minute)"
    " values ('{owner}', 'new', {device}, '{{chess}}', 0, 60)",
    "public.geo_actions": "(geo_schedule_id, owner_id, from_date, starts_at, ends_at,"
    " length_minutes, timezone, side, apps, unknown_location, max_location_age,"
    " update_delay_type, update_delay_seconds) values ({geo_schedule}, '{owner}', '2001-01-01',"
    " now(), now(), 0, 'UTC', 'anywhere', '{{}}', 'free', '1 hour', 'none', 0)",
    "public.geo_action_reports": "(geo_action_id, device_id, owner_id, status, reported_at)"
    " values ({geo_action}, {sibling}, '{owner}', 'running', now())",
    "public.geo_commitments": "(geo_schedule_id, device_id, owner_id, hostname, timezone)"
    " values ({geo_schedule}, {sibling}, '{owner}', 'x', 'UTC')",
    "public.profile_holds": "(device_id, profile_id, holder, owner_id)"
    " values ({device}, '7', 'new', '{owner}')",
    "public.audit_log": "(owner_id, actor_role, table_name, row_id, action)"
    " values ('{owner}', 'x', 'x', 'x', 'insert')",
    "fleet.pokes": "(function, poked_at) values ('new', now())",
    "fleet.webhook_handlers": "(integration_type, function) values ('new', 'fleet.take')",
    "fleet.webhook_secrets": "(endpoint_id, key) values ({endpoint}, '\\x00')",
}

# A column that whoever may update the table at all may update.
CHANGED = {
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
    "public.app_categories": "name",
    "public.audit_log": "action",
    "public.audit_list": "action",
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
        "fleet.mdm_rereads": "(select owner_id from public.device_integrations"
        " where id = integration_id)",
        "fleet.webhook_secrets": "(select owner_id from public.webhook_endpoints"
        " where id = endpoint_id)",
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
    assert len(kinds) == 1, f"a mixture of {kinds}"
    (kind,) = kinds
    whole = {found for found, of in all_rows.items() if of == kind}
    return kind if reached == whole or kind == "f" else "s"


def attempt(conn: Any, world: Any, caller: str, table: str, verb: str) -> str:
    """Try one verb on one table as one caller, and say what was reached."""
    key = MATRIX[table]["key"]
    before = labels(conn, world, table)
    column = CHANGED.get(table, key if key.isidentifier() else "owner_id")
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
        # 55000 is a view that cannot be written at all.
        if error.sqlstate in ("42501", "PT403", "PT404", "55000"):
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


def test_every_table_and_view_is_in_the_matrix(world: Any) -> None:
    assert relations(world, "rvmpf") == set(MATRIX)


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

    assert found == {verb: MATRIX[table][verb] for verb in VERBS}


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
