"""Owners, their members, and groups of devices."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from tests.helpers.fleet import Fleet


def test_a_personal_owner_is_made_when_it_is_first_needed(fleet: Fleet) -> None:
    user = uuid4()
    with fleet.acting(user):
        made = fleet.row("insert into devices (hostname) values ('pc-1') returning *")
        named = fleet.row("select * from owners")
    assert made["owner_id"] == user
    assert (named["id"], named["name"]) == (user, "personal")


def test_a_personal_owner_may_also_be_named_before_it_exists(fleet: Fleet) -> None:
    user = uuid4()
    with fleet.acting(user):
        fleet.run("insert into devices (hostname, owner_id) values ('pc-1', %s)", user)
    other = uuid4()
    with fleet.acting(other):
        fleet.run("insert into device_groups (name, owner_id) values ('lab', %s)", other)


def test_nobody_writes_into_the_fleet_of_another(fleet: Fleet) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), fleet.conn.transaction():
        with fleet.acting(uuid4()):
            fleet.run("insert into devices (hostname, owner_id) values ('pc', %s)", fleet.owner_id)


def test_the_sql_editor_asks_for_an_owner_or_takes_the_default(fleet: Fleet) -> None:
    with fleet.refused("PT422", "owner_missing", "owner_id"):
        fleet.run("insert into devices (hostname) values ('pc-1')")
    fleet.run("select fleet.set_setting('default_owner', to_jsonb(%s::text))", fleet.owner_id)
    row = fleet.row("insert into devices (hostname) values ('pc-1') returning *")
    assert row["owner_id"] == fleet.owner_id


def test_who_makes_an_owner_is_its_admin_and_lets_others_in(fleet: Fleet) -> None:
    admin, member = uuid4(), uuid4()
    with fleet.acting(admin):
        owner = fleet.row("select * from create_owner('School')")["id"]
        code = fleet.value("select invite_member(%s, null, '{view,operate}')", owner)["code"]
        device = fleet.value(
            "insert into devices (owner_id, hostname) values (%s, 'pc') returning id", owner
        )

    with fleet.acting(member):
        fleet.run("select accept_invitation(%s)", code)
        assert fleet.value("select id from devices") == device
        assert fleet.row("select * from send_command(%s, 'lock')", device)["status"] == "pending"
    with fleet.refused("PT403", "permission_missing"), fleet.acting(member):
        fleet.run("select retire_device(%s)", device)
    with pytest.raises(psycopg.errors.InsufficientPrivilege), fleet.conn.transaction():
        with fleet.acting(member):
            fleet.run(
                "insert into owner_members (owner_id, user_id) values (%s, %s)", owner, uuid4()
            )


def test_a_blank_owner_is_refused(fleet: Fleet) -> None:
    with fleet.refused("PT422", "owner_invalid"):
        fleet.run("select create_owner(' ')")


def test_a_static_group_holds_its_members(fleet: Fleet) -> None:
    first, _, third = fleet.devices(3)
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="lab")["id"]
    with fleet.acting(fleet.owner_id):
        for device in (first, third):
            fleet.run(
                "insert into device_group_members (group_id, device_id) values (%s, %s)",
                group,
                device,
            )
        found = fleet.rows("select id from group_devices(%s)", group)
    assert [row["id"] for row in found] == [first, third]


def test_a_foreign_device_joins_no_group(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="lab")["id"]
    foreign = Fleet(fleet.conn).device()
    for device in (foreign, 10**12):
        with fleet.refused("PT404", "device_not_found"), fleet.acting(fleet.owner_id):
            fleet.run(
                "insert into device_group_members (group_id, device_id) values (%s, %s)",
                group,
                device,
            )
    with fleet.refused("PT404", "group_not_found"), fleet.acting(uuid4()):
        fleet.run(
            "insert into device_group_members (group_id, device_id) values (%s, %s)", group, foreign
        )


SELECTORS = [
    ({}, ["a", "b", "c"]),
    ({"tags": ["x"]}, ["a", "b"]),
    ({"tags": ["x", "y"]}, ["b"]),
    ({"any_tags": ["y", "z"]}, ["b", "c"]),
    ({"platform": ["linux", "macos"]}, ["a"]),
    ({"platform": "windows"}, ["b"]),
    ({"attributes": {"lab": 3}}, ["a", "c"]),
    ({"tags": ["x"], "attributes": {"lab": 3}}, ["a"]),
    ({"tags": ["nobody"]}, []),
]


@pytest.mark.parametrize(("selector", "expected"), SELECTORS)
def test_a_dynamic_group_holds_whom_its_selector_matches(
    fleet: Fleet, selector: dict[str, object], expected: list[str]
) -> None:
    fleet.device("a", tags=["x"], platform="linux", attributes={"lab": 3, "os": "12"})
    fleet.device("b", tags=["x", "y"], platform="windows")
    fleet.device("c", tags=["z"], attributes={"lab": 3})
    fleet.device("gone", tags=["x", "y", "z"], platform="linux", status="retired")
    Fleet(fleet.conn).device("foreign", tags=["x", "y", "z"], platform="linux")
    group = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="dynamic", selector=selector
    )["id"]

    named = fleet.rows("select hostname from group_devices(%s)", group)
    assert [row["hostname"] for row in named] == expected
    reached = fleet.rows(
        "select hostname from fleet.targets(%s, '{}', array[%s]::bigint[], null)",
        fleet.owner_id,
        group,
    )
    assert [row["hostname"] for row in reached] == expected


@pytest.mark.parametrize(
    "selector",
    [[], "x", {"tag": ["x"]}, {"tags": "x"}, {"tags": [1]}, {"platform": 3}, {"attributes": []}],
)
def test_a_wrong_selector_is_refused(fleet: Fleet, selector: object) -> None:
    from psycopg.types.json import Jsonb

    with fleet.refused("PT422", "selector_invalid", "selector"):
        fleet.run(
            "insert into device_groups (owner_id, name, selector) values (%s, 'g', %s)",
            fleet.owner_id,
            Jsonb(selector),
        )
