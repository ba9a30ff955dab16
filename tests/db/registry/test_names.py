"""What people write is a name or an id; tags and members are changed by what is meant."""

from __future__ import annotations

from uuid import uuid4

import pytest
from tests.helpers.fleet import Fleet


def device_id(fleet: Fleet, text: str) -> int:
    found: int = fleet.value("select device_id(%s)", text)
    return found


def test_a_device_is_found_by_its_name_in_any_case_and_by_its_id(fleet: Fleet) -> None:
    device = fleet.device("Lab-01")

    assert device_id(fleet, "lab-01") == device_id(fleet, str(device)) == device


def test_a_name_wins_over_an_id(fleet: Fleet) -> None:
    first = fleet.device("first")
    named = fleet.device(str(first))

    assert device_id(fleet, str(first)) == named


def test_a_name_of_two_fleets_is_ambiguous_where_both_are_seen(fleet: Fleet) -> None:
    mine = fleet.device("shared")
    other = Fleet(fleet.conn)
    theirs = other.device("SHARED")

    with fleet.refused("PT409", "device_ambiguous", f"{mine}, {theirs}"):
        device_id(fleet, "shared")
    with fleet.acting(other.owner_id):
        assert device_id(fleet, "shared") == theirs


@pytest.mark.parametrize(
    "text",
    ["nobody", "", "0", "-1", "1.5", "99999999999999999999999", "lab_01", "%", "'; --", "x" * 5000],
)
def test_what_nothing_has_as_its_name_is_told(fleet: Fleet, text: str) -> None:
    fleet.device("lab-01")

    with fleet.refused("PT404", "device_not_found", "was not found") as refusal:
        device_id(fleet, text)
    assert refusal.hint == "List what there is with: select * from device_list"
    assert len(refusal.message) < 300


def test_no_name_at_all_is_told_as_well(fleet: Fleet) -> None:
    with fleet.refused("PT404", "device_not_found"):
        fleet.value("select device_id(null)")


def test_another_fleet_is_as_good_as_not_there(fleet: Fleet) -> None:
    device = fleet.device("secret-pc")

    for text in ("secret-pc", str(device)):
        with fleet.refused("PT404", "device_not_found"), fleet.acting(uuid4()):
            device_id(fleet, text)


@pytest.mark.parametrize(
    ("function", "kind", "command"),
    [
        ("owner_id", "owner", "owner"),
        ("group_id", "group", "group"),
        ("schedule_id", "schedule", "schedule"),
        ("blackout_calendar_id", "calendar", "blackout"),
        ("location_id", "location", "location"),
        ("integration_id", "integration", "integration"),
        ("webhook_endpoint_id", "webhook_endpoint", "webhook"),
    ],
)
def test_everything_with_a_name_is_found_and_missed_alike(
    fleet: Fleet, function: str, kind: str, command: str
) -> None:
    owner = fleet.owner_id
    made = {
        "owner_id": lambda: fleet.insert("owners", name="Named"),
        "group_id": lambda: fleet.insert("device_groups", owner_id=owner, name="Named"),
        "schedule_id": lambda: fleet.create(name="Named", device_ids=[fleet.device()]),
        "blackout_calendar_id": lambda: fleet.insert(
            "blackout_calendars", owner_id=owner, name="Named"
        ),
        "location_id": lambda: fleet.insert(
            "locations", owner_id=owner, name="Named", latitude=1, longitude=1, radius_m=100
        ),
        "integration_id": lambda: fleet.insert(
            "device_integrations", owner_id=owner, name="Named", integration_type="simplemdm"
        ),
        "webhook_endpoint_id": lambda: fleet.insert(
            "webhook_endpoints", owner_id=owner, name="Named", url="https://hooks.example.com"
        ),
    }[function]()

    for text in ("named", str(made["id"])):
        assert str(fleet.value(f"select {function}(%s)", text)) == str(made["id"])
    with fleet.refused("PT404", f"{kind}_not_found") as refusal:
        fleet.value(f"select {function}('nothing')")
    assert refusal.hint == f"List what there is with: select * from {command}_list"


def test_tags_are_added_and_taken_away(fleet: Fleet) -> None:
    device = fleet.device(tags=["b", "spare"])

    with fleet.acting(fleet.owner_id):
        tags = fleet.value(
            "select (tag_device(%s, %s, %s)).tags", device, ["a", "b", "a"], ["spare", "never"]
        )

    assert tags == ["a", "b"]
    with fleet.refused("PT404", "device_not_found"), fleet.acting(uuid4()):
        fleet.value("select (tag_device(%s, '{taken}')).tags", device)


def test_members_come_and_go_and_are_counted(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="members")["id"]
    one, two = fleet.device(), fleet.device()

    with fleet.acting(fleet.owner_id):
        assert fleet.value("select add_to_group(%s, %s)", group, [one]) == 1
        assert fleet.value("select add_to_group(%s, %s)", group, [one, two, two]) == 1
        assert fleet.value("select devices from group_list where id = %s", group) == 2
        assert fleet.value("select groups from device_list where id = %s", one) == ["members"]
        assert fleet.value("select remove_from_group(%s, %s)", group, [one, 0]) == 1
        assert fleet.value("select devices from group_list where id = %s", group) == 1
    with fleet.acting(uuid4()):
        assert fleet.value("select remove_from_group(%s, %s)", group, [two]) == 0


def test_a_device_is_listed_with_what_waits_for_it(fleet: Fleet) -> None:
    device = fleet.device("listed")
    for _ in range(2):
        fleet.run("select send_command(%s, 'lock')", device)
    fleet.run("select cancel_command(max(id)) from device_commands where device_id = %s", device)

    row = fleet.row("select * from device_list where id = %s", device)

    assert (row["pending"], row["commands"]) == (1, {"pending": 1, "cancelled": 1})
    assert row["topic"] == f"device:{fleet.auth_id(device)}"
    owner = fleet.row("select * from owner_list where id = %s", fleet.owner_id)
    assert (owner["devices"], owner["schedules"], owner["members"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("max_uses = 5", "good"),
        ("used_count = 1", "used up"),
        ("expires_at = now() - interval '1 second'", "expired"),
        ("revoked_at = now(), used_count = 1", "revoked"),
    ],
)
def test_a_code_is_listed_with_how_it_is(fleet: Fleet, change: str, state: str) -> None:
    with fleet.acting(fleet.owner_id):
        code = fleet.value("select create_enrollment_code()")["id"]
    fleet.run(f"update enrollment_codes set {change} where id = {int(code)}")

    assert fleet.value("select state from enrollment_code_list where id = %s", code) == state


def test_a_view_says_of_a_column_what_its_table_says(fleet: Fleet) -> None:
    said = fleet.rows(
        """
        select c.relname, col_description(c.oid, a.attnum) as comment
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attname = 'hostname'
        where c.oid in ('public.devices'::regclass, 'public.device_list'::regclass)
        """
    )

    assert len({row["comment"] for row in said}) == 1
    assert said[0]["comment"]
