"""Which columns a signed-in caller may name, and that sequences are out of reach."""

from __future__ import annotations

from typing import Any

import pytest

# What a signed-in caller may name in a statement; all other columns are the engine's.
# Select is of no column or of every one, but for these.
SELECT_COLUMNS = {
    "public.calendar_feeds": "id owner_id name filter last_read_at revoked_at created_by"
    " created_at",
    "public.integration_webhooks": "id owner_id integration_id last_used_at revoked_at created_by"
    " created_at",
    "public.owner_invitations": "id owner_id email permissions expires_at accepted_at accepted_by"
    " revoked_at created_by created_at",
    "public.enrollment_codes": "id owner_id device_id max_uses used_count tags group_ids expires_at"
    " revoked_at created_by created_at",
}
INSERT_COLUMNS = {
    "public.devices": "owner_id hostname platform timezone tags attributes prepared",
    "public.device_groups": "owner_id name description selector",
    "public.device_group_members": "group_id device_id",
    "public.schedules": "owner_id name description action_type payload recurrence_type"
    " recurrence_config start_time end_time start_is_local end_is_local timezone device_ids"
    " group_ids selector profile_id device_id policies priority ui_initiated after_schedule_id"
    " after_on after_per_device",
    "public.device_commands": "owner_id device_id device_hostname command_type payload priority"
    " status not_before expires_at max_attempts idempotency_key",
    "public.locations": "owner_id name kind latitude longitude radius_m polygon hysteresis_m"
    " min_dwell",
    "public.location_policies": "owner_id name location_id event action_type payload group_id"
    " selector priority is_enabled",
    "public.command_types": "owner_id name description payload_keys timeout_seconds rerun_safe"
    " destructive permission",
    "public.telemetry_rules": "owner_id name condition clear_at cooldown group_id selector action"
    " action_type payload priority is_enabled",
    "public.app_categories": "owner_id name apps",
    "public.blocklist_entries": "owner_id kind pattern group_id note",
    "public.deployment_files": "owner_id name size_bytes sha256 description",
    "public.software_packages": "owner_id name version platform description file_id"
    " install_command uninstall_command detection dependencies timeout_seconds",
    "public.geo_schedules": "owner_id name device_id group_id location_id side apps categories"
    " enforce start_minute end_minute recurrence days timezone update_delay_type"
    " update_delay_seconds unknown_location max_location_age notes",
}
UPDATE_COLUMNS = {
    "public.blocklist_entries": "note",
    "public.owners": "name",
    "public.owner_members": "permissions",
    "public.devices": "hostname platform timezone tags attributes prepared",
    "public.device_groups": "name description selector",
    "public.enrollment_codes": "revoked_at",
    "public.blackout_calendars": "name description",
    "public.schedules": "name description action_type payload recurrence_type recurrence_config"
    " start_time end_time start_is_local end_is_local timezone device_ids group_ids selector"
    " profile_id device_id policies priority status status_reason after_schedule_id after_on"
    " after_per_device",
    "public.device_commands": "status result error_message executed_at",
    "public.locations": "name kind latitude longitude radius_m polygon hysteresis_m min_dwell",
    "public.location_policies": "name location_id event action_type payload group_id selector"
    " priority is_enabled",
    "public.command_types": "description payload_keys timeout_seconds rerun_safe destructive"
    " permission",
    "public.telemetry_rules": "name condition clear_at cooldown group_id selector action"
    " action_type payload priority is_enabled",
    "public.app_categories": "name apps",
    "public.deployment_files": "description",
    "public.software_packages": "name version platform description file_id install_command"
    " uninstall_command detection dependencies timeout_seconds",
}

INVISIBLE = {"public.pg_cron_secrets"}
ROLES = ("anon", "authenticated", "fleet_worker", "service_role")


def granted(world: Any, verb: str) -> dict[str, str]:
    """Give the columns of each table that signed-in callers may use with a verb."""
    with world.database.connect() as conn:
        rows = conn.execute(
            "select c.relnamespace::regnamespace || '.' || c.relname,"
            " array_agg(a.attname::text order by a.attname) filter ("
            "   where has_column_privilege('authenticated', c.oid, a.attname, %s)),"
            " count(*)"
            " from pg_class as c"
            " join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
            " where c.relnamespace::regnamespace::text in ('public', 'fleet')"
            " and c.relkind in ('r', 'p', 'v', 'm') group by 1",
            (verb,),
        ).fetchall()
    return {
        table: "*" if len(names) == count else " ".join(names)
        for table, names, count in rows
        if names
    }


def in_order(columns: dict[str, str]) -> dict[str, str]:
    return {table: " ".join(sorted(names.split())) for table, names in columns.items()}


def test_a_signed_in_caller_inserts_only_these_columns(world: Any) -> None:
    assert granted(world, "insert") == in_order(INSERT_COLUMNS)


def test_a_signed_in_caller_updates_only_these_columns(world: Any) -> None:
    assert granted(world, "update") == in_order(UPDATE_COLUMNS)


def test_a_signed_in_caller_reads_hashes_and_the_engine_s_tables_in_no_way(world: Any) -> None:
    readable = granted(world, "select")
    parts = {table: names for table, names in readable.items() if names != "*"}
    assert parts == in_order(SELECT_COLUMNS)
    assert not [table for table in readable if table.startswith("fleet.")]
    assert not INVISIBLE & set(readable)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_moves_a_sequence(world: Any, role: str) -> None:
    with world.database.connect() as conn:
        held = conn.execute(
            "select s.schemaname || '.' || s.sequencename || ' ' || p.name"
            " from pg_sequences as s, unnest('{usage,select,update}'::text[]) as p(name)"
            " where s.schemaname in ('public', 'fleet') and has_sequence_privilege("
            "   %s, format('%%I.%%I', s.schemaname, s.sequencename), p.name)",
            (role,),
        ).fetchall()
    forbidden = [
        grant
        for (grant,) in held
        if role != "service_role" or grant.startswith("fleet.") or grant.endswith(" update")
    ]
    assert forbidden == []
