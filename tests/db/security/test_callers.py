"""Who a caller is taken for: tokens of all kinds, also those that make no sense."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

TABLES = (
    "owners",
    "owner_members",
    "devices",
    "device_groups",
    "device_group_members",
    "schedules",
    "schedule_runs",
    "command_types",
    "device_commands",
)
GARBAGE = {
    "nothing": "",
    "blank": "   ",
    "no JSON": "garbage",
    "broken object": '{"sub": ',
    "braces around nothing JSON": "{oops}",
    "a list": "[]",
    "a string": '"authenticated"',
    "null": "null",
    "empty object": "{}",
    "no sub": '{"role": "authenticated"}',
    "empty sub": '{"role": "authenticated", "sub": ""}',
    "null sub": '{"role": "authenticated", "sub": null}',
    "sub is no uuid": '{"role": "authenticated", "sub": "auth0|123"}',
    "sub is an object": '{"role": "authenticated", "sub": {"a": 1}}',
    "sub is a number": '{"role": "authenticated", "sub": 12}',
    "sub in braces": '{"role": "authenticated", "sub": "{00000000-0000-0000-0000-000000000000}"}',
    "sub with a zero character": '{"role": "authenticated", "sub": "\\u0000"}',
    "a zero character elsewhere": '{"role": "authenticated", "name": "\\u0000"}',
    "another role": '{"role": "service_role"}',
    "a made up role": '{"role": "root", "sub": "x"}',
}
ACTS = [
    'select public.create_schedule(\'{"action_type": "lock", "selector": {}}\')',
    "select public.create_owner('x')",
    "select public.create_enrollment_code()",
    "insert into public.devices (hostname) values ('x')",
    "insert into public.device_groups (name) values ('x')",
    "insert into public.schedules (name, action_type, selector) values ('x', 'lock', '{}')",
    "select public.fleet_status()",
]


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_claims_that_make_no_sense_give_nobody_and_no_error(
    one_world: Any, callers_of: Any, role: str, kind: str
) -> None:
    with one_world.acting(callers_of["caller"](role, GARBAGE[kind])) as conn:
        if role == "anon":
            conn.execute("reset role")
            conn.execute("grant usage on schema fleet to anon")
            for table in TABLES:
                conn.execute(f"grant select on public.{table} to anon")
            conn.execute("set local role anon")
        for table in TABLES:
            assert conn.execute(f"select count(*) from public.{table}").fetchone() == (0,)
        conn.execute("select set_config('realtime.topic', 'device:', true)")
        assert conn.execute("select count(*) from realtime.messages").fetchone() == (0,)


@pytest.mark.parametrize("kind", GARBAGE)
def test_claims_that_make_no_sense_allow_nothing(
    one_world: Any, callers_of: Any, kind: str
) -> None:
    with one_world.acting(callers_of["caller"]("authenticated", GARBAGE[kind])) as conn:
        for act in ACTS:
            answer = one_world.outcome(conn, act)
            assert isinstance(answer, tuple), (act, answer)
            assert answer[0] in ("PT403", "PT404", "42501"), (act, answer)
        for query in (
            f"select public.cancel_command({one_world.mine.command})",
            f"select public.retire_device({one_world.mine.device})",
            f"select public.cancel_schedule({one_world.mine.schedule})",
        ):
            assert one_world.outcome(conn, query)[0] == "PT404"


@pytest.mark.parametrize("caller", ["device", "sibling", "retired", "foreign_device", "nobody"])
@pytest.mark.parametrize("act", ACTS)
def test_a_device_is_no_person(one_world: Any, caller: str, act: str) -> None:
    with one_world.acting(caller) as conn:
        answer = one_world.outcome(conn, act)
    assert isinstance(answer, tuple), answer
    assert answer[0] in ("PT403", "42501"), answer


@pytest.mark.parametrize(
    "act",
    [
        "select * from public.claim_commands()",
        "select public.device_checkin()",
        "select public.finish_command({command}, 0, 'completed')",
        "select public.finish_commands('[]')",
        "select public.work()",
        "select public.extend_command({command}, 0)",
        "select public.release_command({command}, 0)",
    ],
)
@pytest.mark.parametrize("caller", ["member", "stranger", "retired", "nobody", "service_role"])
def test_only_an_active_device_does_the_work_of_a_device(
    one_world: Any, caller: str, act: str
) -> None:
    with one_world.acting(caller) as conn:
        answer = one_world.outcome(conn, act.format(**vars(one_world.mine)))
    assert isinstance(answer, tuple), answer
    assert answer[0] == "PT403"
    assert answer[2] == "not_a_device"


def test_a_token_from_before_the_re_key_is_void(one_world: Any) -> None:
    mine = one_world.mine
    with one_world.acting("member") as conn:
        row = conn.execute("select public.rekey_device(%s) ->> 'code'", (mine.device,)).fetchone()
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', '', true)")
        conn.execute("select fleet.worker_enroll_device(%s, 'x', '{}')", row)
        one_world.become(conn, "device")
        assert one_world.outcome(conn, "select public.device_checkin()")[2] == "not_a_device"
        assert conn.execute("select count(*) from public.device_commands").fetchone() == (0,)
        assert conn.execute("select count(*) from public.devices").fetchone() == (0,)
        assert one_world.outcome(conn, ACTS[1])[0] == "PT403"


def test_a_person_cannot_pass_for_a_device_by_a_claim(one_world: Any, callers_of: Any) -> None:
    mine = one_world.mine
    claims = json.dumps(
        {"role": "authenticated", "sub": str(uuid4()), "device_id": mine.device, "aud": "x"}
    )
    with one_world.acting(callers_of["caller"]("authenticated", claims)) as conn:
        assert one_world.outcome(conn, "select public.device_checkin()")[2] == "not_a_device"
        assert conn.execute("select count(*) from public.devices").fetchone() == (0,)


@pytest.mark.parametrize("status", ["completed", "running", "pending", "failed"])
def test_a_device_neither_sees_nor_settles_what_the_mdm_carries_out(
    one_world: Any, status: str
) -> None:
    with one_world.acting("service_role") as conn:
        conn.execute("insert into public.command_types (name, channel) values ('erase', 'mdm')")
        row = conn.execute(
            "insert into public.device_commands (device_id, command_type) values (%s, 'erase')"
            " returning id",
            (one_world.mine.device,),
        ).fetchone()
        one_world.become(conn, "device")
        seen = conn.execute("select 1 from public.device_commands where id = %s", row).fetchall()
        touched = conn.execute(
            "update public.device_commands set status = %s where id = %s", (status, row[0])
        ).rowcount
        finish = one_world.outcome(conn, "select public.finish_command(%s, 0, 'completed')", row[0])
    assert (seen, touched) == ([], 0)
    assert finish == {"accepted": False, "reason": "not_found"}


def test_a_device_cannot_rewrite_what_is_final(one_world: Any) -> None:
    with one_world.acting("device") as conn:
        row = conn.execute(
            "update public.device_commands set status = 'completed', result = '\"done\"'"
            " returning id"
        ).fetchone()
        answer = one_world.outcome(
            conn, "update public.device_commands set result = '\"other\"' where id = %s", row[0]
        )
        kept = conn.execute("select result from public.device_commands where id = %s", row)
        assert kept.fetchone() == ("done",)
    assert answer[:3] == ("PT409", f"command {row[0]} is completed already", "command_final")


def test_only_trusted_callers_read_the_words_of_engine_errors(one_world: Any) -> None:
    with one_world.acting("service_role") as conn:
        conn.execute("reset role")
        conn.execute("update fleet.heartbeat set last_error = 'quotes another fleet'")
        for caller, seen in (("member", None), ("service_role", "quotes another fleet")):
            one_world.become(conn, caller)
            status = one_world.outcome(conn, "select public.fleet_status()")
            assert status["engine"]["last_error"] == seen
