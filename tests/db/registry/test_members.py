"""Joining a fleet by accepting, what its people may do, leaving it, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.members import invite, join, members, school, signed_in


def test_who_is_invited_becomes_a_member_by_accepting(fleet: Fleet) -> None:
    admin, ben = uuid4(), uuid4()
    owner = school(fleet, admin)
    invitation = invite(fleet, owner, admin, "Ben@School.example", ["view", "operate"])
    assert set(members(fleet, owner)) == {admin}
    with signed_in(fleet, ben, "ben@school.example"):
        answer = fleet.value("select accept_invitation(%s)", f" {invitation['code'].lower()} ")
        seen = fleet.row("select name, is_default from owner_list")
    assert answer == {
        "owner_id": str(owner),
        "name": "School",
        "permissions": ["view", "operate"],
    }
    assert seen == {"name": "School", "is_default": True}
    assert members(fleet, owner)[ben] == ["view", "operate"]
    listed = fleet.row("select * from owner_member_list where user_id = %s", ben)
    assert (listed["email"], listed["owner"]) == ("ben@school.example", "School")
    state = "select state from owner_invitation_list where id = %s"
    assert fleet.value(state, invitation["id"]) == "accepted"


def test_no_admin_makes_anybody_a_member(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    for query in (
        "insert into owner_members (owner_id, user_id) values (%s, gen_random_uuid())",
        "insert into owner_members (owner_id, user_id, permissions)"
        " values (%s, gen_random_uuid(), '{admin}')",
        "update owner_members set user_id = gen_random_uuid() where owner_id = %s",
        "insert into owner_invitations (owner_id, permissions, code_hash, expires_at)"
        " values (%s, '{admin}', '\\x00', now() + interval '1 day')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), fleet.conn.transaction():
            with fleet.acting(admin):
                fleet.run(query, owner)


def test_a_code_is_good_once_and_for_its_address_only(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    code = invite(fleet, owner, admin, "ben@school.example")["code"]
    for email in (None, "eve@school.example", "", "ben@school.example.org"):
        with fleet.refused("PT404", "invitation_not_found"), signed_in(fleet, uuid4(), email):
            fleet.value("select accept_invitation(%s)", code)
    with signed_in(fleet, uuid4(), "BEN@school.example"):
        fleet.value("select accept_invitation(%s)", code)
    with (
        fleet.refused("PT404", "invitation_not_found"),
        signed_in(fleet, uuid4(), "ben@school.example"),
    ):
        fleet.value("select accept_invitation(%s)", code)


@pytest.mark.parametrize(
    "end",
    [
        "update owner_invitations set expires_at = now() where id = %s",
        "select revoke_invitation(%s)",
    ],
)
def test_an_invitation_that_is_over_lets_nobody_in(fleet: Fleet, end: str) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    invitation = invite(fleet, owner, admin)
    fleet.run(end, invitation["id"])
    with fleet.refused("PT404", "invitation_not_found"), fleet.acting(uuid4()):
        fleet.value("select accept_invitation(%s)", invitation["code"])


@pytest.mark.parametrize(
    "end",
    [
        "update owner_members set permissions = '{view}' where user_id = %s",
        "delete from owner_members where user_id = %s",
    ],
)
def test_whoever_is_no_admin_any_more_lets_nobody_in(fleet: Fleet, end: str) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    second = join(fleet, owner, admin, "admin")
    theirs, ours = (invite(fleet, owner, who)["code"] for who in (second, admin))
    fleet.run(end, second)
    with fleet.refused("PT404", "invitation_not_found"), fleet.acting(uuid4()):
        fleet.value("select accept_invitation(%s)", theirs)
    with fleet.acting(uuid4()):
        fleet.value("select accept_invitation(%s)", ours)


def test_only_admins_invite_and_see_invitations(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    invitation = invite(fleet, owner, admin)
    member = join(fleet, owner, admin, "view", "operate", "manage", "destructive")
    with fleet.refused("PT403", "permission_missing"):
        invite(fleet, owner, member)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(member):
        fleet.value("select revoke_invitation(%s)", invitation["id"])
    with fleet.refused("PT404", "owner_not_found"):
        invite(fleet, owner, uuid4())
    with fleet.refused("PT404", "invitation_not_found"), fleet.acting(uuid4()):
        fleet.value("select revoke_invitation(%s)", invitation["id"])
    with fleet.acting(member):
        assert fleet.rows("select * from owner_invitation_list") == []


@pytest.mark.parametrize(
    ("argument", "field"),
    [
        ((None, []), "permissions"),
        ((None, ["view", "fly"]), "permissions"),
        ((None, ["view", None]), "permissions"),
        (("ben",), "email"),
        (("a b@school.example",), "email"),
        ((None, ["view"], "31 days"), "expires_in"),
        ((None, ["view"], "-1 days"), "expires_in"),
    ],
)
def test_a_wrong_invitation_is_refused(fleet: Fleet, argument: tuple[Any, ...], field: str) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    with fleet.refused("PT422", "invitation_invalid", field):
        invite(fleet, owner, admin, *argument)


def test_an_owner_has_a_bounded_number_of_open_invitations(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    fleet.run(
        "insert into owner_invitations (owner_id, permissions, code_hash, expires_at)"
        " select %s, '{view}', sha256(n::text::bytea), now() + interval '1 day'"
        " from generate_series(1, 100) as n",
        owner,
    )
    with fleet.refused("PT409", "too_many_invitations"):
        invite(fleet, owner, admin)


def test_accepting_twice_leaves_the_second_code_good(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    ben = join(fleet, owner, admin)
    code = invite(fleet, owner, admin)["code"]
    for user in (ben, admin):
        with fleet.refused("PT409", "member_exists"), fleet.acting(user):
            fleet.value("select accept_invitation(%s)", code)
    with fleet.acting(uuid4()):
        fleet.value("select accept_invitation(%s)", code)


def test_nobody_but_a_person_accepts_or_leaves(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    code = invite(fleet, owner, admin)["code"]
    device = fleet.auth_id(fleet.device())
    with fleet.refused("PT403", "not_a_person"):
        fleet.value("select accept_invitation(%s)", code)
    with fleet.refused("PT403", "not_a_person"), fleet.acting(device):
        fleet.value("select accept_invitation(%s)", code)
    with fleet.refused("PT403", "not_a_person"):
        fleet.value("select leave_owner(%s)", owner)


def test_one_admin_stays(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    member = join(fleet, owner, admin)
    for query in (
        "select leave_owner(%s)",
        "select set_member_permissions(%s, auth.uid()::text, '{view}')",
        "select remove_member(%s, auth.uid()::text)",
        "delete from owner_members where owner_id = %s",
        "update owner_members set permissions = '{view}' where owner_id = %s",
    ):
        with fleet.refused("PT409", "last_admin", "School"), fleet.acting(admin):
            fleet.run(query, owner)
    assert set(members(fleet, owner)) == {admin, member}

    with fleet.acting(admin):
        fleet.run("select set_member_permissions(%s, %s, '{admin}')", owner, str(member))
        fleet.run("select leave_owner(%s)", owner)
    assert set(members(fleet, owner)) == {member}
    with fleet.refused("PT409", "last_admin"), fleet.acting(member):
        fleet.run("select leave_owner(%s)", owner)


def test_two_admins_who_leave_at_once_do_not_both(connect: Callable[..., Fleet]) -> None:
    first = connect()
    admin = uuid4()
    with first.conn.transaction():
        owner = school(first, admin)
        second_admin = join(first, owner, admin, "admin")
    second = connect(owner=first)
    outcome: list[str] = []

    def leave() -> None:
        try:
            with second.conn.transaction(), second.acting(second_admin):
                second.run("select leave_owner(%s)", owner)
            outcome.append("left")
        except psycopg.Error as error:
            outcome.append(error.diag.message_detail or "")

    with first.conn.transaction(), first.acting(admin):
        first.run("select leave_owner(%s)", owner)
        thread = threading.Thread(target=leave)
        thread.start()
        waits = "select count(*) from pg_locks where not granted"
        watcher = connect(owner=first)
        while watcher.value(waits) == 0:
            assert thread.is_alive()
    thread.join()
    assert outcome == ["last_admin"]
    assert set(members(first, owner)) == {second_admin}


def test_members_come_and_go_in_a_personal_fleet(fleet: Fleet) -> None:
    person = uuid4()
    with fleet.acting(person):
        fleet.run("insert into devices (hostname) values ('pc-1')")
    helper = join(fleet, person, person, "admin")
    with fleet.acting(helper):
        fleet.run("select leave_owner(%s)", person)
    assert members(fleet, person) == {}


def test_admins_remove_members_by_their_address(fleet: Fleet) -> None:
    admin, ben = uuid4(), uuid4()
    owner = school(fleet, admin)
    code = invite(fleet, owner, admin)["code"]
    with signed_in(fleet, ben, "ben@school.example"):
        fleet.value("select accept_invitation(%s)", code)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(ben):
        fleet.value("select remove_member(%s, %s)", owner, str(admin))
    with fleet.acting(admin):
        answer = fleet.value("select remove_member(%s, 'Ben@school.example')", owner)
    assert answer == {"user_id": str(ben), "email": "ben@school.example"}
    with fleet.refused("PT404", "member_not_found"), fleet.acting(admin):
        fleet.value("select remove_member(%s, 'ben@school.example')", owner)
