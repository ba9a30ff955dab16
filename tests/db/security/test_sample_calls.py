"""Every function that can act, called by everybody who has no business with my fleet."""

from __future__ import annotations

import json
from typing import Any

import pytest

# A call with ids of my fleet for each function of the API, and for each behind it that is no
# twin of one.
CALLS = {
    "public.add_to_group": "({empty_group}, array[{device}::bigint])",
    "public.blackout_calendar_id": "('{calendar}')",
    "public.device_id": "('{device}')",
    "public.expected_devices": "('{{}}', {group})",
    "public.group_id": "('{group}')",
    "public.integration_id": "('{integration}')",
    "public.location_id": "('{location}')",
    "public.owner_id": "('{owner}')",
    "public.profile_id": "('mine-wifi')",
    "public.remove_from_group": "({group}, array[{device}::bigint])",
    "public.schedule_id": "('{schedule}')",
    "public.tag_device": "({device}, '{{taken}}')",
    "public.webhook_endpoint_id": "('{endpoint}')",
    "fleet.profiles_by_name": "('mine-wifi', null)",
    "public.apply_document": "('{{\"version\": 1}}', false, true, '{owner}')",
    "public.bulk_schedules": "('cancel', '{{\"ids\": [{schedule}]}}', false)",
    "public.calendar_ics": "()",
    "public.cancel_command": "({command}, 'because')",
    "public.cancel_schedule": "({schedule}, 'because')",
    "public.claim_commands": "(10, null)",
    "public.create_blackout_calendar": "('x', '[]', '', '{owner}')",
    "public.create_calendar_feed": "('{{}}', '', '{owner}')",
    "public.create_enrollment_code": "({device})",
    "public.create_owner": "('another')",
    "public.accept_invitation": "('0123')",
    "public.delete_owner": "('{owner}')",
    "public.invite_member": "('{owner}')",
    "public.leave_owner": "('{owner}')",
    "public.remove_member": "('{owner}', '{person}')",
    "public.rename_owner": "('{owner}', 'mine')",
    "public.revoke_invitation": "({invitation})",
    "public.set_member_permissions": "('{owner}', '{person}', '{{view}}')",
    "public.set_owner_timezone": "('{owner}', 'UTC')",
    "fleet.is_default_owner": "('{owner}')",
    "public.create_schedule": "('{spec}')",
    "public.create_schedules": "(array['{spec}']::jsonb[])",
    "public.create_template": '(\'{{"owner_id": "{owner}", "name": "x", "spec": {{}}}}\')',
    "public.create_webhook_endpoint": '(\'{{"owner_id": "{owner}",'
    ' "url": "https://hooks.example.com"}}\')',
    "public.delete_blackout_calendar": "({calendar})",
    "public.delete_group": "({group}, true)",
    "public.subscribe_blackouts": "('https://example.com/x.ics', 'x', p_owner_id => '{owner}')",
    "public.unsubscribe_blackouts": "({calendar})",
    "public.create_integration": '(\'{{"owner_id": "{owner}", "integration_type": "simplemdm"}}\')',
    "public.create_integration_webhook": "({integration})",
    "public.revoke_integration_webhook": "({integration_webhook})",
    "public.create_geo_schedule": '(\'{{"owner_id": "{owner}", "name": "new", "device_id":'
    ' {device}, "apps": ["chess"], "start_minute": 0, "end_minute": 60}}\')',
    "public.update_geo_schedule": '({geo_schedule}, \'{{"apps": ["go"]}}\')',
    "public.delete_geo_schedule": "({geo_schedule})",
    "public.override_geo_commitment": "({geo_schedule}, 'because')",
    "public.explain_geo": "({device})",
    "public.preview_geo_schedule": '(\'{{"owner_id": "{owner}", "name": "new", "device_id":'
    ' {device}, "apps": ["chess"], "start_minute": 0, "end_minute": 60}}\')',
    "public.geo_actions_due": "()",
    "public.report_geo_action": "({geo_action}, 'running')",
    "public.retry_deployment": "({deployment})",
    "public.abort_rollout": "({rollout})",
    "public.approve_rollout": "({rollout})",
    "public.pause_rollout": "({rollout})",
    "public.resume_rollout": "({rollout})",
    "fleet.change_rollout": "({rollout}, 'aborted', 'because')",
    "public.deployment_manifest": "({deploy_command})",
    "public.delete_integration": "({integration})",
    "public.delete_profile": "({profile})",
    "public.upload_profile": "('x', '<plist/>', {integration})",
    "public.end_profile": "({install})",
    "public.assign_profile": "('7', '{{\"selector\": {{}}}}', '', '{owner}')",
    "public.unassign_profile": "({assignment})",
    "public.profile_drift": "('{owner}')",
    "public.reconcile_profiles": "('{owner}')",
    "public.extend_profile": "({install}, '1 hour')",
    "public.install_profile": "('7', {device}, '1 hour')",
    "public.pause_integration": "({integration})",
    "public.remove_profile": "('7', {device})",
    "public.resume_integration": "({integration})",
    "public.set_integration_secret": "({integration}, 'another')",
    "public.sync_integration": "({integration})",
    "fleet.set_integration_status": "({integration}, 'disabled', 'because')",
    "public.delete_schedule": "({schedule})",
    "public.delete_template": "('{template}')",
    "public.delete_webhook_endpoint": "({endpoint})",
    "public.describe_schedule": "({schedule})",
    "public.device_checkin": '(\'{{"platform": "taken over"}}\')',
    "public.diff_schedule": "({schedule}, '{{}}')",
    "public.duplicate_schedule": "({schedule})",
    "public.explain_schedule": "({schedule}, now(), {device})",
    "public.export_schedules": "()",
    "public.extend_command": "({command}, 0)",
    "public.finish_command": "({command}, 0, 'completed')",
    "public.finish_commands": (
        '(\'[{{"command_id": {command}, "attempt": 0, "status": "completed"}}]\')'
    ),
    "public.work": (
        '(\'[{{"command_id": {command}, "attempt": 0, "status": "completed"}}]\', 10, null)'
    ),
    "public.count_touched_devices": "('schedule', array[{schedule}::bigint])",
    "public.fleet_status": "()",
    "public.group_devices": "({group})",
    "public.import_blackouts": "('x', '[]', '', '{owner}')",
    "public.instantiate_template": "('{template}')",
    "public.verify_webhook_endpoint": "({endpoint}, 'x')",
    "public.owner_usage": "('{owner}')",
    "public.pause_schedule": "({schedule}, 'because')",
    "public.preview_schedule": "('{spec}')",
    "public.redeliver": "({delivery})",
    "public.rekey_device": "({device})",
    "public.report_location": "(52.52, 13.405, 5, '2020-01-01T00:00:00Z')",
    "public.release_command": "({command}, 0)",
    "public.resume_schedule": "({schedule})",
    "public.retire_device": "({device})",
    "public.revoke_calendar_feed": "({feed})",
    "public.revoke_enrollment_code": "({code})",
    "public.rotate_webhook_secret": "({endpoint})",
    "public.run_schedule": "({schedule})",
    "public.schedule_calendar": "(current_date, current_date + 1)",
    "public.schedule_conflicts": "()",
    "public.schedule_history": "({schedule})",
    "public.schedule_stats": "()",
    "public.send_commands": "('{{\"device_ids\": [{device}]}}', 'lock')",
    "public.send_command": "({device}, 'lock')",
    "public.simulate_fleet": "()",
    "public.backfill_sync": "({integration}, now() - interval '1 day')",
    "public.change_sync": "({integration}, '{{}}')",
    "public.check_sync": "({integration})",
    "public.create_sync_job": "()",
    "public.sync_status": "({integration})",
    "public.add_ready_made_templates": "('{owner}')",
    "public.block": "('software', '{{chess}}', null, '', '{owner}')",
    "public.device_blocklist": "('website')",
    "public.enable_telemetry_rule": "({rule}, false)",
    "fleet.rule_met_for": "({rule})",
    "public.set_desired_state": "({device}, '{{\"led\": true}}')",
    "public.resolve_sync_conflict": "({sync_conflict}, 'local')",
    "public.telemetry_gaps": "({device})",
    "public.telemetry_hours": "({device})",
    "public.telemetry_points": "({device})",
    "public.upcoming_runs": "({schedule})",
    "public.test_webhook_endpoint": "({endpoint})",
    "public.update_schedule": "({schedule}, '{{\"priority\": 1}}')",
    "public.update_webhook_endpoint": "({endpoint}, '{{\"enabled\": false}}')",
    "fleet.calendar_of_caller": "('{{}}', now(), now() + interval '1 day')",
    "fleet.careful_claims": "('{{}}')",
    "fleet.create_enrollment_code": "(null, 1, '1 day', '{{}}', array[{group}::bigint], null)",
    "fleet.current_device_id": "()",
    "fleet.counted": "(2, 'run', 'runs')",
    "fleet.current_subject": "()",
    "fleet.current_user_id": "()",
    "fleet.engine_status": "(now())",
    "fleet.is_trusted_caller": "()",
    "fleet.jwt_claim": "('sub')",
    "fleet.jwt_claims": "()",
    "fleet.may_read_object": "('{owner}/x')",
    "fleet.may_write_object": "('{owner}/x')",
    "fleet.my_owners": "('admin')",
    "fleet.require_device": "()",
    "fleet.working_device_id": "()",
    "fleet.run_counts": "(now())",
    "fleet.run_figures": "(now())",
    "fleet.schedule_figures": "(now())",
    "fleet.status_problems": "('{{}}', '{{}}', '{{}}', now())",
    "fleet.common_checks": "('{{}}', '{{}}', now())",
    "fleet.zone_status": "()",
    "fleet.trace_of": "(null, '{owner}', 1, 1)",
    "fleet.set_schedule_status": "({schedule}, 'cancelled', 'because')",
}
# Functions that find no fault with the caller: they speak of what the caller has, which is
# nothing of mine.
ANSWERING = """
    public.bulk_schedules public.calendar_ics public.create_owner public.create_sync_job
    public.expected_devices
    public.export_schedules
    public.count_touched_devices fleet.counted fleet.status_problems fleet.zone_status
    fleet.common_checks
    fleet.trace_of
    public.fleet_status public.group_devices public.preview_schedule public.remove_from_group
    public.schedule_calendar
    public.schedule_conflicts
    public.schedule_stats public.simulate_fleet fleet.calendar_of_caller
    fleet.careful_claims fleet.current_device_id fleet.current_subject fleet.current_user_id
    fleet.working_device_id
    fleet.profiles_by_name
    fleet.engine_status fleet.is_default_owner fleet.is_trusted_caller fleet.jwt_claim
    fleet.jwt_claims fleet.my_owners
    fleet.may_read_object fleet.may_write_object
    fleet.run_counts fleet.run_figures fleet.schedule_figures fleet.rule_met_for
""".split()
FOR_DEVICES = """
    public.claim_commands public.device_checkin public.extend_command public.finish_command
    public.finish_commands public.work public.release_command
    public.report_location fleet.require_device
    public.geo_actions_due public.report_geo_action public.device_blocklist
""".split()
STRANGERS = ["stranger", "sibling", "foreign_device", "retired", "nobody"]

