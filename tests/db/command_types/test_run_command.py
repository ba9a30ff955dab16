"""What the payload of `run_command` may hold, and who may send it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

# The agent takes the same list: tests/agent/test_command_lines.py.
BAD = json.loads((Path(__file__).parents[2] / "helpers" / "bad_commands.json").read_text())


@pytest.mark.parametrize("payload", BAD, ids=json.dumps)
def test_a_payload_that_is_more_than_a_command_is_refused(
    fleet: Any, payload: dict[str, Any]
) -> None:
    with fleet.refused("PT422", "schedule_invalid") as refusal:
        fleet.create(action_type="run_command", device_ids=[fleet.device()], payload=payload)
    assert "payload." in refusal.message
    with pytest.raises(psycopg.Error) as refused:
        fleet.value("select send_command(%s, 'run_command', %s)", fleet.device(), Jsonb(payload))
    assert refused.value.sqlstate == "PT422"


def test_what_it_may_say_of_itself(fleet: Any) -> None:
    fleet.create(
        action_type="run_command",
        device_ids=[fleet.device()],
        payload={
            **{"command": "id; echo $HOME | tr a b", "shell": "bash", "timeout": 0.5},
            **{"output_limit": 100, "environment": {"LANG": "C; x", "_A1": ""}},
            **{"batch_size": 3, "stop_on_failure": False},
        },
    )


@pytest.mark.parametrize("value", [0, -1, 1e9, "2", [1]])
def test_a_batch_is_a_number_of_devices(fleet: Any, value: Any) -> None:
    with fleet.refused("PT422", "schedule_invalid", "payload.batch_size"):
        fleet.create(
            action_type="run_command",
            device_ids=[fleet.device()],
            payload={"command": "id", "batch_size": value},
        )


def test_whoever_is_invited_runs_no_commands_until_somebody_says_so(fleet: Any) -> None:
    admin, member = uuid4(), uuid4()
    fleet.run(
        "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{admin}')",
        *(fleet.owner_id, admin),
    )
    device = fleet.device()
    with fleet.acting(admin):
        code = fleet.value("select invite_member(%s) ->> 'code'", fleet.owner_id)
    with fleet.acting(member):
        fleet.value("select accept_invitation(%s)", code)
    run = "select send_command(%s, 'run_command', '{\"command\": \"id\"}')"
    with fleet.acting(member), fleet.refused("PT403", "permission_missing", "can_run_commands"):
        fleet.value(run, device)
    with fleet.acting(admin):
        fleet.value(
            "select set_member_permissions(%s, %s::text, '{view,operate,can_run_commands}')",
            *(fleet.owner_id, member),
        )
    with fleet.acting(member):
        assert fleet.value(run, device)


WAYS = {
    "command": "insert into device_commands (device_id, command_type, payload)"
    " values (%(device)s, 'run_command', '{\"command\": \"id\"}')",
    "many": "select send_commands(jsonb_build_object('device_ids', array[%(device)s]),"
    " 'run_command', '{\"command\": \"id\"}')",
    "schedule": "select create_schedule(jsonb_build_object('owner_id', %(owner)s, 'name', 'x',"
    " 'action_type', 'run_command', 'payload', '{\"command\": \"id\"}'::jsonb,"
    " 'device_ids', array[%(device)s]))",
    "location policy": "insert into location_policies (owner_id, name, event, action_type, payload)"
    " values (%(owner)s, 'x', 'outside_all', 'run_command', '{\"command\": \"id\"}')",
    "telemetry rule": "insert into telemetry_rules (owner_id, condition, action_type, payload)"
    " values (%(owner)s, 'battery < 15', 'run_command', '{\"command\": \"id\"}')",
    "telemetry rule, changed": "update telemetry_rules set action_type = 'run_command',"
    ' payload = \'{"command": "id"}\' where owner_id = %(owner)s',
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_leads_around_the_permission(fleet: Any, way: str) -> None:
    fleet.run(
        "insert into telemetry_rules (owner_id, condition, action_type)"
        " values (%s, 't > 1', 'lock')",
        fleet.owner_id,
    )
    given = {"device": fleet.device(), "owner": fleet.owner_id}
    people = []
    for permissions in ("{view,operate,manage}", "{view,operate,manage,can_run_commands}"):
        people.append(uuid4())
        fleet.run(
            "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, %s)",
            *(fleet.owner_id, people[-1], permissions),
        )
    with (
        fleet.refused("PT403", "permission_missing", "can_run_commands"),
        fleet.acting(people[0]),
    ):
        fleet.conn.execute(WAYS[way], given)
    with fleet.acting(people[1]):
        assert fleet.conn.execute(WAYS[way], given).rowcount == 1
