"""Who may not wipe puts nothing where a wipe finds it, and ends nothing that a wipe follows."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from tests.helpers.fleet import Fleet

WAYS = {
    "join": "insert into device_group_members (group_id, device_id) values (%(group)s, %(device)s)",
    "regroup": 'update device_groups set selector = \'{"tags": ["loan"]}\' where id = %(dynamic)s',
    "code of a group": "select create_enrollment_code(p_group_ids => array[%(group)s])",
    "code of a tag": "select create_enrollment_code(p_tags => '{scrap,blue}')",
    "register": "insert into devices (hostname, owner_id, tags) values ('x', %(owner)s, '{scrap}')",
    "platform": "update devices set platform = 'abacus' where id = %(device)s",
    "attributes": """update devices set attributes = '{"shelf": 9}' where id = %(device)s""",
    "cancel": "select cancel_command(%(command)s)",
    "cancel plainly": "update device_commands set status = 'cancelled' where id = %(command)s",
    "retire": "select retire_device(%(device)s)",
    "delete": "delete from devices where id = %(device)s",
}


@pytest.mark.parametrize("way", WAYS)
def test_who_may_not_wipe_finds_no_way_round(fleet: Fleet, way: str) -> None:
    fleet.run("insert into command_types (name, destructive) values ('melt', true)")
    melt: dict[str, Any] = {"action_type": "melt", "payload": {}}
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="old ones")["id"]
    dynamic = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="by tag", selector={"tags": ["none"]}
    )["id"]
    later = {"recurrence_type": "daily", "recurrence_config": {"time": "4:40"}}
    fleet.create(group_ids=[group, dynamic], **melt, **later)
    for selector in ({"tags": ["scrap"]}, {"platform": "abacus"}, {"attributes": {"shelf": 9}}):
        fleet.create(selector=selector, **melt, **later)
    device = fleet.device("of-value")
    first = fleet.create(device_ids=[device])["id"]
    fleet.create(device_ids=[device], after={"schedule_id": first, "on": "failed"}, **melt)
    (command,) = fleet.commands(first)
    # Everybody is admin of a personal owner; here nobody is.
    fleet.run("delete from owner_members where owner_id = %s", fleet.owner_id)
    manager, admin = uuid4(), uuid4()
    for user, more in ((manager, []), (admin, ["destructive"])):
        rights = ["operate", "manage", *more]
        fleet.run("insert into owner_members values (%s, %s, %s)", fleet.owner_id, user, rights)
    names = {
        **{"group": group, "dynamic": dynamic, "device": device, "owner": fleet.owner_id},
        "command": command["id"],
    }
    with fleet.refused("PT403", "permission_missing"), fleet.acting(manager):
        fleet.conn.execute(WAYS[way], names)
    with fleet.acting(admin):
        fleet.conn.execute(WAYS[way], names)
