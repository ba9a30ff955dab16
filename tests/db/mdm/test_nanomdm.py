"""What NanoMDM tells on its secret address ends the commands of its devices."""

from __future__ import annotations

import base64
import plistlib
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


def answered(
    mdm: Mdm, job: dict[str, Any], status: str, plist: str | bytes = "", **more: Any
) -> dict[str, Any]:
    """Give what NanoMDM tells of a device's answer."""
    uuid = mdm.fleet.value("select fleet.mdm_command_uuid(%s)::text", job["command_id"])
    raw = plist if isinstance(plist, bytes) else plist.encode()
    event = {
        "udid": job["external_id"],
        "status": status,
        "command_uuid": uuid,
        "raw_payload": base64.b64encode(raw).decode(),
    }
    return {"topic": "mdm.Connect", "event_id": "e1", "acknowledge_event": event | more}


def chain(*causes: dict[str, Any], encoding: str = "utf-8") -> bytes:
    """Give a device's refusal as a property list."""
    said = {"Status": "Error", "UDID": "U", "ErrorChain": list(causes)}
    return plistlib.dumps(said).decode().replace("UTF-8", encoding.upper()).encode(encoding)


def cause(text: str, code: int = 4001, **more: Any) -> dict[str, Any]:
    known = {"ErrorCode": code, "ErrorDomain": "MCInstallationErrorDomain"}
    return known | {"LocalizedDescription": text} | more


def error_of(nano: Mdm, plist: str | bytes) -> str:
    """Give what a command says that its device refused in these words."""
    command = nano.fleet.send(nano.device(), "mdm_lock")
    (job,) = nano.claim()
    nano.finish(job, "accepted")
    tell(nano, webhook(nano), answered(nano, job, "Error", plist))
    found = nano.fleet.command(command["id"])
    assert (found["status"], found["reason"]) == ("failed", "refused")
    return str(found["error_message"])


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


@pytest.mark.parametrize("way", ["user", "shared", "case", "unknown"])
def test_an_answer_is_for_its_command_whatever_enrolment_it_names(nano: Mdm, way: str) -> None:
    device = nano.device()
    nano.fleet.run("update device_links set external_id = 'AB-CD' where device_id = %s", device)
    command = nano.fleet.send(device, "mdm_restart")
    (job,) = nano.claim()
    nano.finish(job, "accepted")
    named = {
        "user": {"udid": "AB-CD", "enrollment_id": "AB-CD:5F1A77C0-USER"},
        "shared": {"udid": "AB-CD", "enrollment_id": "AB-CD:anna@school.example"},
        "case": {"udid": "ab-cd", "enrollment_id": "ab-cd"},
        "unknown": {"udid": None, "enrollment_id": "Another-1"},
    }[way]
    body = answered(nano, job, "Acknowledged", **named)
    uuid = body["acknowledge_event"]["command_uuid"]
    body["acknowledge_event"]["command_uuid"] = uuid.upper() if way == "case" else uuid

    assert tell(nano, webhook(nano), body)["status"] == "completed"
    assert nano.fleet.command(command["id"])["status"] == "completed"


@pytest.mark.parametrize("reason", ["network", "timeout", "unavailable"])
@pytest.mark.parametrize("kind", ["mdm_refresh", "mdm_lock"])
def test_an_answer_after_an_error_or_a_timeout_ends_the_command(
    nano: Mdm, reason: str, kind: str
) -> None:
    command = nano.fleet.send(nano.device(), kind)
    (job,) = nano.claim()
    # It knows the command by its id: whatever it is, it may be sent again.
    assert nano.finish(job, "failed", reason=reason)["status"] == "pending"

    assert tell(nano, webhook(nano), answered(nano, job, "Acknowledged"))["status"] == "completed"

    assert nano.fleet.command(command["id"])["status"] == "completed"
    assert nano.claim(now=nano.now(600)) == []


def test_a_refusal_after_an_error_ends_the_command_too(nano: Mdm) -> None:
    command = nano.fleet.send(nano.device(), "mdm_refresh")
    (job,) = nano.claim()
    nano.finish(job, "failed", reason="network")

    tell(nano, webhook(nano), answered(nano, job, "Error", chain(cause("Not now or ever"))))

    found = nano.fleet.command(command["id"])
    assert (found["status"], found["reason"]) == ("failed", "refused")


