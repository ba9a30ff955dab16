"""Command types of an owner's own: nobody else's, and as safe as those of the platform."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

KEYS = {"url": {"type": "string", "required": True}}


def own(fleet: Fleet, name: str = "kiosk-reload", **columns: Any) -> Row:
    return fleet.insert("command_types", owner_id=fleet.owner_id, name=name, **columns)


def member(fleet: Fleet, *permissions: str) -> UUID:
    person = uuid4()
    fleet.insert(
        "owner_members", owner_id=fleet.owner_id, user_id=person, permissions=list(permissions)
    )
    return person


def test_a_manager_makes_one_and_it_is_scheduled_sent_and_claimed(fleet: Fleet) -> None:
    device = fleet.device()
    with fleet.acting(member(fleet, "view", "operate", "manage")):
        fleet.run(
            "insert into command_types (name, payload_keys, timeout_seconds, rerun_safe)"
            " values ('kiosk-reload', %s, 7, true)",
            Jsonb(KEYS),
        )
        fleet.create(action_type="kiosk-reload", payload={"url": "y"}, device_ids=[device])
        assert fleet.send(device, "kiosk-reload", p_payload={"url": "x"})["channel"] == "agent"
        with fleet.refused("PT422", "command_invalid", "payload.url"):
            fleet.send(device, "kiosk-reload")
    fleet.tick_until_idle()
    claimed = fleet.claim(device)
    assert {(c["command_type"], c["timeout_seconds"], c["rerun_safe"]) for c in claimed} == {
        ("kiosk-reload", 7, True)
    }
    assert sorted(c["payload"]["url"] for c in claimed) == ["x", "y"]


def test_two_owners_call_different_things_the_same(fleet: Fleet) -> None:
    other = Fleet(fleet.conn)
    own(fleet, timeout_seconds=11, rerun_safe=True)
    own(other, timeout_seconds=22, payload_keys=KEYS, destructive=True)
    mine, theirs = fleet.device(), other.device()
    # In one statement as well, where the first of a type speaks for those that follow.
    fleet.run(
        "insert into device_commands (device_id, command_type, payload)"
        " values (%s, 'kiosk-reload', '{}'), (%s, 'kiosk-reload', '{\"url\": \"x\"}')",
        mine,
        theirs,
    )
    with fleet.refused("PT422", "command_invalid", "payload.url"):
        fleet.run(
            "insert into device_commands (device_id, command_type)"
            " values (%s, 'kiosk-reload'), (%s, 'kiosk-reload')",
            mine,
            theirs,
        )
    (first,) = fleet.claim(mine)
    (second,) = other.claim(theirs)
    assert [(c["timeout_seconds"], c["rerun_safe"]) for c in (first, second)] == [
        (11, True),
        (22, False),
    ]


WAYS = {
    "insert": "insert into device_commands (device_id, command_type)"
    " values (%(device)s, 'kiosk-x')",
    "many rows": "insert into device_commands (device_id, command_type)"
    " values (%(owners)s, 'kiosk-x'), (%(device)s, 'kiosk-x')",
    "send": "select send_command(%(device)s, 'kiosk-x')",
    "send to many": "select send_commands("
    "jsonb_build_object('device_ids', array[%(device)s]), 'kiosk-x')",
    "schedule": "select create_schedule(jsonb_build_object('owner_id', %(owner)s, 'name', 'x',"
    " 'action_type', 'kiosk-x', 'device_ids', array[%(device)s]))",
    "telemetry rule": "insert into telemetry_rules (owner_id, condition, action_type)"
    " values (%(owner)s, 'battery < 15', 'kiosk-x')",
    "location policy": "insert into location_policies (owner_id, name, event, action_type)"
    " values (%(owner)s, 'x', 'outside_all', 'kiosk-x')",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_another_owners_is_not_there(fleet: Fleet, way: str) -> None:
    owners = Fleet(fleet.conn)
    own(owners, "kiosk-x")
    given = {"device": fleet.device(), "owner": fleet.owner_id, "owners": owners.device()}
    with (
        pytest.raises(psycopg.Error, match='"kiosk-x" is not a known command type'),
        fleet.conn.transaction(),
    ):
        fleet.conn.execute(WAYS[way], given)
    own(fleet, "kiosk-x")
    fleet.conn.execute(WAYS[way], given)


def test_only_members_see_it(fleet: Fleet) -> None:
    own(fleet)
    seen = "select count(*) from command_types where name = 'kiosk-reload'"
    with fleet.acting(member(fleet, "view")):
        assert fleet.value(seen) == 1
    with fleet.acting(uuid4()):
        assert fleet.value(seen) == 0
    with fleet.as_device(fleet.device()):
        assert fleet.value("select count(*) from command_types") == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": "reload"}, ["name"]),
        ({"name": "Kiosk-reload"}, ["name"]),
        ({"name": "kiosk-"}, ["name"]),
        ({"name": "kiosk-\n"}, ["name"]),
        ({"name": "k-" + "x" * 62}, ["name"]),
        ({"name": "k-" + "x" * 5000}, ["name"]),
        ({"name": "taken-name"}, ["name", "there already"]),
        ({"channel": "mdm"}, ["channel"]),
        ({"timeout_seconds": 0}, ["timeout_seconds"]),
        ({"permission": "manage"}, ["permission"]),
        ({"description": "x" * 4001}, ["description"]),
        ({"payload_keys": {"a": 5}}, ["payload_keys.a"]),
        ({"payload_keys": {"a": {"type": 5}}}, ["payload_keys.a", "type"]),
        ({"payload_keys": {"a": {"type": {"x": "y"}}}}, ["payload_keys.a", "type"]),
        ({"payload_keys": {"a": {"required": "yes"}}}, ["payload_keys.a", "required"]),
        ({"payload_keys": {"a": {"choices": "on"}}}, ["payload_keys.a", "choices"]),
        ({"payload_keys": {"a": {"from": 1}}}, ["payload_keys.a", "from"]),
        ({"payload_keys": {"a": {"from": 1, "to": "9"}}}, ["payload_keys.a", "from"]),
        ({"payload_keys": {"a": {"format": "regex"}}}, ["payload_keys.a", "format"]),
        ({"payload_keys": {"a": {"ids_of": "owners"}}}, ["payload_keys.a", "ids_of"]),
        ({"payload_keys": {"a": {"called": 5}}}, ["payload_keys.a", "called"]),
        ({"payload_keys": {"a": {"pattern": "x"}}}, ["payload_keys.a", "pattern"]),
        ({"payload_keys": {"a": {"example": "x" * 70_000}}}, ["payload_keys"]),
        ({"payload_keys": {str(n): {} for n in range(501)}}, ["payload_keys"]),
    ],
)
def test_what_is_wrong_with_one_is_named(fleet: Fleet, columns: Row, words: list[str]) -> None:
    own(fleet, "taken-name")
    before = fleet.value("select count(*) from command_types")
    with fleet.refused("PT422", "command_type_invalid", *words):
        own(fleet, **columns)
    assert fleet.value("select count(*) from command_types") == before


def test_the_name_says_whether_it_is_somebodys(fleet: Fleet) -> None:
    with pytest.raises(psycopg.errors.CheckViolation), fleet.conn.transaction():
        fleet.run("update command_types set name = 'kiosk-x' where name = 'lock'")
    with fleet.refused("PT422", "owner_missing"):
        fleet.run("insert into command_types (name) values ('kiosk-y')")
    fleet.run("select fleet.set_setting('default_owner', to_jsonb(%s::text))", fleet.owner_id)
    fleet.run("insert into command_types (name) values ('kiosk-y')")
    whose = "select owner_id from command_types where name = 'kiosk-y'"
    assert fleet.value(whose) == fleet.owner_id


@pytest.mark.parametrize(
    "statement",
    [
        "insert into command_types (owner_id, name) values (%s, 'kiosk-y')",
        "update command_types set timeout_seconds = 9 where owner_id = %s returning id",
        "delete from command_types where owner_id = %s returning id",
    ],
)
@pytest.mark.parametrize("permissions", [["view", "operate"], None])
def test_only_managers_of_the_owner_change_it(
    fleet: Fleet, statement: str, permissions: list[str] | None
) -> None:
    own(fleet)
    person = member(fleet, *permissions) if permissions else uuid4()
    with fleet.acting(person):
        try:
            with fleet.conn.transaction():
                assert fleet.conn.execute(statement, [fleet.owner_id]).fetchall() == []
        except psycopg.Error as error:
            assert error.sqlstate in ("PT403", "PT404", "42501"), error
    row = fleet.row(
        "select name, timeout_seconds from command_types where owner_id = %s", fleet.owner_id
    )
    assert row == {"name": "kiosk-reload", "timeout_seconds": 60}


def test_neither_whose_it_is_nor_its_name_is_changed_by_people(fleet: Fleet) -> None:
    own(fleet)
    admin = member(fleet, "view", "operate", "manage", "destructive", "admin")
    for change in ("name = 'kiosk-z'", "owner_id = null", "channel = 'mdm'", "is_built_in = true"):
        with (
            fleet.acting(admin),
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            fleet.conn.transaction(),
        ):
            fleet.run(f"update command_types set {change} where owner_id is not null")
        fleet.run("reset role")


def test_who_may_not_wipe_cannot_make_it_harmless_first(fleet: Fleet) -> None:
    own(fleet, destructive=True)
    device = fleet.device()
    manager = member(fleet, "view", "operate", "manage")
    for statement in (
        f"select send_command({device}, 'kiosk-reload')",
        "update command_types set destructive = false where name = 'kiosk-reload'",
        "delete from command_types where name = 'kiosk-reload'",
    ):
        with fleet.refused("PT403", "permission_missing"), fleet.acting(manager):
            fleet.run(statement)
    first = fleet.create(
        device_ids=[device], recurrence_type="interval", recurrence_config={"hours": 1}
    )
    fleet.create(
        action_type="kiosk-reload", payload={}, device_ids=[device], after_schedule_id=first["id"]
    )
    with fleet.refused("PT403", "permission_missing"), fleet.acting(manager):
        fleet.run("select run_schedule(%s)", first["id"])
    with fleet.acting(member(fleet, "view", "operate", "manage", "destructive")):
        assert fleet.send(device, "kiosk-reload")["status"] == "pending"


HOURLY = """
    select create_schedule(jsonb_build_object(
      'owner_id', %(owner)s, 'name', 'x', 'recurrence_type', 'interval',
      'recurrence_config', '{"hours": 1}'::jsonb, 'device_ids', array[%(device)s]
    ) || $spec$)
