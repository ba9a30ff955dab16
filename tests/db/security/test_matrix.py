"""Who reaches which rows, tried by every kind of caller with every verb.

A table or view that this page does not name fails by its name.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.helpers.attempts import attempt, relations

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
# a every row, M and F what is everybody's too, c a constraint.
# An insert is of a row for my fleet: x refused, m done.
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
    # Each has one admin, who stays, whoever says otherwise.
    "public.owner_members": table(
        "owner_id || '/' || user_id", MEMBERS, ADDED_BY_SERVICE, MEMBERS, "x - c c - - - - x c"
    ),
    "public.owner_invitations": kept("id"),
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
    "public.command_types": table("id", "x - M F - - - - x a", ADDED, MEMBERS, MEMBERS),
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
    "public.run_waves": table("run_id || '/' || wave", MEMBERS),
    "public.rollouts": table("run_id", MEMBERS),
    "public.rollout_approvals": table("run_id || '/' || user_id", MEMBERS),
    "public.rollout_list": table("run_id", MEMBERS),
    "public.rollout_group_list": table("run_id || '/' || wave", MEMBERS),
    "fleet.rollout_authors": table("schedule_id"),
    "fleet.rollout_queue": table("command_id"),
    "fleet.rollout_progress": table("run_id"),
    "fleet.rollout_releases": table("run_id"),
    "public.deployment_files": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.software_packages": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.deployments": table("id", MEMBERS),
    "public.deployment_targets": table("deployment_id || '/' || device_id", MEMBERS),
    "public.file_list": table("id", MEMBERS),
    "public.package_list": table("id", MEMBERS),
    "public.deployment_list": table("id", MEMBERS),
    "public.deployment_target_list": table("deployment_id || '/' || device_id", MEMBERS),
    "public.profile_holds": table("device_id || '/' || holder", MEMBERS),
    "public.audit_log": table("id", MEMBERS),
    "public.audit_list": table("id", MEMBERS),
    "public.owner_list": table("id", MEMBERS),
    "public.owner_member_list": table("owner_id || '/' || user_id", MEMBERS),
    "public.owner_invitation_list": table("id", MEMBERS),
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
    "public.telemetry_rules": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.function_log_list": table("id", MEMBERS),
    "public.sync_conflicts": kept("id"),
    "public.blocklist_entries": table("id", MEMBERS, ADDED, MEMBERS, MEMBERS),
    "public.blocklist_list": table("id", MEMBERS),
    "public.device_requests": kept("device_id || '/' || day"),
    "public.request_list": table("owner_id", MEMBERS),
    "public.device_health_list": table("device_id", "x - m f m - - f x a"),
    "public.telemetry_rule_list": table("id", MEMBERS),
    "fleet.health_reports": table("device_id"),
    "public.sync_conflict_list": table("id", MEMBERS),
    "public.device_state_list": table("device_id", MEMBERS),
    "fleet.sync_bases": table("device_id"),
    "public.device_telemetry_history": table("device_id", "x - m f s s - f x a"),
    "public.device_telemetry_latest": table("device_id", "x - m f s s - f x a"),
    "public.setting_list": table("name", SERVICE),
    "public.fleet_metrics": table("name || labels::text", SERVICE),
    "public.pg_cron_secrets": kept("name", SERVICE),
    "fleet.settings": table("name", SERVICE),
    "fleet.heartbeat": table("id", SERVICE),
    "fleet.tick_work": table("step", SERVICE),
    "fleet.told_runs": table("id"),
    "fleet.owner_quotas": table("name", SERVICE),
    "fleet.quota_use": table("name", SERVICE),
    "fleet.time_zones": table("name", SERVICE),
    "fleet.device_credentials": table("device_id"),
    "fleet.doorbells": table("device_id"),
    "fleet.doorbell_stretches": table("id"),
    "fleet.golioth_syncs": table("integration_id"),
    "fleet.sync_cursors": table("device_id"),
    "fleet.telemetry_rule_states": table("device_id"),
    "fleet.telemetry_seen": table("device_id"),
    "fleet.sync_backfills": table("id"),
    "fleet.webhook_inbox": table("id"),
    "fleet.mdm_work": table("command_id"),
    "fleet.mdm_rereads": table("external_id"),
    "fleet.rate_limits": table("integration_id"),
    "fleet.profile_uploads": table("profile_id"),
    "fleet.pokes": table("function"),
    "fleet.run_progress": table("run_id"),
    "fleet.chain_steps": table("owner_id"),
    "fleet.run_zones": table("run_id"),
    "fleet.judged_movers": table("run_id"),
    "fleet.owner_zones": table("owner_id || '/' || zone"),
    "fleet.webhook_handlers": table("integration_type"),
    "fleet.webhook_secrets": table("endpoint_id"),
    "fleet.payload_secrets": table("id"),
    "fleet.mailbox_codes": table("endpoint_id"),
    "fleet.owner_moves": table("owner_id"),
    "fleet.moved_devices": table("device_id"),
    "fleet.arriving_rows": table("table_name"),
}

# A row for my fleet, as an attacker would write it; {…} are ids of my fleet.
INSERTS = {
    "public.owners": "(name) values ('new')",
    "public.owner_members": "(owner_id, user_id) values ('{owner}', '{sibling_auth}')",
    "public.owner_invitations": "(owner_id, permissions, code_hash, expires_at)"
    " values ('{owner}', '{{view}}', '\\x00', now())",
    "public.devices": "(owner_id, hostname) values ('{owner}', 'new')",
    "public.device_groups": "(owner_id, name) values ('{owner}', 'new')",
    "public.device_group_members": "(group_id, device_id) values ({empty_group}, {device})",
    "public.enrollment_codes": "(owner_id, code_hash, expires_at)"
    " values ('{owner}', '\\x00', now())",
    "public.schedules": "(owner_id, name, action_type, device_ids)"
    " values ('{owner}', 'new', 'lock', '{{{device}}}')",
    "public.schedule_runs": "(schedule_id, owner_id, scheduled_for)"
    " values ({schedule}, '{owner}', '2020-01-01')",
    "public.command_types": "(owner_id, name) values ('{owner}', 'kiosk-new')",
    "public.device_commands": "(device_id, command_type) values ({sibling}, 'lock')",
    "public.pg_cron_secrets": "(name, secret) values ('new', 'x')",
    "fleet.settings": "(name, value) values ('history_days', '1')",
    "fleet.heartbeat": "(id) values (true)",
    "fleet.tick_work": "(step) values ('new')",
    "fleet.told_runs": "(id) values (true)",
    "fleet.owner_quotas": "(owner_id, name, value) values ('{owner}', 'devices', 1)",
    "fleet.quota_use": "(owner_id, name, left_over, filled_at)"
    " values ('{owner}', 'telemetry_a_day', 1, now())",
    "fleet.time_zones": "(name) values ('new')",
    "fleet.device_credentials": "(device_id, owner_id, secret_hash)"
    " values ({retired}, '{owner}', '\\x00')",
    "fleet.doorbells": "(device_id, owner_id, ring_at, command_id, command_type)"
    " values ({device}, '{owner}', now(), 1, 'lock')",
    "fleet.doorbell_stretches": "(owner_id, ring_at, next_id, last_id)"
    " values ('{owner}', now(), 1, 2)",
    "fleet.run_progress": "(run_id, completed, failed) values ({run}, 1, 0)",
    "fleet.chain_steps": "(owner_id, schedule_id, after_run_id, device_id)"
    " values ('{owner}', {schedule}, {run}, {device})",
    "fleet.run_zones": "(run_id, due_at, starts_at, zones) values ({run}, now(), now(), '{{UTC}}')",
    "fleet.judged_movers": "(run_id, device_id) values ({run}, {sibling})",
    "fleet.owner_zones": "(owner_id, zone, devices) values ('{owner}', 'new', 1)",
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
    "fleet.mdm_work": "(command_id, owner_id, device_id, integration_id, due_at)"
    " values (1, '{owner}', {device}, {integration}, now())",
    "fleet.mdm_rereads": "(integration_id, owner_id, external_id, asked_at, look_at)"
    " values ({integration}, '{owner}', 'new', now(), now())",
    "fleet.rate_limits": "(integration_id, owner_id, rate, tokens, filled_at)"
    " values ({integration}, '{owner}', 1, 1, now())",
    "fleet.golioth_syncs": "(integration_id, owner_id) values ({integration}, '{owner}')",
    "fleet.sync_cursors": "(integration_id, device_id, stream, owner_id, read_to)"
    " values ({integration}, {device}, '/', '{owner}', now())",
    "public.telemetry_rules": "(owner_id, condition, action_type)"
    " values ('{owner}', 't > 1', 'lock')",
    "fleet.telemetry_rule_states": "(rule_id, device_id, owner_id, is_met, changed_at)"
    " values (1, {device}, '{owner}', true, now())",
    "fleet.telemetry_seen": "(device_id, owner_id, last_at) values ({device}, '{owner}', now())",
    "fleet.sync_backfills": "(integration_id, owner_id, wanted_from, wanted_to, read_to)"
    " values ({integration}, '{owner}', '2020-01-01', '2020-01-02', '2020-01-01')",
    "public.blocklist_entries": "(owner_id, kind, pattern) values ('{owner}', 'software', 'new')",
    "public.device_requests": "(device_id, day, owner_id)"
    " values ({device}, '2001-01-01', '{owner}')",
    "fleet.health_reports": "(device_id, owner_id, at, data)"
    " values ({sibling}, '{owner}', now(), '{{}}')",
    "public.sync_conflicts": "(owner_id, integration_id, device_id, field)"
    " values ('{owner}', {integration}, {device}, 'new')",
    "fleet.sync_bases": "(integration_id, device_id, owner_id)"
    " values ({integration}, {device}, '{owner}')",
    "fleet.webhook_inbox": "(owner_id, integration_id, message_key, external_id, digest,"
    " received_at) values ('{owner}', {integration}, '\\x00', 'new', gen_random_uuid(), now())",
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
    "public.run_waves": "(run_id, wave, owner_id, name) values ({run}, 7, '{owner}', 'new')",
    "public.rollouts": "(run_id, owner_id, schedule_id, plan)"
    " values ({run}, '{owner}', {schedule}, '{{}}')",
    "public.rollout_approvals": "(run_id, wave, user_id, owner_id)"
    " values ({rollout}, 1, '{sibling_auth}', '{owner}')",
    "fleet.rollout_authors": "(schedule_id, user_id) values ({schedule}, '{sibling_auth}')",
    "fleet.rollout_queue": "(run_id, wave, opens_at, command_id, device_id)"
    " values ({rollout}, 0, now(), 1, {device})",
    "fleet.rollout_progress": "(run_id, wave, outcome, n) values ({rollout}, 0, 'targeted', 1)",
    "fleet.rollout_releases": "(run_id, released_at, n) values ({rollout}, now(), 1)",
    "public.deployment_files": "(owner_id, name, size_bytes, sha256)"
    " values ('{owner}', 'new', 1, repeat('0', 64))",
    "public.software_packages": "(owner_id, name, version) values ('{owner}', 'new', '1')",
    "public.deployments": "(owner_id, kind, name, manifest)"
    " values ('{owner}', 'files', 'new', '{{}}')",
    "public.deployment_targets": "(deployment_id, device_id, owner_id, device_hostname,"
    " command_id) values ({deployment}, {sibling}, '{owner}', 'x', 1)",
    "public.profile_holds": "(device_id, profile_id, holder, owner_id)"
    " values ({device}, '7', 'new', '{owner}')",
    "public.audit_log": "(owner_id, actor_role, table_name, row_id, action)"
    " values ('{owner}', 'x', 'x', 'x', 'insert')",
    "fleet.mailbox_codes": "(endpoint_id, owner_id, code) values ({endpoint}, '{owner}', 'x')",
    "fleet.payload_secrets": "(owner_id, value) values ('{owner}', '1')",
    "fleet.owner_moves": "(owner_id) values ('{owner}')",
    "fleet.moved_devices": "(secret_hash, device_id, owner_id) values ('\\x00', 1, '{owner}')",
    "fleet.arriving_rows": "(owner_id, table_name, batch, rows) values ('{owner}', 'x', 1, '[]')",
    "fleet.pokes": "(function, poked_at) values ('new', now())",
    "fleet.webhook_handlers": "(integration_type, function) values ('new', 'fleet.take')",
    "fleet.webhook_secrets": "(endpoint_id, owner_id, key) values ({endpoint}, '{owner}', '\\x00')",
}


def test_every_table_and_view_is_in_the_matrix(world: Any) -> None:
    assert relations(world, "rvmpf") == set(MATRIX)


@pytest.mark.parametrize("table", MATRIX)
def test_each_caller_reaches_what_the_matrix_says(world: Any, table: str) -> None:
    found = {}
    with world.database.connect("supabase_admin") as conn:
        for verb in VERBS:
            results = []
            for caller in CALLERS:
                results.append(attempt(conn, world, caller, table, verb, MATRIX, INSERTS))
                conn.rollback()
            found[verb] = " ".join(results)

    assert found == {verb: MATRIX[table][verb] for verb in VERBS}
