"""Whose fleet a person sees: personal owners, and those that people are members of."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest


def test_a_personal_owner_is_made_at_first_use(one_world: Any, callers_of: Any) -> None:
    user = uuid4()
    with one_world.acting(callers_of["person"](user)) as conn:
        assert conn.execute("select count(*) from public.owners").fetchone() == (0,)
        row = conn.execute(
            "insert into public.devices (hostname) values ('own') returning owner_id"
        ).fetchone()
        owners = conn.execute("select id, name from public.owners").fetchall()
    assert row == (user,)
    assert owners == [(user, "personal")]


def test_a_person_may_name_the_personal_owner_before_it_is_made(
    one_world: Any, callers_of: Any
) -> None:
    user = uuid4()
    for statement in (
        "insert into public.devices (owner_id, hostname) values (%s, 'own') returning owner_id",
        "insert into public.device_groups (owner_id, name) values (%s, 'own') returning owner_id",
        "insert into public.schedules (owner_id, name, action_type, selector)"
        " values (%s, 'own', 'lock', '{}') returning owner_id",
        "select (public.create_schedule(jsonb_build_object('owner_id', %s::text,"
        " 'action_type', 'lock', 'selector', '{}'::jsonb)) ->> 'owner_id')::uuid",
    ):
        with one_world.acting(callers_of["person"](user)) as conn:
            assert one_world.outcome(conn, statement, user) == user


def test_whoever_makes_an_owner_is_its_admin_and_others_are_nobody(
    one_world: Any, callers_of: Any
) -> None:
    user = uuid4()
    with one_world.acting(callers_of["person"](user)) as conn:
        row = conn.execute("select id from public.create_owner('school')").fetchone()
        members = conn.execute("select owner_id, user_id from public.owner_members").fetchall()
        assert members == [(row[0], user)]
        one_world.become(conn, "stranger")
        seen = conn.execute("select id from public.owners where id = %s", row).fetchall()
        joined = one_world.outcome(
            conn,
            "insert into public.owner_members (owner_id, user_id, permissions)"
            " values (%s, %s, '{admin}')",
            row[0],
            one_world.theirs.person,
        )
    assert seen == []
    assert joined[0] == "42501"


@pytest.mark.parametrize("personal", [True, False])
def test_nobody_joins_the_owner_of_somebody_else(one_world: Any, personal: bool) -> None:
    mine, theirs = one_world.mine, one_world.theirs
    with one_world.acting("member") as conn:
        conn.execute("insert into public.devices (hostname) values ('own')")
        one_world.become(conn, "stranger")
        answer = one_world.outcome(
            conn,
            "insert into public.owner_members (owner_id, user_id, permissions)"
            " values (%s, %s, '{admin}') on conflict do nothing",
            mine.person if personal else mine.owner,
            theirs.person,
        )
    assert answer[0] == "42501"


@pytest.mark.parametrize("caller", ["device", "retired"])
def test_a_device_that_was_made_a_member_is_none(one_world: Any, caller: str) -> None:
    mine = one_world.mine
    sub = mine.device_auth if caller == "device" else mine.retired_auth
    with one_world.acting("service_role") as conn:
        conn.execute(
            "insert into public.owner_members (owner_id, user_id, permissions)"
            " values (%s, %s, '{admin}')",
            (mine.owner, sub),
        )
        one_world.become(conn, caller)
        assert conn.execute("select count(*) from public.owners").fetchone() == (0,)
        assert conn.execute("select count(*) from public.owner_members").fetchone() == (0,)
        answer = one_world.outcome(conn, "select public.create_owner('x')")
    assert answer[0] == "PT403"
