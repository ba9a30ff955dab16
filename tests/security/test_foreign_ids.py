"""Ids are guessable: what another owner has is as good as not there, word for word."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

MISSING = 999_999_999

# Every function that is more than arithmetic, called with ids of my fleet.
CALLS = {
    "public.cancel_command": "({command}, 'because')",
    "public.cancel_schedule": "({schedule}, 'because')",
    "public.claim_commands": "(10, null)",
    "public.create_enrollment_code": "({device})",
    "public.create_owner": "('another')",
    "public.create_schedule": "('{schedule_spec}')",
    "public.device_checkin": '(\'{{"platform": "taken over"}}\')',
    "public.extend_command": "({command}, 0)",
    "public.finish_command": "({command}, 0, 'completed')",
    "public.fleet_status": "()",
    "public.group_devices": "({group})",
    "public.pause_schedule": "({schedule}, 'because')",
    "public.rekey_device": "({device})",
    "public.release_command": "({command}, 0)",
    "public.resume_schedule": "({schedule})",
    "public.retire_device": "({device})",
    "public.revoke_enrollment_code": "({code})",
    "public.run_schedule": "({schedule})",
    "public.send_command": "({device}, 'lock')",
    "fleet.cancel_command": "({command}, 'because')",
    "fleet.claim": "('sub')",
    "fleet.claim_commands": "(10, null, now())",
    "fleet.create_enrollment_code": "(null, 1, '1 day', '{{}}', array[{group}::bigint])",
    "fleet.create_owner": "('another')",
    "fleet.create_schedule": "('{schedule_spec}')",
    "fleet.current_device_id": "()",
    "fleet.current_subject": "()",
    "fleet.current_user_id": "()",
    "fleet.device_checkin": '(\'{{"platform": "taken over"}}\', now())',
    "fleet.engine_status": "(now())",
    "fleet.extend_command": "({command}, 0, now())",
    "fleet.finish_command": "({command}, 0, 'completed', null, null, null, now())",
    "fleet.is_trusted_caller": "()",
    "fleet.my_owners": "('admin')",
    "fleet.release_command": "({command}, 0)",
    "fleet.require_device": "()",
    "fleet.retire_device": "({device})",
    "fleet.run_schedule": "({schedule}, null, now())",
    "fleet.send_command": "({device}, 'lock', '{{}}', null, 0, null, null, null, now())",
    "fleet.set_schedule_status": "({schedule}, 'cancelled', 'because')",
    "public.calendar_ics": "('{{}}')",
    "public.describe_schedule": "({schedule})",
    "public.diff_schedule": "({schedule}, '{{}}')",
    "public.explain_schedule": "({schedule}, now(), {device})",
    "public.preview_schedule": "('{schedule_spec}')",
    "public.schedule_calendar": "(current_date, current_date + 1)",
    "public.schedule_conflicts": "({schedule})",
    "public.simulate_fleet": "()",
    "fleet.calendar_of_caller": "('{{}}', now(), now() + interval '1 day')",
    "fleet.describe_schedule": "({schedule}, now())",
    "fleet.diff_schedule": "({schedule}, '{{}}', 10, now())",
    "fleet.explain_schedule": "({schedule}, now(), {device}, now())",
    "fleet.preview_schedule": "('{schedule_spec}', 10, now())",
    "fleet.schedule_calendar": "(current_date, current_date + 1, 'UTC', now())",
    "fleet.schedule_conflicts": "({schedule}, now(), now() + interval '1 day', '0')",
    "fleet.simulate_fleet": "(now(), now() + interval '1 day', 10, now())",
}
# Answers that tell callers only about themselves.
ABOUT_THE_CALLER = {
    "fleet.claim",
    "fleet.current_device_id",
    "fleet.current_subject",
    "fleet.current_user_id",
    "fleet.engine_status",
    "fleet.is_trusted_caller",
    "fleet.my_owners",
    "fleet.require_device",
    "public.fleet_status",
    "public.calendar_ics",
    "public.schedule_calendar",
    "public.simulate_fleet",
    "fleet.calendar_of_caller",
    "fleet.schedule_calendar",
    "fleet.simulate_fleet",
}
FOR_DEVICES = {"claim_commands", "device_checkin", "extend_command", "finish_command"} | {
    "release_command",
    "require_device",
}
STRANGERS = ["stranger", "sibling", "foreign_device", "retired", "nobody"]

# Calls with one id, where that id is all that can be wrong.
BY_ID = [
    ("command", "select public.cancel_command(%s)"),
    ("command", "select public.finish_command(%s, 0, 'completed')"),
    ("schedule", "select public.pause_schedule(%s)"),
    ("schedule", "select public.resume_schedule(%s)"),
    ("schedule", "select public.cancel_schedule(%s)"),
    ("schedule", "select public.run_schedule(%s)"),
    ("device", "select public.send_command(%s, 'lock')"),
    ("device", "select public.retire_device(%s)"),
    ("device", "select public.rekey_device(%s)"),
    ("device", "select public.create_enrollment_code(%s)"),
    ("group", "select public.create_enrollment_code(p_group_ids => array[%s::bigint])"),
    ("code", "select public.revoke_enrollment_code(%s)"),
    ("device", "insert into public.device_commands (device_id, command_type) values (%s, 'lock')"),
    (
        "hostname",
        "insert into public.device_commands (device_hostname, command_type) values (%s, 'lock')",
    ),
    ("owner", "insert into public.devices (owner_id, hostname) values (%s, 'x')"),
    (
        "owner",
        "insert into public.owner_members (owner_id, user_id) values (%s, gen_random_uuid())",
    ),
    (
        "owner",
        "insert into public.schedules (owner_id, name, action_type, selector)"
        " values (%s, 'x', 'lock', '{}')",
    ),
    (
        "owner",
        "select public.create_schedule(jsonb_build_object("
        "'owner_id', %s::text, 'action_type', 'lock', 'selector', '{}'::jsonb))",
    ),
    (
        "device",
        "insert into public.schedules (name, action_type, device_ids)"
        " values ('x', 'lock', array[%s::bigint])",
    ),
    (
        "device",
        "insert into public.schedules (name, action_type, device_id) values ('x', 'lock', %s)",
    ),
    (
        "group",
        "insert into public.schedules (name, action_type, group_ids)"
        " values ('x', 'lock', array[%s::bigint])",
    ),
    (
        "device",
        "select public.create_schedule(jsonb_build_object("
        "'action_type', 'lock', 'device_ids', jsonb_build_array(%s::bigint)))",
    ),
    (
        "group",
        "select public.create_schedule(jsonb_build_object("
        "'action_type', 'lock', 'group_ids', jsonb_build_array(%s::bigint)))",
    ),
]


def snapshot(conn: Any, world: Any) -> Any:
    """Give all that my fleet has, but for when its devices were heard of."""
    conn.execute("reset role")
    return conn.execute(
        "select jsonb_build_array("
        "(select jsonb_agg(to_jsonb(d) - '{last_seen,updated_at}'::text[] order by id)"
        "  from public.devices as d where owner_id = %(o)s and id <> %(s)s),"
        "(select jsonb_agg(to_jsonb(s) order by id)"
        "  from public.schedules as s where owner_id = %(o)s),"
        "(select jsonb_agg(to_jsonb(r) order by id)"
        "  from public.schedule_runs as r where owner_id = %(o)s),"
        "(select jsonb_agg(to_jsonb(c) order by id)"
        "  from public.device_commands as c where owner_id = %(o)s),"
        "(select jsonb_agg(to_jsonb(m) order by user_id)"
        "  from public.owner_members as m where owner_id = %(o)s),"
        "(select jsonb_agg(to_jsonb(e) order by id)"
        "  from public.enrollment_codes as e where owner_id = %(o)s))::text",
        {"o": world.mine.owner, "s": world.mine.sibling},
    ).fetchone()


def sample(world: Any, name: str) -> str:
    spec = {"action_type": "lock", "device_ids": [world.mine.device]}
    return CALLS[name].format(**vars(world.mine), schedule_spec=json.dumps(spec))


def test_every_function_that_can_act_has_a_sample_call(one_world: Any) -> None:
    with one_world.database.connect() as conn:
        names = conn.execute(
            "select p.pronamespace::regnamespace || '.' || p.proname from pg_proc as p"
            " where p.pronamespace::regnamespace::text in ('public', 'fleet')"
            " and has_function_privilege('authenticated', p.oid, 'execute')"
            " and (p.provolatile = 'v' or p.prosecdef"
            "   or p.pronamespace::regnamespace::text = 'public')"
        ).fetchall()
    assert {name for (name,) in names} - set(CALLS) == set()


@pytest.mark.parametrize("caller", STRANGERS)
@pytest.mark.parametrize("name", sorted(set(CALLS) - ABOUT_THE_CALLER))
def test_a_call_with_ids_of_my_fleet_does_and_tells_nothing(
    one_world: Any, name: str, caller: str
) -> None:
    with one_world.acting("service_role") as conn:
        before = snapshot(conn, one_world)
        one_world.become(conn, caller)
        answer = one_world.outcome(
            conn, f"select to_jsonb(x) from {name}{sample(one_world, name)} as x"
        )
        assert snapshot(conn, one_world) == before

    verb = name.split(".")[1]
    if verb in ("create_owner",) and caller == "stranger":
        assert isinstance(answer, dict)
    elif verb in FOR_DEVICES and caller in ("sibling", "foreign_device"):
        mine = str(one_world.mine.device_auth)
        assert mine not in json.dumps(answer), "tells of my device"
        assert answer is None or answer.get("accepted") is not True, answer
    elif verb == "group_devices":
        assert answer is None
    else:
        assert isinstance(answer, tuple), answer
        assert answer[0] in ("PT403", "PT404"), answer


@pytest.mark.parametrize(("kind", "query"), BY_ID)
def test_foreign_and_missing_read_the_same(one_world: Any, kind: str, query: str) -> None:
    if kind == "owner":
        missing: Any = uuid4()
    elif kind == "hostname":
        missing = "no-such-host"
    else:
        missing = MISSING
    foreign = getattr(one_world.mine, kind)
    with one_world.acting("stranger") as conn:
        answers = [
            [
                str(word).replace(str(wanted), "<id>")
                for word in one_world.outcome(conn, query, wanted)
            ]
            for wanted in (foreign, missing)
        ]

    assert answers[0] == answers[1]
    # Only a device finishes commands; 42501 is row security, which knows no ids either.
    assert answers[0][0] in ("PT403", "PT404", "42501")
    assert (answers[0][0] == "PT403") == ("finish_command" in query)


@pytest.mark.parametrize("caller", ["sibling", "foreign_device", "retired", "nobody"])
@pytest.mark.parametrize(("kind", "query"), BY_ID)
def test_whoever_is_no_person_is_refused(
    one_world: Any, kind: str, query: str, caller: str
) -> None:
    with one_world.acting(caller) as conn:
        answer = one_world.outcome(conn, query, getattr(one_world.mine, kind))
    if "finish_command" in query and caller in ("sibling", "foreign_device"):
        assert answer == {"accepted": False, "reason": "not_found"}
    else:
        assert answer[0] in ("PT403", "PT404", "42501"), answer


def test_a_group_takes_no_foreign_device_and_a_device_no_foreign_group(one_world: Any) -> None:
    query = "insert into public.device_group_members (group_id, device_id) values (%s, %s)"
    mine, theirs = one_world.mine, one_world.theirs
    pairs = [
        (theirs.group, mine.device, MISSING),
        (mine.group, theirs.device, None),
        (mine.group, mine.device, None),
    ]
    with one_world.acting("stranger") as conn:
        for group, device, instead in pairs:
            answer = one_world.outcome(conn, query, group, device)
            if instead is None:
                expected = one_world.outcome(conn, query, MISSING, device)
                wanted = group
            else:
                expected = one_world.outcome(conn, query, group, instead)
                wanted = device
            assert answer[0] == "PT404"
            clean = [str(word).replace(str(wanted), "<id>") for word in answer]
            assert clean == [str(word).replace(str(MISSING), "<id>") for word in expected]


@pytest.mark.parametrize("column", ["device_ids", "group_ids"])
def test_even_the_service_role_cannot_aim_a_schedule_at_another_fleet(
    one_world: Any, column: str
) -> None:
    wanted = one_world.mine.device if column == "device_ids" else one_world.mine.group
    with one_world.acting("service_role") as conn:
        answer = one_world.outcome(
            conn,
            f"insert into public.schedules (owner_id, name, action_type, {column})"
            " values (%s, 'x', 'lock', array[%s::bigint]) returning id",
            one_world.theirs.owner,
            wanted,
        )
    assert answer[0] == "PT404"


@pytest.mark.parametrize("column", ["device_ids", "group_ids", "dynamic"])
def test_a_schedule_that_names_foreign_targets_all_the_same_reaches_nobody(
    one_world: Any, column: str
) -> None:
    with one_world.acting("service_role") as conn:
        conn.execute("reset role")
        if column == "dynamic":
            conn.execute(
                "update public.device_groups set selector = '{}' where id = %s",
                (one_world.mine.group,),
            )
        conn.execute("set local session_replication_role = replica")
        target = "device_ids" if column == "device_ids" else "group_ids"
        wanted = one_world.mine.device if column == "device_ids" else one_world.mine.group
        row = conn.execute(
            "insert into public.schedules (owner_id, name, action_type, recurrence_type,"
            f" recurrence, {target}) select owner_id, 'x', 'lock', recurrence_type, recurrence,"
            " array[%s::bigint] from public.schedules where id = %s returning id",
            (wanted, one_world.theirs.schedule),
        ).fetchone()
        conn.execute("set local session_replication_role = origin")
        conn.execute("select set_config('request.jwt.claims', '', true)")
        conn.execute("select public.run_schedule(%s)", row)
        conn.execute("select fleet.tick(now())")
        runs = conn.execute(
            "select status, reason, targeted from public.schedule_runs where schedule_id = %s", row
        ).fetchall()
        commands = conn.execute(
            "select count(*) from public.device_commands where schedule_id = %s", row
        ).fetchone()
    assert runs == [("skipped", "no targets", 0)]
    assert commands == (0,)


def test_a_command_cannot_carry_another_owner_than_its_device(one_world: Any) -> None:
    with one_world.acting("service_role") as conn:
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', '', true)")
        answer = one_world.outcome(
            conn,
            "insert into public.device_commands (run_id, owner_id, device_id, device_hostname,"
            " command_type, expires_at) values (%s, %s, %s, 'x', 'lock', now() + interval '1 day')",
            one_world.theirs.run,
            one_world.theirs.owner,
            one_world.mine.device,
        )
    assert answer[0] == "PT404"