MINE = (
    "owner_members",
    "owner_invitations",
    "devices",
    "device_groups",
    "schedules",
    "schedule_runs",
    "device_commands",
    "enrollment_codes",
    "webhook_endpoints",
    "webhook_deliveries",
    "calendar_feeds",
    "blackout_calendars",
    "schedule_templates",
    "locations",
    "location_policies",
    "location_events",
    "telemetry_rules",
    "blocklist_entries",
    "sync_conflicts",
    "app_categories",
    "geo_schedules",
    "geo_actions",
    "geo_action_reports",
    "geo_commitments",
    "device_integrations",
    "device_links",
    "mdm_api_logs",
    "integration_activity_log",
    "integration_webhooks",
    "profile_installs",
    "profile_assignments",
    "device_profiles",
    "profiles",
    "run_waves",
    "rollouts",
    "rollout_approvals",
    "deployment_files",
    "software_packages",
    "deployments",
    "deployment_targets",
)


def snapshot(conn: Any, world: Any) -> Any:
    """Give all that my fleet has, but for when its devices were heard of."""
    conn.execute("reset role")
    rows = [
        conn.execute(
            "select jsonb_agg(to_jsonb(t) - '{last_seen,updated_at}'::text[] order by t::text)"
            f" from public.{table} as t where owner_id = %s"
            " and to_jsonb(t) ->> 'hostname' is distinct from %s",
            (world.mine.owner, world.mine.hostname.replace("-pc", "-laptop")),
        ).fetchone()
        for table in MINE
    ]
    assert all(rows)
    return rows


