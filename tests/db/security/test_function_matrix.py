"""Who may execute which function. What this page does not name must be closed to everybody.

Denial is asked of the catalogue: on some hosted versions a refused call ends the server.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

# Signed-in callers and the service role may call these through the API.
API = """
    public.accept_invitation public.delete_owner public.invite_member public.leave_owner
    public.remove_member public.rename_owner public.revoke_invitation
    public.set_member_permissions public.set_owner_timezone
    public.apply_document public.assign_profile public.bulk_schedules public.calendar_ics
    public.cancel_command public.cancel_schedule public.claim_commands
    public.create_blackout_calendar public.create_calendar_feed public.create_enrollment_code
    public.create_integration public.create_integration_webhook public.create_owner
    public.create_schedule public.create_schedules public.create_geo_schedule
    public.create_template public.create_webhook_endpoint public.delete_blackout_calendar
    public.delete_geo_schedule public.delete_group
    public.subscribe_blackouts public.unsubscribe_blackouts
    public.delete_integration public.delete_profile public.delete_schedule
    public.delete_template public.delete_webhook_endpoint public.describe_schedule
    public.retry_deployment
    public.abort_rollout public.approve_rollout public.pause_rollout public.resume_rollout
    public.deployment_manifest public.device_checkin
    public.diff_schedule public.duplicate_schedule public.end_profile public.explain_schedule
    public.explain_geo
    public.export_schedules public.extend_command public.extend_profile public.finish_command
    public.finish_commands public.work
    public.count_touched_devices public.fleet_status public.geo_actions_due
    public.group_devices public.import_blackouts public.install_profile
    public.instantiate_template public.override_geo_commitment
    public.pause_integration public.pause_schedule
    public.preview_geo_schedule
    public.preview_schedule public.profile_drift public.reconcile_profiles public.redeliver
    public.rekey_device public.release_command public.remove_profile
    public.report_geo_action public.report_location
    public.resume_integration public.resume_schedule public.retire_device
    public.revoke_calendar_feed public.revoke_enrollment_code
    public.revoke_integration_webhook public.rotate_webhook_secret
    public.run_schedule public.schedule_calendar public.schedule_conflicts
    public.schedule_history public.schedule_stats public.send_command
    public.send_commands
    public.set_integration_secret public.simulate_fleet public.sync_integration
    public.test_webhook_endpoint public.unassign_profile public.upcoming_runs
    public.backfill_sync public.change_sync public.check_sync public.create_sync_job
    public.add_ready_made_templates public.block public.device_blocklist
    public.enable_telemetry_rule
    public.sync_status public.set_desired_state public.resolve_sync_conflict
    public.telemetry_gaps public.telemetry_hours public.telemetry_points
    public.update_geo_schedule
    public.update_schedule public.update_webhook_endpoint public.upload_profile
    public.add_to_group public.remove_from_group public.tag_device
    public.blackout_calendar_id public.device_id public.expected_devices public.group_id
    public.integration_id public.location_id public.owner_id public.profile_id public.schedule_id
    public.webhook_endpoint_id public.owner_usage
    public.verify_webhook_endpoint
"""

# What those, views and policies call with the caller's own rights, besides a function of the
# same name in the schema fleet. No request reaches them by name: the schema is not exposed.
BEHIND_THE_API = """
    fleet.calendar_of_caller fleet.careful_claims fleet.current_device_id fleet.current_subject
    fleet.current_user_id fleet.device_matches fleet.engine_status fleet.is_trusted_caller
    fleet.jwt_claim fleet.jwt_claims fleet.rule_met_for
    fleet.is_default_owner fleet.working_device_id
    fleet.may_read_object fleet.may_write_object
    fleet.change_rollout
    fleet.my_owners fleet.profiles_by_name fleet.require_device fleet.run_counts fleet.run_figures
    fleet.schedule_figures fleet.set_integration_status fleet.set_schedule_status
    fleet.task_type fleet.status_problems fleet.common_checks fleet.counted fleet.zone_status
    fleet.trace_of
"""

# Pure functions of their arguments: nothing can be learnt from them but arithmetic. They are
# known by their folder, and may be closed.
SOURCES = Path(__file__).parents[3] / "db" / "sources"
RECURRENCE = frozenset(
    name
    for file in SOURCES.glob("20_recurrence/*.sql")
    for name in re.findall(r"^create or replace function (fleet\.\w+)", file.read_text(), re.M)
)
# The rest of what is pure and open.
PURE = """
    fleet.as_list fleet.calendar_instant fleet.calendar_interval fleet.default_policies
    fleet.effective_policies fleet.limits
    fleet.number_or_null fleet.object_or_empty fleet.only_one fleet.try_bigint fleet.zone_aliases