def test_a_function_that_stopped_in_the_middle_may_send_anything_again(nano: Mdm) -> None:
    command = nano.fleet.send(nano.device(), "mdm_restart")
    nano.claim()

    (again,) = nano.claim(now=nano.now(3600))

    assert (again["command_id"], again["attempt"]) == (command["id"], 2)


def test_an_answer_that_comes_when_the_command_was_given_up_is_told(nano: Mdm) -> None:
    command = nano.fleet.send(nano.device(), "mdm_restart")
    (job,) = nano.claim()
    nano.finish(job, "failed", reason="invalid_payload", error="no")

    told = tell(nano, webhook(nano), answered(nano, job, "Acknowledged"))

    assert told["status"] == "completed"
    assert nano.fleet.command(command["id"])["status"] == "failed"
    detail = nano.fleet.value("select detail from integration_activity_log")
    assert detail == {"command_id": command["id"], "status": "Acknowledged", "is_late": True}


def test_a_device_that_refuses_says_the_last_cause(nano: Mdm) -> None:
    said = chain(
        cause("Installation of the profile failed"),
        cause("Das WLAN ist ungültig", 22000, USEnglishDescription='The "Wi-Fi" is < & bad'),
    )
    found = error_of(nano, said)
    assert found == (
        'the device answered Error: The "Wi-Fi" is < & bad (MCInstallationErrorDomain 22000)'
    )


@pytest.mark.parametrize(
    ("plist", "said"),
    [
        ("<dict><key>LocalizedDescription</key> <string>No code</string></dict>", "No code"),
        (chain(cause("Gerät gesperrt"), encoding="iso-8859-1"), "Gerät gesperrt"),
        (chain(cause("locked"), encoding="utf-16"), "locked"),
        (chain(cause("日本")), "日本"),
        (b"<key>ErrorCode</key><integer>12</integer>", "Error: (12)"),
        (b"\xff\xfe\x00\x01\\000", "Error"),
        (plistlib.dumps({"ErrorChain": [cause("x")]}, fmt=plistlib.FMT_BINARY), "Error"),
        (b"", "Error"),
    ],
)
def test_the_words_of_a_device_may_be_in_any_letters(
    nano: Mdm, plist: str | bytes, said: str
) -> None:
    found = error_of(nano, plist)
    assert found.startswith("the device answered Error") and said in found


def test_a_device_that_checks_out_has_left_until_it_enrols_again(nano: Mdm) -> None:
    device, token = nano.device(), webhook(nano)
    nano.fleet.run("update device_links set external_id = 'AB-CD' where device_id = %s", device)

    def told(topic: str, **event: Any) -> str:
        body = {"topic": f"mdm.{topic}", "checkin_event": event}
        return str(tell(nano, token, body)["status"])

    def has_left() -> bool:
        return bool(nano.fleet.value("select left_at is not null from device_links"))

    # A user of it goes, a stranger goes.
    assert told("CheckOut", udid="AB-CD", enrollment_id="AB-CD:anna") == "ignored"
    assert told("CheckOut", udid="OTHER", enrollment_id="OTHER") == "ignored"
    assert told("CheckOut") == "ignored"
    assert not has_left()
    assert told("CheckOut", udid="ab-cd", enrollment_id="ab-cd") == "completed"
    assert has_left()
    assert told("CheckOut", udid="AB-CD") == "ignored"
    assert told("TokenUpdate", udid="AB-CD", enrollment_id="AB-CD") == "completed"
    assert not has_left()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"topic": "mdm.Connect"},
        {"topic": "mdm.Connect", "acknowledge_event": "x"},
        {"topic": "mdm.Connect", "acknowledge_event": {"status": "Error", "raw_payload": "%%"}},
        {"topic": "mdm.TokenUpdate", "checkin_event": {"udid": "U"}},
        {"topic": "mdm.CheckOut", "checkin_event": ["U"]},
        {"topic": "mdm.CheckOut"},
        ["mdm.Connect"],
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