"""
USES = {
    "schedules": HOURLY.replace("$spec$", """'{"action_type": "kiosk-x"}'::jsonb"""),
    "compensation": HOURLY.replace(
        "$spec$",
        """'{"action_type": "lock",
             "policies": {"rollout": {"compensate": {"action_type": "kiosk-x"}}}}'::jsonb""",
    ),
    "telemetry rules": "insert into telemetry_rules (owner_id, condition, action_type)"
    " values (%(owner)s, 'battery < 15', 'kiosk-x')",
    "location policies": "insert into location_policies (owner_id, name, event, action_type)"
    " values (%(owner)s, 'x', 'outside_all', 'kiosk-x')",
}


@pytest.mark.parametrize("use", USES)
def test_it_stays_for_as_long_as_it_is_used(fleet: Fleet, use: str) -> None:
    own(fleet, "kiosk-x")
    fleet.conn.execute(USES[use], {"device": fleet.device(), "owner": fleet.owner_id})
    for statement in (
        "delete from command_types where name = 'kiosk-x'",
        "update command_types set destructive = true where name = 'kiosk-x'",
    ):
        with fleet.refused(
            "PT409", "command_type_in_use", use.replace("compensation", "schedules")
        ):
            fleet.run(statement)
    fleet.run("update command_types set timeout_seconds = 5 where name = 'kiosk-x'")
    fleet.run("select cancel_schedule(id) from schedules")
    fleet.run("delete from telemetry_rules")
    fleet.run("delete from location_policies")
    fleet.run("delete from command_types where name = 'kiosk-x'")


