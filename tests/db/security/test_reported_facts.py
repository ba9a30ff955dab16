"""A device chooses what it says of itself, and that decides nothing that it should not."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.mdm import Mdm


def check_in(fleet: Fleet, device: int, **facts: Any) -> None:
    with fleet.as_device(device):
        fleet.run("select device_checkin(%s)", Jsonb(facts))


def targets(fleet: Fleet, selector: dict[str, Any]) -> list[int]:
    rows = fleet.rows(
        "select device_id from fleet.targets(%s, '{}', '{}', %s)", fleet.owner_id, Jsonb(selector)
    )
    return [row["device_id"] for row in rows]


def wipe(fleet: Fleet) -> None:
    fleet.run("insert into command_types (name, destructive) values ('shred', true)")


def test_selectors_look_at_what_is_reported_only_where_they_name_it(fleet: Fleet) -> None:
    liar, honest = fleet.device(), fleet.device(platform="plan9", attributes={"room": "vault"})
    check_in(fleet, liar, platform="plan9", attributes={"room": "vault", "tags": ["vault"]})
    assert targets(fleet, {"platform": ["plan9"]}) == [honest]
    assert targets(fleet, {"attributes": {"room": "vault"}}) == [honest]
    assert targets(fleet, {"reported": {"room": "vault", "platform": "plan9"}}) == [liar]


def test_what_is_reported_never_decides_whom_to_wipe(fleet: Fleet) -> None:
    wipe(fleet)
    reported = {"reported": {"room": "vault"}}
    group = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="by themselves", selector=reported
    )["id"]
    listed = fleet.insert("device_groups", owner_id=fleet.owner_id, name="listed")["id"]
    spec: dict[str, Any] = {"action_type": "shred", "payload": {}}
    with fleet.refused("PT422", "schedule_invalid", "selector.reported"):
        fleet.create(selector=reported, **spec)
    with fleet.refused("PT422", "schedule_invalid", "group_ids"):
        fleet.create(group_ids=[group], **spec)
    made = fleet.create(
        selector=reported, recurrence_type="daily", recurrence_config={"time": "9:00"}
    )
    with fleet.refused("PT422", "schedule_invalid", "selector.reported"):
        fleet.run("update schedules set action_type = 'shred' where id = %s", made["id"])
    # And not by the back door: the group becomes such a one after the schedule was made.
    fleet.create(
        group_ids=[listed], recurrence_type="daily", recurrence_config={"time": "9:00"}, **spec
    )
    with fleet.refused("PT422", "selector_invalid"):
        fleet.run("update device_groups set selector = %s where id = %s", Jsonb(reported), listed)


def test_a_location_policy_that_wipes_does_not_go_by_it_either(fleet: Fleet) -> None:
    wipe(fleet)
    place = fleet.insert(
        "locations", owner_id=fleet.owner_id, name="yard", latitude=1, longitude=1, radius_m=50
    )["id"]
    with fleet.refused("PT422", "location_policy_invalid", "selector.reported"):
        fleet.insert(
            "location_policies", owner_id=fleet.owner_id, location_id=place, event="leave",
            action_type="shred", selector={"reported": {"lost": True}},
        )  # fmt: skip


@pytest.mark.parametrize("said", ["serial_number", "SerialNumber", "serial"])
def test_a_laptop_that_reports_the_serial_number_of_another_is_not_linked(
    mdm: Mdm, said: str
) -> None:
    fleet = mdm.fleet
    laptop = fleet.device("just-a-laptop")
    check_in(fleet, laptop, attributes={said: "C02-OF-THE-IPAD"})
    mdm.fleet.run(
        "select fleet.take_sightings(i, %s, now()) from device_integrations as i where i.id = %s",
        Jsonb([{"external_id": "77", "name": "ipad", "serial_number": "C02-OF-THE-IPAD"}]),
        mdm.id,
    )
    linked = fleet.value("select device_id from device_links where external_id = '77'")
    assert linked != laptop


def test_what_an_operator_says_is_what_links_go_by(mdm: Mdm) -> None:
    fleet = mdm.fleet
    ipad = fleet.device("prepared", attributes={"serial_number": "C02-PREPARED"})
    mdm.fleet.run(
        "select fleet.take_sightings(i, %s, now()) from device_integrations as i where i.id = %s",
        Jsonb([{"external_id": "78", "name": "other name", "serial_number": "C02-PREPARED"}]),
        mdm.id,
    )
    assert fleet.value("select device_id from device_links where external_id = '78'") == ipad
