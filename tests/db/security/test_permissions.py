"""What each permission of a member allows, and what no person may do at all."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

PERMISSIONS = ("view", "operate", "manage", "destructive", "admin")

# What a member tries, and the permissions that each alone suffice for it. Everything by
# request: a function, or a statement as PostgREST would send it.
VERBS: dict[str, tuple[str, str]] = {
    "see devices": ("select id from public.devices where id = {device}", "*"),
    "see schedules": ("select id from public.schedules where id = {schedule}", "*"),
    "see runs": ("select id from public.schedule_runs where id = {run}", "*"),
    "see commands": ("select id from public.device_commands where id = {command}", "*"),
    "see members": ("select user_id from public.owner_members where owner_id = '{owner}'", "*"),
    "see webhooks": (
        "select id from public.webhook_endpoints where id = {endpoint}",
        "manage admin",
    ),
    "see the addresses of webhooks in the log": (
        "select id from public.audit_log where owner_id = '{owner}'"
        " and to_jsonb(audit_log)::text like '%hooks.example.com%'",
        "manage admin",
    ),
    "see deliveries": ("select id from public.webhook_deliveries where id = {delivery}", "*"),
    "see the log": ("select id from public.audit_log where owner_id = '{owner}' limit 1", "*"),
    "see feeds": ("select id from public.calendar_feeds where id = {feed}", "*"),
    "make a feed": (
        "select public.create_calendar_feed(p_owner_id => '{owner}')",
        "manage admin",
    ),
    "make a webhook": (
        'select public.create_webhook_endpoint(\'{{"owner_id": "{owner}",'
        ' "url": "https://hooks.example.com"}}\')',
        "manage admin",
    ),
    "see what integrations did": (
        "select id from public.integration_activity_log where owner_id = '{owner}'",
        "*",
    ),
    "see addresses for other systems": (
        "select id from public.integration_webhooks where owner_id = '{owner}'",
        "*",
    ),
    "make an address for another system": (
        "select public.create_integration_webhook({integration})",
        "manage admin",
    ),
    "rotate a secret": ("select public.rotate_webhook_secret({endpoint})", "manage admin"),
    "send a message again": ("select id from public.redeliver({delivery})", "manage admin"),
    "use a template": ("select public.instantiate_template('{template}')", "manage admin"),
    "delete a calendar": (
        "select id from public.delete_blackout_calendar({calendar})",
        "manage admin",
    ),
    "delete a schedule by name": (
        "select id from public.delete_schedule({schedule})",
        "manage admin",
    ),
    "change a schedule by name": (
        "select public.update_schedule({schedule}, '{{\"priority\": 1}}')",
        "manage admin",
    ),
    "pause many schedules": (
        "select nullif(public.bulk_schedules('pause', '{{\"ids\": [{schedule}]}}', false)"
        " ->> 'changed', '0')",
        "manage admin",
    ),
    "run many schedules": (
        "select nullif(public.bulk_schedules('run', '{{\"ids\": [{schedule}]}}', false)"
        " ->> 'changed', '0')",
        "operate admin",
    ),
    "apply a document": (
        "select public.apply_document('{{\"version\": 1}}', p_owner_id => '{owner}')",
        "manage admin",
    ),
    "see codes": ("select id from public.enrollment_codes where id = {code}", "manage admin"),
    "send a command": ("select id from public.send_command({device}, 'lock')", "operate admin"),
    "insert a command": (
        "insert into public.device_commands (device_id, command_type) values ({device}, 'lock')"
        " returning id",
        "operate admin",
    ),
    "change a command": (
        "update public.device_commands set status = 'cancelled' where id = {command} returning id",
        "operate admin",
    ),
    "cancel a command": ("select id from public.cancel_command({command})", "operate admin"),
    "run a schedule": ("select id from public.run_schedule({schedule})", "operate admin"),
    "pause a schedule": ("select id from public.pause_schedule({schedule})", "manage admin"),
    "cancel a schedule": ("select id from public.cancel_schedule({schedule})", "manage admin"),
    "change a schedule": (
        "update public.schedules set priority = 1 where id = {schedule} returning id",
        "manage admin",
    ),
    "delete a schedule": (
        "delete from public.schedules where id = {schedule} returning id",
        "manage admin",
    ),
    "create a schedule": (
        'select public.create_schedule(\'{{"owner_id": "{owner}", "action_type": "lock",'
        ' "selector": {{}}}}\')',
        "manage admin",
    ),
    "insert a schedule": (
        "insert into public.schedules (owner_id, name, action_type, selector)"
        " values ('{owner}', 'x', 'lock', '{{}}') returning id",
        "manage admin",
    ),
    "add a device": (
        "insert into public.devices (owner_id, hostname) values ('{owner}', 'x') returning id",
        "manage admin",
    ),
    "change a device": (
        "update public.devices set tags = '{{x}}' where id = {device} returning id",
        "manage admin",
    ),
    "delete a device": (
        "delete from public.devices where id = {sibling} returning id",
        "manage admin",
    ),
    "add a location": (
        "insert into public.locations (owner_id, name, latitude, longitude, radius_m)"
        " values ('{owner}', 'x', 0, 0, 10) returning id",
        "manage admin",
    ),
    "move a location": (
        "update public.locations set latitude = 1 where id = {location} returning id",
        "manage admin",
    ),
    "delete a location": (
        "delete from public.locations where id = {location} returning id",
        "manage admin",
    ),
    "add a location policy": (
        "insert into public.location_policies (owner_id, location_id, event, action_type)"
        " values ('{owner}', {location}, 'leave', 'lock') returning id",
        "manage admin",
    ),
    "wipe what leaves a location": (
        "insert into public.location_policies (owner_id, location_id, event, action_type)"
        " values ('{owner}', {location}, 'leave', 'wipe') returning id",
        "admin",
    ),
    "see profiles": ("select id from public.profiles where id = {profile}", "*"),
    "upload a profile": (
        "select id from public.upload_profile('x', '<plist/>', {integration})",
        "manage admin",
    ),
    "delete a profile": ("select id from public.delete_profile({profile})", "manage admin"),
    "retire a device": ("select id from public.retire_device({device})", "manage admin"),
    "re-key a device": ("select public.rekey_device({device})", "manage admin"),
    "make a code": ("select public.create_enrollment_code({device})", "manage admin"),
    "revoke a code": ("select public.revoke_enrollment_code({code})", "manage admin"),
    "add a group": (
        "insert into public.device_groups (owner_id, name) values ('{owner}', 'x') returning id",
        "manage admin",
    ),
    "fill a group": (
        "insert into public.device_group_members (group_id, device_id)"
        " values ({empty_group}, {device}) returning group_id",
        "manage admin",
    ),
    "wipe a device": ("select id from public.send_command({device}, 'wipe')", "admin"),
    "schedule a wipe": (
        "insert into public.schedules (owner_id, name, action_type, selector, recurrence_type,"
        " recurrence_config) values ('{owner}', 'x', 'wipe', '{{}}', 'daily',"
        ' \'{{"time": "03:00"}}\') returning id',
        "admin",
    ),
    "turn a schedule into a wipe": (
        "update public.schedules set action_type = 'wipe' where id = {schedule} returning id",
        "admin",
    ),
    "add a member": (
        "insert into public.owner_members (owner_id, user_id)"
        " values ('{owner}', gen_random_uuid()) returning user_id",
        "admin",
    ),
    "grant oneself everything": (
        "update public.owner_members set permissions = '{{admin}}' where owner_id = '{owner}'"
        " returning user_id",
        "admin",
    ),
    "remove a member": (
        "delete from public.owner_members where owner_id = '{owner}' returning user_id",
        "admin",
    ),
    "rename the owner": (
        "update public.owners set name = 'x' where id = '{owner}' returning id",
        "admin",
    ),
}

# What the engine alone writes; as PostgREST would send it.
CLOSED = [
    "update public.devices set auth_id = gen_random_uuid()",
    "update public.devices set status = 'active'",
    "update public.devices set enrolled_at = now()",
    "update public.devices set last_seen = now()",
    "update public.devices set owner_id = '{other}'",
    "insert into public.devices (hostname, auth_id) values ('x', '{other}')",
    "insert into public.devices (id, hostname) values (1, 'x')",
    "update public.device_groups set owner_id = '{other}'",
    "update public.device_group_members set device_id = 1",
    "insert into public.device_group_members (group_id, device_id, owner_id)"
    " values ({group}, {device}, '{other}')",
    "update public.enrollment_codes set max_uses = 100000",
    "update public.enrollment_codes set expires_at = 'infinity'",
    "select code_hash from public.enrollment_codes",
    "insert into public.enrollment_codes (owner_id, code_hash, expires_at)"
    " values ('{owner}', 'x', 'infinity')",
    "update public.schedules set owner_id = '{other}'",
    "update public.schedules set next_run_at = now()",
    "update public.schedules set execution_count = 0",
    "update public.schedules set last_executed_at = now()",
    "update public.schedules set recurrence = '{{}}'",
    "insert into public.schedules (name, action_type, selector, next_run_at)"
    " values ('x', 'lock', '{{}}', now())",
    "insert into public.schedules (name, action_type, selector, status)"
    " values ('x', 'lock', '{{}}', 'paused')",
    "update public.schedule_runs set completed = 0",
    "insert into public.schedule_runs (schedule_id, owner_id, scheduled_for)"
    " values ({schedule}, '{owner}', now())",
    "delete from public.schedule_runs",
    "update public.locations set owner_id = '{other}'",
    "update public.locations set reach_m = 0",
    "update public.location_policies set owner_id = '{other}'",
    "update public.device_positions set is_outside_all = true",
    "update public.device_places set is_inside = false",
    "insert into public.location_events (owner_id, device_id, event, at)"
    " values ('{owner}', {device}, 'left', now())",
    "update public.location_events set acted_at = null",
    "delete from public.location_actions",
    "update public.device_commands set owner_id = '{other}'",
    "update public.device_commands set device_id = 1",
    "update public.device_commands set payload = '{{}}'",
    "update public.device_commands set attempt = 0",
    "insert into public.device_commands (device_id, command_type, run_id)"
    " values ({device}, 'lock', {run})",
    "insert into public.device_commands (device_id, command_type, channel)"
    " values ({device}, 'lock', 'mdm')",
    "delete from public.device_commands",
    "insert into public.owners (id, name) values ('{other}', 'x')",
    "update public.owners set id = '{other}'",
    "delete from public.owners",
    "update public.owner_members set owner_id = '{other}'",
    "update public.owner_members set user_id = '{other}'",
    "insert into public.command_types (name) values ('x')",
    "select secret from public.pg_cron_secrets",
    "select * from fleet.settings",
    "select content from fleet.profile_uploads",
    "update public.profiles set external_id = '1'",
    "insert into public.profiles (owner_id, integration_id, name)"
    " values ('{owner}', {integration}, 'x')",
    "delete from public.profiles",
    "insert into realtime.messages (topic, extension, event, private)"
    " values ('device:x', 'broadcast', 'command', true)",
]


@pytest.fixture
def member(one_world: Any, callers_of: Any) -> Any:
    """Give a transaction in which a new person has just these permissions in my fleet."""

    def join(conn: Any, *permissions: str) -> UUID:
        user = uuid4()
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', '', true)")
        conn.execute(
            "insert into public.owner_members (owner_id, user_id, permissions) values (%s, %s, %s)",
            (one_world.mine.owner, user, list(permissions)),
        )
        conn.execute(
            "insert into public.command_types (name, destructive) values ('wipe', true)"
            " on conflict do nothing"
        )
        one_world.become(conn, callers_of["person"](user))
        return user

    return join


@pytest.mark.parametrize("verb", VERBS)
def test_each_permission_allows_its_verbs_and_no_other(
    one_world: Any, member: Any, verb: str
) -> None:
    query, names = VERBS[verb]
    allowed = set()
    for permission in PERMISSIONS:
        with one_world.acting("service_role") as conn:
            member(conn, permission)
            answer = one_world.outcome(conn, query.format(**vars(one_world.mine)))
            if isinstance(answer, tuple):
                # Codes are hidden from who may not make them.
                hidden = ["PT404"] if verb == "revoke a code" else []
                assert answer[0] in ["PT403", "42501", *hidden], answer
            elif answer is not None:
                allowed.add(permission)
    expected = set(PERMISSIONS) if names == "*" else set(names.split())
    assert allowed == expected


def test_destructive_needs_operate_or_manage_besides(one_world: Any, member: Any) -> None:
    for permissions, verb in [
        (("operate", "destructive"), "wipe a device"),
        (("manage", "destructive"), "schedule a wipe"),
    ]:
        with one_world.acting("service_role") as conn:
            member(conn, *permissions)
            query = VERBS[verb][0].format(**vars(one_world.mine))
            assert not isinstance(one_world.outcome(conn, query), tuple)


def test_a_wipe_that_waits_is_not_run_by_who_may_not_wipe(one_world: Any, member: Any) -> None:
    with one_world.acting("service_role") as conn:
        member(conn, "manage", "destructive")
        row = conn.execute(
            VERBS["schedule a wipe"][0].format(**vars(one_world.mine)).encode()
        ).fetchone()
        member(conn, "operate", "manage")
        run = one_world.outcome(conn, "select id from public.run_schedule(%s)", row[0])
        pause = one_world.outcome(conn, "select id from public.pause_schedule(%s)", row[0])
        resume = one_world.outcome(conn, "select id from public.resume_schedule(%s)", row[0])
        update = one_world.outcome(
            conn, "update public.schedules set status = 'active' where id = %s", row[0]
        )
    assert pause == row[0]
    assert [run[:1], resume[:1], update[:1]] == [("PT403",)] * 3


@pytest.mark.parametrize("statement", CLOSED)
@pytest.mark.parametrize("caller", ["member", "device"])
def test_what_the_engine_writes_is_closed_to_callers(
    one_world: Any, statement: str, caller: str
) -> None:
    ids = {**vars(one_world.mine), "other": one_world.theirs.owner}
    with one_world.acting(caller) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(statement.format(**ids).encode())
