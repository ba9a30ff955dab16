"""What may be sent: payloads, channels and permissions of each type of command."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from tests.helpers.fleet import Fleet, Row


@pytest.mark.parametrize(
    ("kind", "named", "words"),
    [
        ("no_such_type", {}, ["command_type", "no_such_type"]),
        ("broadcast_message", {"p_payload": {}}, ["payload.message"]),
        ("broadcast_message", {"p_payload": {"message": 5}}, ["payload.message"]),
        ("run_command", {"p_payload": {"command": "x", "shell": "fish"}}, ["payload.shell"]),
        ("lock", {"p_payload": []}, ["payload"]),
        ("lock", {"p_priority": 101}, ["priority"]),
        ("lock", {"p_priority": None}, ["priority"]),
        ("lock", {"p_priority": 10**9}, ["priority"]),
        ("lock", {"p_expires_after": "-1 hour"}, ["expires_at"]),
        ("lock", {"p_max_attempts": 0}, ["max_attempts"]),
        ("no_such_type", {"p_priority": 999, "p_expires_after": "0"}, ["command_type", "priority"]),
    ],
)
def test_every_wrong_field_is_named(fleet: Fleet, kind: str, named: Row, words: list[str]) -> None:
    device = fleet.device()
    with fleet.refused("PT422", "command_invalid", *words):
        fleet.send(device, kind, **named)
    assert fleet.value("select count(*) from device_commands") == 0


def test_destructive_types_need_their_permission(fleet: Fleet) -> None:
    fleet.run("insert into command_types (name, destructive) values ('wipe_all', true)")
    device, operator = fleet.device(), uuid4()
    fleet.insert(
        "owner_members", owner_id=fleet.owner_id, user_id=operator, permissions=["view", "operate"]
    )
    with fleet.refused("PT403", "permission_missing", "wipe_all"), fleet.acting(operator):
        fleet.send(device, "wipe_all")
    with fleet.acting(fleet.owner_id):
        assert fleet.send(device, "wipe_all")["status"] == "pending"


def test_a_command_for_another_channel_takes_it_from_its_type(fleet: Fleet) -> None:
    fleet.run(
        "insert into command_types (name, channel) values ('some_profile', 'mdm')"
        " on conflict do nothing"
    )
    device = fleet.device()
    assert fleet.send(device, "some_profile")["channel"] == "mdm"
    assert fleet.claim(device) == []


@pytest.mark.parametrize("kind", ["mdm_wipe", "mdm_unenroll"])
def test_what_ends_data_needs_a_permission_and_a_confirmation(mdm: Any, kind: str) -> None:
    device = mdm.device()
    operator = mdm.person("view", "operate")
    allowed = mdm.person("view", "operate", "destructive")
    with mdm.fleet.refused("PT403", "permission_missing"), mdm.fleet.acting(operator):
        mdm.fleet.send(device, kind, p_payload={"confirm": True})
    for payload in ({}, {"confirm": False}):
        with mdm.fleet.refused("PT422", "command_invalid"), mdm.fleet.acting(allowed):
            mdm.fleet.send(device, kind, p_payload=payload)
    with mdm.fleet.acting(allowed):
        assert mdm.fleet.send(device, kind, p_payload={"confirm": True})["status"] == "pending"
