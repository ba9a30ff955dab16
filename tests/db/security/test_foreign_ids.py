"""Ids are guessable: what another owner has is as good as not there, word for word."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

MISSING = 999_999_999

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
    ("schedule", "select public.update_schedule(%s, '{}')"),
    ("schedule", "select public.delete_schedule(%s)"),
    ("schedule", "select public.duplicate_schedule(%s)"),
    ("schedule", "select public.describe_schedule(%s)"),
    ("schedule", "select public.diff_schedule(%s, '{}')"),
    ("schedule", "select public.explain_schedule(%s, now())"),
    ("schedule", "select public.schedule_conflicts(%s)"),
    ("schedule", "select public.schedule_history(%s)"),
    ("calendar", "select public.delete_blackout_calendar(%s)"),
    ("group", "select public.delete_group(%s, true)"),
    ("calendar", "select public.unsubscribe_blackouts(%s)"),
    (
        "owner",
        "select public.subscribe_blackouts('https://example.com/x.ics', p_owner_id => %s)",
    ),
    ("device", "select public.install_profile('7', %s, '1 hour')"),
    ("device", "select public.remove_profile('7', %s)"),
    ("install", "select public.extend_profile(%s, '1 hour')"),
    ("install", "select public.end_profile(%s)"),
    ("assignment", "select public.unassign_profile(%s)"),
    ("owner", "select public.profile_drift(%s)"),
    ("owner", "select public.reconcile_profiles(%s)"),
    (
        "owner",
        "select public.assign_profile('7', '{\"selector\": {}}', p_owner_id => %s)",
    ),
    (
        "device",
        "select public.assign_profile('7', jsonb_build_object("
        "'device_ids', jsonb_build_array(%s::bigint)))",
    ),
    ("integration", "select public.set_integration_secret(%s, 'another')"),
    ("integration", "select public.pause_integration(%s)"),
    ("integration", "select public.resume_integration(%s)"),
    ("integration", "select public.sync_integration(%s)"),
    ("integration", "select public.delete_integration(%s)"),
    ("integration", "select public.upload_profile('x', '<plist/>', %s)"),
    ("profile", "select public.delete_profile(%s)"),
    ("integration", "select public.create_integration_webhook(%s)"),
    ("integration_webhook", "select public.revoke_integration_webhook(%s)"),
    (
        "owner",
        "select public.create_integration(jsonb_build_object("
        "'owner_id', %s::text, 'integration_type', 'simplemdm'))",
    ),
    ("endpoint", "select public.update_webhook_endpoint(%s, '{}')"),
    ("endpoint", "select public.rotate_webhook_secret(%s)"),
    ("endpoint", "select public.test_webhook_endpoint(%s)"),
    ("endpoint", "select public.delete_webhook_endpoint(%s)"),
    ("delivery", "select public.redeliver(%s)"),
    ("feed", "select public.revoke_calendar_feed(%s)"),
    ("template", "select public.instantiate_template(%s)"),
    ("template", "select public.delete_template(%s)"),
    ("owner", "select public.create_calendar_feed(p_owner_id => %s)"),
    ("owner", "select public.create_blackout_calendar('x', '[]', '', %s)"),
    ("owner", "select public.import_blackouts('x', '[]', '', %s)"),
    ("owner", "select public.export_schedules(p_owner_id => %s)"),
    ("owner", "select public.apply_document('{\"version\": 1}', p_owner_id => %s)"),
    (
        "owner",
        "select public.create_webhook_endpoint(jsonb_build_object("
        "'owner_id', %s::text, 'url', 'https://hooks.example.com'))",
    ),
    (
        "owner",
        "select public.create_template(jsonb_build_object("
        "'owner_id', %s::text, 'name', 'x', 'spec', '{}'::jsonb))",
    ),
    (
        "schedule",
        "select public.create_schedule(jsonb_build_object('action_type', 'lock',"
        " 'selector', '{}'::jsonb, 'after', jsonb_build_object('schedule_id', %s::bigint)))",
    ),
    (
        "schedule",
        "insert into public.schedules (name, action_type, selector, after_schedule_id)"
        " values ('x', 'lock', '{}', %s)",
    ),
    (
        "calendar",
        "select public.create_schedule(jsonb_build_object('action_type', 'lock',"
        " 'selector', '{}'::jsonb, 'policies', jsonb_build_object("
        "   'blackouts', jsonb_build_array(%s::bigint))))",
    ),
    (
        "owner",
        "insert into public.locations (owner_id, name, latitude, longitude, radius_m)"
        " values (%s, 'x', 0, 0, 10)",
    ),
    (
        "location",
        "insert into public.location_policies (location_id, event, action_type)"
        " values (%s, 'enter', 'lock')",
    ),
    (
        "group",
        "insert into public.location_policies (group_id, event, action_type)"
        " values (%s, 'outside_all', 'lock')",
    ),
    ("device", "insert into public.device_commands (device_id, command_type) values (%s, 'lock')"),
    (
        "hostname",
        "insert into public.device_commands (device_hostname, command_type) values (%s, 'lock')",
    ),
    ("owner", "insert into public.devices (owner_id, hostname) values (%s, 'x')"),
    ("owner", "select public.invite_member(%s)"),
    ("owner", "select public.rename_owner(%s, 'x')"),
    ("owner", "select public.set_owner_timezone(%s, 'UTC')"),
    ("owner", "select public.delete_owner(%s)"),
    ("owner", "select public.leave_owner(%s)"),
    ("owner", "select public.remove_member(%s, 'ben@school.example')"),
    ("owner", "select public.set_member_permissions(%s, 'ben@school.example', '{view}')"),
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


@pytest.mark.parametrize(("kind", "query"), BY_ID)
def test_foreign_and_missing_read_the_same(one_world: Any, kind: str, query: str) -> None:
    names = {"owner": uuid4(), "hostname": "no-such-host", "template": "no-such-template"}
    missing = names.get(kind, MISSING)
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
    # Whoever sees everything is told whose it is.
    assert answer[0] == "PT422"
    assert 'belongs to another owner, "mine"' in answer[1]


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
