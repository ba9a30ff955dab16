"""What NanoMDM tells on its secret address ends the commands of its devices."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.integration_webhook import activity, tell, webhook
from tests.helpers.mdm import Mdm


@pytest.fixture
def nano(mdm: Mdm) -> Mdm:
    """Make a NanoMDM server beside it."""
    spec = {"name": "nano", "integration_type": "nanomdm", "owner_id": str(mdm.fleet.owner_id)}
    mdm.id = mdm.fleet.value("select id from create_integration(%s, 'nano-key-1')", Jsonb(spec))
    return mdm


def answered(mdm: Mdm, job: dict[str, Any], status: str, plist: str = "") -> dict[str, Any]:
    """Give what NanoMDM tells of a device's answer."""
    uuid = mdm.fleet.value("select fleet.mdm_command_uuid(%s)::text", job["command_id"])
    event = {"udid": job["external_id"], "status": status, "command_uuid": uuid}
    event["raw_payload"] = base64.b64encode(plist.encode()).decode()
    return {"topic": "mdm.Connect", "event_id": "e1", "acknowledge_event": event}


@pytest.mark.parametrize("is_noted", [True, False])
def test_the_answer_of_a_device_ends_its_command(nano: Mdm, is_noted: bool) -> None:
    command = nano.fleet.send(nano.device(), "mdm_restart")
    (job,) = nano.claim()
    if is_noted:
        nano.finish(job, "accepted")
    token = webhook(nano)

    for status in ("Idle", "NotNow"):
        assert tell(nano, token, answered(nano, job, status))["status"] == "ignored"
    assert nano.fleet.command(command["id"])["status"] == "running"
    assert tell(nano, token, answered(nano, job, "Acknowledged"))["status"] == "completed"

    assert nano.fleet.command(command["id"])["status"] == "completed"
    assert nano.finish(job, "accepted")["accepted"] is False
    assert tell(nano, token, answered(nano, job, "Acknowledged"))["status"] == "ignored"
    assert activity(nano) == [("webhook_received", "completed")]


def test_function_and_database_give_a_command_the_same_id(nano: Mdm) -> None:
    query = "select fleet.mdm_command_uuid(11)::text"
    assert nano.fleet.value(query) == "bc6ace39-67e0-e5ea-ec88-a25c06b1c48b"


def test_a_device_that_refuses_says_why(nano: Mdm) -> None:
    command = nano.fleet.send(nano.device(), "mdm_lock")
    (job,) = nano.claim()
    nano.finish(job, "accepted")
    plist = "<dict><key>LocalizedDescription</key> <string>No passcode is set</string></dict>"

    tell(nano, webhook(nano), answered(nano, job, "Error", plist))

    found = nano.fleet.command(command["id"])
    assert (found["status"], found["reason"]) == ("failed", "refused")
    assert found["error_message"] == "the device answered Error: No passcode is set"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"topic": "mdm.Connect"},
        {"topic": "mdm.Connect", "acknowledge_event": "x"},
        {"topic": "mdm.Connect", "acknowledge_event": {"status": "Error", "raw_payload": "%%"}},
        {"topic": "mdm.TokenUpdate", "checkin_event": {"udid": "U"}},
    ],
)
def test_other_news_of_nanomdm_end_nothing(nano: Mdm, body: Any) -> None:
    assert tell(nano, webhook(nano), body) == {"status": "ignored", "is_new": False}


def test_an_answer_for_a_device_of_another_integration_ends_nothing(nano: Mdm) -> None:
    command = nano.fleet.send(nano.device(), "mdm_restart")
    (job,) = nano.claim()
    spec = {"name": "n2", "integration_type": "nanomdm", "owner_id": str(nano.fleet.owner_id)}
    nano.id = nano.fleet.value("select id from create_integration(%s)", Jsonb(spec))

    tell(nano, webhook(nano), answered(nano, job, "Acknowledged"))

    assert nano.fleet.command(command["id"])["status"] == "running"
