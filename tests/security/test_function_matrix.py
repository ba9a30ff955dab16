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
    public.cancel_command public.cancel_schedule public.claim_commands
    public.create_enrollment_code public.create_owner public.create_schedule
    public.device_checkin public.extend_command public.finish_command public.fleet_status
    public.group_devices public.pause_schedule public.rekey_device public.release_command
    public.resume_schedule public.retire_device public.revoke_enrollment_code
    public.run_schedule public.send_command
    public.calendar_ics public.describe_schedule public.diff_schedule public.explain_schedule
    public.preview_schedule public.schedule_calendar public.schedule_conflicts
    public.simulate_fleet
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
    fleet.calendar_of_caller fleet.describe_schedule fleet.diff_schedule fleet.explain_schedule
    fleet.preview_schedule fleet.schedule_calendar fleet.schedule_conflicts fleet.simulate_fleet
"""

# Pure functions of their arguments: nothing can be learnt from them but arithmetic. They are
# known by their folder, and may be closed.
SOURCES = Path(__file__).parents[2] / "db" / "sources"
RECURRENCE = frozenset(
    name
    for file in SOURCES.glob("20_recurrence/*.sql")
    for name in re.findall(r"^create or replace function (fleet\.\w+)", file.read_text(), re.M)
)
# The rest of what is pure and open.
PURE = "fleet.default_policies fleet.effective_policies"

SERVICE_ROLE = "fleet.set_setting fleet.setting"

WORKER = """
    fleet.worker_device_token fleet.worker_enroll_device fleet.worker_health
    fleet.worker_verify_poke
"""

EXPECTED: dict[str, frozenset[str]] = {
    name: frozenset(roles.split())
    for names, roles in (
        (API, "authenticated service_role"),
        (BEHIND_THE_API, "authenticated service_role"),
        (PURE, "authenticated service_role"),
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
    wrong = {
        name: f"is open to {sorted(roles)}, expected {sorted(EXPECTED.get(name, []))}"
        for name, roles in executable.items()
        if name not in RECURRENCE and roles != EXPECTED.get(name, frozenset())
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