def test_every_function_that_can_act_has_a_sample_call(one_world: Any) -> None:
    with one_world.database.connect() as conn:
        names = conn.execute(
            "select p.pronamespace::regnamespace || '.' || p.proname from pg_proc as p"
            " where p.pronamespace::regnamespace::text in ('public', 'fleet')"
            " and has_function_privilege('authenticated', p.oid, 'execute')"
            " and (p.provolatile = 'v' or p.prosecdef"
            "   or p.pronamespace::regnamespace::text = 'public')"
            # What a wrapper of the same name calls is called through it.
            " and not exists (select 1 from pg_proc as w"
            "   where w.pronamespace = 'public'::regnamespace and w.proname = p.proname"
            "   and w.oid <> p.oid)"
        ).fetchall()
    assert {name for (name,) in names} - set(CALLS) == set()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_call_with_ids_of_my_fleet_does_and_tells_nothing(one_world: Any, name: str) -> None:
    spec = json.dumps({"action_type": "lock", "device_ids": [one_world.mine.device]})
    arguments = CALLS[name].format(**vars(one_world.mine), spec=spec)
    query = f"select jsonb_agg(to_jsonb(x)) from {name}{arguments} as x"
    with one_world.acting("service_role") as conn:
        before = snapshot(conn, one_world)
        for caller in STRANGERS:
            one_world.become(conn, caller)
            check_answer(one_world, name, caller, one_world.outcome(conn, query))
            assert snapshot(conn, one_world) == before, caller


def check_answer(world: Any, name: str, caller: str, answer: Any) -> None:
    refused = isinstance(answer, tuple)
    told = json.dumps(answer)
    assert str(world.mine.device_auth) not in told
    if caller != "sibling" or name not in FOR_DEVICES:
        # In an error only what was asked about is named.
        assert refused or "mine-" not in told, (caller, told)
        assert refused or str(world.mine.owner) not in told, (caller, told)
    if name in FOR_DEVICES and caller in ("sibling", "foreign_device"):
        assert not refused
        assert '"accepted": true' not in told
    elif name not in ANSWERING or refused:
        assert refused, (caller, answer)
        assert answer[0] in ("PT403", "PT404"), (caller, answer)
