"""Who may execute which function. One that this page does not name fails by its name.

Denial is asked of the catalogue: on some hosted versions a refused call ends the server.
"""

from __future__ import annotations

from typing import Any

import pytest

# Signed-in callers and the service role may call these through the API.
API = """
    public.cancel_command public.cancel_schedule public.claim_commands
    public.create_enrollment_code public.create_owner public.create_schedule
    public.device_checkin public.extend_command public.finish_command public.fleet_status
    public.group_devices public.pause_schedule public.rekey_device public.release_command
    public.resume_schedule public.retire_device public.revoke_enrollment_code
    public.run_schedule public.send_command
"""

# What those, and the policies, call with the caller's own rights. No request reaches them by
# name: the schema fleet is not exposed.
BEHIND_THE_API = """
    fleet.cancel_command fleet.claim fleet.claim_commands fleet.create_enrollment_code
    fleet.create_owner fleet.create_schedule fleet.current_device_id fleet.current_subject
    fleet.current_user_id fleet.device_checkin fleet.device_matches fleet.engine_status
    fleet.extend_command fleet.finish_command fleet.is_trusted_caller fleet.my_owners
    fleet.release_command fleet.require_device fleet.retire_device fleet.run_schedule
    fleet.send_command fleet.set_schedule_status
"""

# Pure functions of their arguments: nothing can be learnt from them but arithmetic.
RECURRENCE = """
    fleet.applied_rule fleet.as_list fleet.bounds_problems fleet.calendar_occurrences
    fleet.clock_spans fleet.compile_recurrence fleet.compiled_calendar fleet.compiled_cron
    fleet.compiled_cron_days fleet.compiled_month_days fleet.config_cron_problems
    fleet.config_day_problems fleet.config_every_problems fleet.config_key_problems
    fleet.config_time_problems fleet.count_occurrences fleet.cron_field_problem
    fleet.cron_field_values fleet.cron_integer fleet.cron_number fleet.cron_parts
    fleet.cron_special_day fleet.cron_special_weekday fleet.cron_stepped_values
    fleet.cron_term_values fleet.default_policies fleet.effective_policies
    fleet.existing_zone fleet.first_occurrence fleet.flag_numbers fleet.flags fleet.gap_end
    fleet.has_cron_day fleet.instant_text fleet.interval_occurrences fleet.interval_seconds
    fleet.local_second fleet.local_to_instant fleet.matching_days fleet.matching_slots
    fleet.month_day_mask fleet.month_day_number fleet.month_flags fleet.month_of_day
    fleet.month_start fleet.nearest_working_day fleet.next_calendar_occurrence
    fleet.next_in_interval fleet.next_matching_day fleet.next_month_day
    fleet.next_occurrence fleet.next_slot fleet.next_time_of_day fleet.occurrences
    fleet.parse_cron fleet.parse_interval fleet.recompile_recurrence fleet.recurrence_end
    fleet.recurrence_problems fleet.recurrence_settings fleet.recurrence_type
    fleet.rule_problems fleet.search_occurrence fleet.second_of_day fleet.timezone_problems
    fleet.utc_offset fleet.week_of_month fleet.weekday_number fleet.zone_clock
    fleet.zone_transitions
"""

SERVICE_ROLE = "fleet.set_setting fleet.setting"

WORKER = """
    fleet.worker_device_token fleet.worker_enroll_device fleet.worker_health
    fleet.worker_verify_poke
"""

# The engine: only the owner of the database, its jobs, and functions that act for a caller.
NOBODY = """
    fleet.after_migrate fleet.base64url fleet.bigint_array fleet.built_in_command_types
    fleet.cancel_runs_of fleet.choice_problem fleet.chunk_size fleet.command_of_device
    fleet.compiled fleet.completed_schedule fleet.decide_due fleet.default_settings
    fleet.device_by_hostname fleet.device_identity fleet.duration_problem fleet.expand_next
    fleet.expand_runs fleet.first_due fleet.grant_worker fleet.has_unfinished
    fleet.hash_secret fleet.hmac_sha256 fleet.instants_to_run fleet.interrupt_unsafe
    fleet.is_id_list fleet.is_retryable fleet.is_time_zone fleet.is_visible_owner
    fleet.issue_device_secret
    fleet.jobs fleet.last_occurrence fleet.missed_ranges fleet.normal_schedule_spec
    fleet.payload_problems fleet.poke fleet.poke_key fleet.poke_signature
    fleet.policy_problems fleet.prune_batch fleet.prune_history fleet.queue_doorbells
    fleet.owner_or_own fleet.require_destructive
    fleet.raise_device_not_found fleet.raise_not_found fleet.raise_problems fleet.random_secret
    fleet.refresh_time_zones fleet.refusal fleet.require_permission fleet.resolve_owner
    fleet.retry_delay fleet.ring fleet.ring_doorbells fleet.run_due fleet.run_expiry
    fleet.schedule_aliases fleet.schedule_from_spec fleet.schedule_of_caller
    fleet.schedule_problems fleet.schedule_warnings fleet.selector_problems
    fleet.setting_number fleet.settle_attempt fleet.settle_runs fleet.sign_poke
    fleet.spec_type_problems fleet.start_due_runs fleet.store_facts fleet.sweep_commands
    fleet.sync_command_types fleet.sync_jobs fleet.sync_publication
    fleet.take_enrollment_code fleet.target_problems fleet.targets
    fleet.tg_change_command_status fleet.tg_change_schedule_status fleet.tg_check_device
    fleet.tg_check_group
    fleet.tg_check_new_commands fleet.tg_delete_commands_of_devices
    fleet.tg_delete_commands_of_runs fleet.tg_note_progress
    fleet.tg_owner_from_caller fleet.tg_owner_from_group fleet.tg_prepare_command
    fleet.tg_prepare_schedule fleet.tg_ring_new_commands fleet.tg_run_due_schedules
    fleet.tg_set_updated_at fleet.tick fleet.tick_minute fleet.timing_changed
    fleet.touch_device fleet.try_instant fleet.try_interval fleet.try_uuid
    fleet.whole_number_problem fleet.write_commands fleet.write_failed_run fleet.write_runs
    fleet.xor_with_byte
"""

EXPECTED: dict[str, frozenset[str]] = {
    name: frozenset(roles.split())
    for names, roles in (
        (API, "authenticated service_role"),
        (BEHIND_THE_API, "authenticated service_role"),
        (RECURRENCE, "authenticated service_role"),
        (SERVICE_ROLE, "service_role"),
        (WORKER, "fleet_worker"),
        (NOBODY, ""),
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


def test_every_function_and_procedure_is_in_the_matrix(
    executable: dict[str, frozenset[str]],
) -> None:
    assert sorted(set(executable) - set(EXPECTED)) == [], "not in the matrix"
    assert sorted(set(EXPECTED) - set(executable)) == [], "in the matrix, but gone"


def test_each_role_may_execute_what_the_matrix_says(
    executable: dict[str, frozenset[str]],
) -> None:
    wrong = {
        name: (sorted(roles), "expected", sorted(EXPECTED[name]))
        for name, roles in executable.items()
        if name in EXPECTED and roles != EXPECTED[name]
    }
    assert wrong == {}
