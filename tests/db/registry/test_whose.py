"""Whose a request is: of the devices and groups that it names, else of its only fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet


class Team:
    """One person in two fleets, and a device and a group of each."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.person = uuid4()
        self.owners: dict[str, UUID] = {}
        self.devices: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        for name in ("East", "West"):
            with fleet.acting(self.person):
                owner = fleet.value("select id from create_owner(%s)", name)
            self.owners[name] = owner
            self.devices[name] = fleet.device(f"pc-{name}", owner_id=owner)
            group = fleet.insert("device_groups", owner_id=owner, name=f"lab {name}")
            self.groups[name] = group["id"]
            fleet.device("printer", owner_id=owner)


@pytest.fixture
def team(fleet: Fleet) -> Team:
    return Team(fleet)


def schedule(fleet: Fleet, **spec: Any) -> UUID:
    whole = {
        "action_type": "lock",
        "recurrence_type": "daily",
        "recurrence_config": {"time": "03:00"},
    }
    return UUID(fleet.value("select create_schedule(%s)", Jsonb(whole | spec))["owner_id"])


NAMED: dict[str, Callable[[Team, str], dict[str, Any]]] = {
    "device_ids": lambda t, o: {"device_ids": [t.devices[o]]},
    "group_ids": lambda t, o: {"group_ids": [t.groups[o]]},
    "devices": lambda t, o: {"devices": [f"PC-{o}"]},
    "groups": lambda t, o: {"groups": [f"LAB {o}"]},
    "both": lambda t, o: {"devices": ["printer", f"pc-{o}"], "group_ids": [t.groups[o]]},
}


@pytest.mark.parametrize("owner", ["East", "West"])
@pytest.mark.parametrize("how", NAMED)
def test_a_schedule_belongs_to_whom_its_targets_belong(team: Team, how: str, owner: str) -> None:
    spec = NAMED[how](team, owner)
    with team.fleet.acting(team.person):
        assert schedule(team.fleet, **spec) == team.owners[owner]
        preview = "select count(*) from preview_schedule(%s)"
        whole = {
            "action_type": "lock",
            "recurrence_type": "daily",
            "recurrence_config": {"time": "03:00"},
        }
        assert team.fleet.value(preview, Jsonb(whole | spec)) == 10
    # In the SQL editor too, whatever the default.
    team.fleet.run(
        "select fleet.set_setting('default_owner', to_jsonb(%s::text))", team.fleet.owner_id
    )
    assert schedule(team.fleet, **spec) == team.owners[owner]


@pytest.mark.parametrize(
    "columns",
    [
        lambda t: {"device_ids": [t.devices["East"]]},
        lambda t: {"device_id": t.devices["East"]},
        lambda t: {"group_ids": [t.groups["East"]]},
    ],
)
def test_a_row_that_is_inserted_belongs_to_whom_its_targets_belong(
    team: Team, columns: Callable[[Team], dict[str, Any]]
) -> None:
    given = {"name": "x", "action_type": "lock", **columns(team)}
    with team.fleet.acting(team.person):
        names = ", ".join(given)
        places = ", ".join(["%s"] * len(given))
        made = team.fleet.value(
            f"insert into schedules ({names}) values ({places}) returning owner_id",
            *given.values(),
        )
    assert made == team.owners["East"]


def test_what_else_names_devices_belongs_to_their_owner(team: Team) -> None:
    east, owner = team.devices["East"], team.owners["East"]
    geo = {"name": "g", "apps": ["chess"], "start_minute": 0, "end_minute": 60, "device": "pc-east"}
    with team.fleet.acting(team.person):
        code = team.fleet.value(
            "select create_enrollment_code(p_group_ids => array[%s::bigint])", team.groups["East"]
        )
        codes = "select owner_id from enrollment_codes where id = %s"
        assert team.fleet.value(codes, code["id"]) == owner
        assert team.fleet.value("select owner_id from create_geo_schedule(%s)", Jsonb(geo)) == owner
        targets = Jsonb({"device_ids": [east]})
        assign = "select owner_id from assign_profile('7', %s)"
        assert team.fleet.value(assign, targets) == owner