"""

# What checks and conditions of triggers ask, with the rights of whoever writes. Arithmetic, too.
ASKED_OF_WRITERS = """
    fleet.is_over_limit fleet.is_sound_command fleet.is_sound_device fleet.raise_broken_check
"""

SERVICE_ROLE = """
    fleet.checkup fleet.default_settings fleet.is_within_bounds fleet.may_hold_secrets
    fleet.metrics fleet.set_quota fleet.set_setting fleet.setting public.fleet_checkup
"""

WORKER = """
    fleet.worker_as_user fleet.worker_calendar_feed fleet.worker_feed_owner
    fleet.worker_claim_deliveries
    fleet.worker_claim_calendars fleet.worker_finish_calendar
    fleet.worker_claim_mdm fleet.worker_claim_mdm_syncs fleet.worker_claim_profile_uploads
    fleet.worker_device_token fleet.worker_finish_profile_upload fleet.worker_sync_profiles
    fleet.worker_claim_mdm_rereads fleet.worker_end_mdm_sync fleet.worker_finish_mdm_reread
    fleet.worker_take_integration_webhook
    fleet.worker_enroll_device fleet.worker_finish_delivery fleet.worker_finish_mdm
    fleet.worker_ended_runs
    fleet.worker_finish_looks fleet.worker_health fleet.worker_learn_rate fleet.worker_metrics
    fleet.worker_log_mdm_calls fleet.worker_begin_mdm_call fleet.worker_pause_integration
    fleet.worker_reserve_call fleet.worker_sync_inventory fleet.worker_verify_poke
    fleet.worker_call_syncs fleet.worker_claim_golioth_syncs fleet.worker_claim_inbox
    fleet.worker_end_golioth_sync fleet.worker_finish_inbox fleet.worker_go_on_with_sync
    fleet.worker_move_backfill fleet.worker_move_cursors fleet.worker_receive_webhooks
    fleet.worker_agree fleet.worker_log_export
    fleet.worker_judge_points fleet.worker_store_states fleet.worker_sync_devices
"""

EXPECTED: dict[str, frozenset[str]] = {
    name: frozenset(roles.split())
    for names, roles in (
        (API, "authenticated service_role"),
        (BEHIND_THE_API, "authenticated service_role"),
        (PURE, "authenticated service_role"),
        (ASKED_OF_WRITERS, "authenticated service_role"),
        (SERVICE_ROLE, "service_role"),
        (WORKER, "fleet_worker"),
    )
    for name in names.split()
}
ROLES = ["public", "anon", "authenticated", "fleet_worker", "service_role"]


@pytest.fixture
def executable(world: Any) -> dict[str, frozenset[str]]:
    with world.database.connect() as conn:
        rows = conn.execute(
            "select n.nspname || '.' || p.proname, count(distinct p.oid),"
            " coalesce(array_agg(r.name) filter ("
            "   where has_function_privilege(r.name, p.oid, 'execute')), '{}')"
            " from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace"
            " cross join unnest(%s::text[]) as r(name)"
            " where n.nspname in ('public', 'fleet')"
            " group by 1 order by 1",
            (ROLES,),
        ).fetchall()
    overloaded = [name for name, count, _ in rows if count > 1]
    assert overloaded == [], "one name, one function: the matrix goes by names"
    return {name: frozenset(roles) for name, _, roles in rows}


def test_what_is_open_is_in_the_matrix_and_the_rest_is_closed(
    executable: dict[str, frozenset[str]],
) -> None:
    twins = {name: f"public.{name.removeprefix('fleet.')}" for name in executable}
    wrong = {
        name: f"is open to {sorted(roles)}, expected {sorted(EXPECTED.get(name, []))}"
        for name, roles in executable.items()
        if name not in RECURRENCE
        and roles != EXPECTED.get(name, frozenset())
        and roles != EXPECTED.get(twins[name])
    }
    assert wrong == {}
    assert sorted(set(EXPECTED) - set(executable)) == [], "in the matrix, but gone"


def test_recurrence_is_arithmetic(world: Any, executable: dict[str, frozenset[str]]) -> None:
    known = frozenset(["authenticated", "service_role"])
    assert {n: r for n in RECURRENCE if not (r := executable.get(n, known)) <= known} == {}
    with world.database.connect() as conn:
        acting = conn.execute(
            "select p.proname from pg_proc as p where (p.provolatile = 'v' or p.prosecdef)"
            " and 'fleet.' || p.proname = any (%s)",
            (sorted(RECURRENCE),),
        ).fetchall()
    assert acting == []
