"""Positions that another system tells of the devices linked to it."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.locations import Area, point

from pgfleet_functions.setup import ensure_worker_role


def integration(area: Area) -> int:
    found: int = area.fleet.insert(
        "device_integrations",
        owner_id=area.fleet.owner_id,
        name="MDM",
        integration_type="simplemdm",
    )["id"]
    return found


def page(area: Area, second: float, place: tuple[float, float], **more: Any) -> Jsonb:
    latitude, longitude = point(*place)
    device = {
        "external_id": "1",
        "name": "ipad",
        "latitude": str(latitude),
        "longitude": longitude,
        "accuracy_m": 10,
        "located_at": area.at(second).isoformat(),
        **more,
    }
    return Jsonb([device, {"external_id": "2", "name": "a Mac that nobody has located"}])


def test_a_sync_moves_devices_through_places(area: Area) -> None:
    mdm = integration(area)
    area.policy("enter", area.school)
    area.policy("leave", area.school)
    for second, place in ((0, (0, 0)), (900, (0, 0)), (900, (0, 0)), (1800, (-900, 0))):
        answer = area.fleet.value(
            "select fleet.worker_sync_inventory(%s, %s)", mdm, page(area, second, place)
        )
        assert answer["errors"] == []
    device = area.fleet.value("select id from devices where hostname = 'ipad'")
    assert area.crossings(device) == [("entered", "School")]
    assert area.fleet.value("select located_at from devices where id = %s", device) == area.at(1800)
    area.fleet.run("select fleet.worker_sync_inventory(%s, %s)", mdm, page(area, 2400, (-900, 0)))
    assert area.crossings(device) == [("entered", "School"), ("left", "School")]
    assert [s["payload"]["message"] for s in area.schedules()] == ["enter", "leave"]


def test_a_position_that_makes_no_sense_moves_nobody(area: Area) -> None:
    mdm = integration(area)
    for wrong in ({"latitude": "north"}, {"longitude": None}, {"latitude": 91}, {"accuracy_m": -1}):
        area.fleet.run(
            "select fleet.worker_sync_inventory(%s, %s)", mdm, page(area, 0, (0, 0), **wrong)
        )
    assert area.fleet.rows("select * from device_places") == []


def test_policies_act_at_once_on_what_the_function_has_synced(
    own_database: Any, connect: Any
) -> None:
    area = Area(connect())
    mdm = integration(area)
    area.policy("enter", area.school)
    with own_database.connect("supabase_admin", autocommit=True) as admin:
        ensure_worker_role(admin, own_database.settings.password("fleet_worker"))
    area.fleet.run("select fleet.grant_worker()")
    with own_database.connect("fleet_worker", autocommit=True) as worker:
        for second in (0, 900):
            worker.execute(
                "select fleet.worker_sync_inventory(%s, %s)", (mdm, page(area, second, (0, 0)))
            )
    assert [s["name"].split()[-1] for s in area.schedules()] == ["School"]
