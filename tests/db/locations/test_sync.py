"""Positions that another system tells of the devices linked to it."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.locations import Town, point

from pgfleet_functions.setup import ensure_worker_role


def integration(town: Town) -> int:
    found: int = town.fleet.insert(
        "device_integrations",
        owner_id=town.fleet.owner_id,
        name="MDM",
        integration_type="simplemdm",
    )["id"]
    return found


def page(town: Town, second: float, place: tuple[float, float], **more: Any) -> Jsonb:
    latitude, longitude = point(*place)
    device = {
        "external_id": "1",
        "name": "ipad",
        "latitude": str(latitude),
        "longitude": longitude,
        "accuracy_m": 10,
        "located_at": town.at(second).isoformat(),
        **more,
    }
    return Jsonb([device, {"external_id": "2", "name": "a Mac that nobody has located"}])


def test_a_sync_moves_devices_through_places(town: Town) -> None:
    mdm = integration(town)
    town.policy("enter", town.school)
    town.policy("leave", town.school)
    for second, place in ((0, (0, 0)), (900, (0, 0)), (900, (0, 0)), (1800, (-900, 0))):
        answer = town.fleet.value(
            "select fleet.worker_sync_inventory(%s, %s)", mdm, page(town, second, place)
        )
        assert answer["errors"] == []
    device = town.fleet.value("select id from devices where hostname = 'ipad'")
    assert town.crossings(device) == [("entered", "School")]
    assert town.fleet.value("select located_at from devices where id = %s", device) == town.at(1800)
    town.fleet.run("select fleet.worker_sync_inventory(%s, %s)", mdm, page(town, 2400, (-900, 0)))
    assert town.crossings(device) == [("entered", "School"), ("left", "School")]
    assert [s["payload"]["message"] for s in town.schedules()] == ["enter", "leave"]


def test_a_position_that_makes_no_sense_moves_nobody(town: Town) -> None:
    mdm = integration(town)
    for wrong in ({"latitude": "north"}, {"longitude": None}, {"latitude": 91}, {"accuracy_m": -1}):
        town.fleet.run(
            "select fleet.worker_sync_inventory(%s, %s)", mdm, page(town, 0, (0, 0), **wrong)
        )
    assert town.fleet.rows("select * from device_places") == []


def test_policies_act_at_once_on_what_the_function_has_synced(
    own_database: Any, connect: Any
) -> None:
    town = Town(connect())
    mdm = integration(town)
    town.policy("enter", town.school)
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        ensure_worker_role(admin, own_database.settings.password("fleet_worker"))
    town.fleet.run("select fleet.grant_worker()")
    with own_database.connect("fleet_worker", autocommit=True) as worker:
        for second in (0, 900):
            worker.execute(
                "select fleet.worker_sync_inventory(%s, %s)", (mdm, page(town, second, (0, 0)))
            )
    assert [s["name"].split()[-1] for s in town.schedules()] == ["School"]
