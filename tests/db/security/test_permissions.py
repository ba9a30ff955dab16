"""What each permission of a member allows, and what no person may do at all."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.helpers.permissions import BEFORE_THE_WIPE, PERMISSIONS, VERBS

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
    "insert into public.command_types (name, channel) values ('x', 'mdm')",
    "update public.command_types set owner_id = null",
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

    def join(conn: Any, *permissions: str, prepare: str = "") -> UUID:
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
        if prepare:
            conn.execute(prepare.format(**vars(one_world.mine)).encode())
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
            member(conn, permission, prepare=BEFORE_THE_WIPE if "a wipe" in verb else "")
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