def test_targets_of_several_owners_are_refused_and_it_says_whose_they_are(team: Team) -> None:
    for spec in (
        {"device_ids": list(team.devices.values())},
        {"devices": ["pc-east"], "groups": ["lab west"]},
        {"device_ids": [team.devices["East"]], "group_ids": [team.groups["West"]]},
    ):
        with team.fleet.refused("PT422", "owners_differ", '"East"', '"West"', "device"):
            with team.fleet.acting(team.person):
                schedule(team.fleet, **spec)


def test_a_name_that_several_owners_have_is_the_usual_owner_s_or_nobody_s(team: Team) -> None:
    with team.fleet.refused("PT409", "owner_ambiguous", "printer"), team.fleet.acting(team.person):
        schedule(team.fleet, devices=["printer"])
    west = str(team.owners["West"])
    team.fleet.run("select fleet.set_setting('default_owner', to_jsonb(%s::text))", west)
    assert schedule(team.fleet, devices=["printer"]) == team.owners["West"]


def test_whose_it_is_may_be_said(team: Team) -> None:
    east = str(team.owners["East"])
    with team.fleet.acting(team.person):
        assert schedule(team.fleet, owner_id=east, devices=["printer"]) == team.owners["East"]
    for spec in (
        {"device_ids": [team.devices["West"]]},
        {"group_ids": [team.groups["West"]]},
        {"devices": ["pc-west"]},
        {"groups": ["lab west"]},
    ):
        with team.fleet.refused("PT422", "schedule_invalid", 'belongs to another owner, "West"'):
            with team.fleet.acting(team.person):
                schedule(team.fleet, owner_id=east, **spec)


def test_what_a_person_may_not_see_tells_nothing(team: Team) -> None:
    stranger = uuid4()
    foreign, unknown = team.devices["East"], 10**12
    for spec in ({"device_ids": [foreign]}, {"devices": ["pc-east"]}, {"device_ids": [unknown]}):
        with team.fleet.refused("PT404", "schedule_invalid", "was not found") as refusal:
            with team.fleet.acting(stranger):
                schedule(team.fleet, **spec)
        assert "East" not in refusal.message and "owner" not in refusal.message


def test_the_only_fleet_that_somebody_is_in_is_meant(fleet: Fleet) -> None:
    person = uuid4()
    with fleet.acting(person):
        owner = fleet.value("select id from create_owner('School')")
        made = fleet.value("insert into devices (hostname) values ('pc-1') returning owner_id")
        group = fleet.value("insert into device_groups (name) values ('lab') returning owner_id")
        assert (made, group) == (owner, owner)
        assert schedule(fleet, selector={}) == owner
        second = fleet.value("select id from create_owner('Second')")
        # In several, the personal one is meant.
        assert schedule(fleet, selector={}) == person
        assert fleet.rows("select name from owner_list where is_default") == [{"name": "personal"}]
        fleet.run("select delete_owner(%s)", second)
        assert schedule(fleet, selector={}) == owner


def test_whoever_uses_the_personal_fleet_goes_on_with_it(fleet: Fleet) -> None:
    person = uuid4()
    with fleet.acting(person):
        fleet.run("insert into devices (hostname) values ('pc-1')")
        fleet.run("select create_owner('School')")
        assert schedule(fleet, selector={}) == person


def test_being_a_member_of_a_fleet_does_not_lend_its_rights(fleet: Fleet) -> None:
    admin, viewer = uuid4(), uuid4()
    with fleet.acting(admin):
        owner = fleet.value("select id from create_owner('School')")
        code = fleet.value("select invite_member(%s, null, '{view}')", owner)["code"]
    with fleet.acting(viewer):
        fleet.run("select accept_invitation(%s)", code)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
        schedule(fleet, selector={})