def test_it_goes_with_its_owner_whatever_uses_it(fleet: Fleet) -> None:
    own(fleet)
    fleet.create(action_type="kiosk-reload", payload={}, selector={})
    fleet.run("delete from owners where id = %s", fleet.owner_id)
    assert fleet.value("select count(*) from command_types where owner_id is not null") == 0


def test_how_many_there_may_be_is_a_quota_and_changes_are_on_record(fleet: Fleet) -> None:
    fleet.run("select fleet.set_quota(%s, 'command_types', 1)", fleet.owner_id)
    manager = member(fleet, "view", "operate", "manage")
    with fleet.acting(manager):
        fleet.run("insert into command_types (name) values ('kiosk-a')")
        fleet.run("update command_types set timeout_seconds = 5 where name = 'kiosk-a'")
    with fleet.refused("PT429", "quota_exceeded"), fleet.acting(manager):
        fleet.run("insert into command_types (name) values ('kiosk-b')")
    kept = fleet.rows(
        "select action, actor from audit_log where table_name = 'command_types' and owner_id = %s"
        " order by id",
        fleet.owner_id,
    )
    assert kept == [{"action": action, "actor": manager} for action in ("insert", "update")]
    assert fleet.value("select count(*) from audit_log where table_name = 'command_types'") == 2


def test_whatever_looks_a_type_up_asks_whose_it_is(db: psycopg.Connection[Any]) -> None:
    sources = dict(
        db.execute(
            "select p.oid::regprocedure::text, p.prosrc from pg_proc as p"
            " where p.prosrc ~ 'public\\.command_types as'"
        ).fetchall()
    )
    looked_up = [
        (name, found[0], source[found.end() : found.end() + 120])
        for name, source in sources.items()
        for alias in set(re.findall(r"public\.command_types as (\w+)", source))
        for found in re.finditer(rf"\b{alias}\.name = ", source)
    ]
    assert len(looked_up) > 20
    assert [
        (name, after)
        for name, alias, after in looked_up
        if f"{alias.split('.')[0]}.owner_id" not in after
    ] == []
