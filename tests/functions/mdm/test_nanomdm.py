"""NanoMDM over real HTTP: what is put on the queue of an enrolment."""

from __future__ import annotations

import base64
import json
import plistlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.helpers.hostile import hostile, says
from tests.helpers.mdm_provider import Recorder, order
from tests.helpers.sandbox import serving

from pgfleet_functions.integrations.calls import CallFailed, FailureKind
from pgfleet_functions.mdm.provider import Report, State

MD5_OF_11 = "bc6ace39-67e0-e5ea-ec88-a25c06b1c48b"


def test_nanomdm_gets_commands_under_an_id_that_retries_share(
    free_port: Callable[[], int],
) -> None:
    heard: list[tuple[str, str, dict[str, Any], str]] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive())["body"]
        auth = dict(scope["headers"])[b"authorization"].decode()
        heard.append((scope["method"], scope["path"], plistlib.loads(body), auth))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    profiles = {"7": {"identifier": "com.example", "payload": base64.b64encode(b"<p/>").decode()}}
    with serving(server, free_port()) as url:
        recorder = Recorder(url, "nano-key")
        pushed = [
            recorder.send(
                order("UDID/1", "push_profile", profile_id="7"), "nanomdm", profiles=profiles
            )
            for _ in range(2)
        ]
        recorder.send(order("U", "remove_profile", profile_id="7"), "nanomdm", profiles=profiles)
        recorder.send(order("U", "mdm_lock", pin="123456"), "nanomdm")
        unknown = recorder.send(order("U", "push_profile", profile_id="8"), "nanomdm")
        never = recorder.send(order("U", "mdm_push_apps"), "nanomdm")

    commands = [body["Command"] for _, _, body, _ in heard]
    assert heard[0][:2] == ("PUT", "/v1/enqueue/UDID/1")
    assert heard[0][3] == "Basic " + base64.b64encode(b"nanomdm:nano-key").decode()
    assert commands[0] == {"RequestType": "InstallProfile", "Payload": b"<p/>"}
    assert commands[2] == {"RequestType": "RemoveProfile", "Identifier": "com.example"}
    assert commands[3] == {"RequestType": "DeviceLock", "PIN": "123456"}
    assert heard[0][2]["CommandUUID"] == heard[1][2]["CommandUUID"]
    # md5 of "pgfleet:command:11", as fleet.mdm_command_uuid(11) has it.
    assert pushed[0].result["command_uuid"] == heard[0][2]["CommandUUID"]
    assert heard[0][2]["CommandUUID"] == MD5_OF_11
    assert (unknown.reason, never.reason) == ("invalid_payload", "unsupported")
    assert "123456" not in repr(recorder.calls)


def answering(status: int, body: Any, **changes: Any) -> Report:
    """Send an order to a server that answers so."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\nContent-Type: application/json"
    what = replace(order("U", "mdm_lock"), **changes)
    with hostile(says(head, text)) as server:
        return Recorder(server.url).send(what, "nanomdm")


@pytest.mark.parametrize("status", [200, 207, 500])
@pytest.mark.parametrize(
    "said",
    [
        {"push_error": "no APNs certificate"},
        {"status": {"U": {"push_error": "no APNs certificate"}}},
        {"status": {"u:user": {"push_error": "no APNs certificate", "push_result": ""}}},
    ],
)
def test_what_is_queued_is_taken_also_where_the_device_was_not_woken(
    status: int, said: dict[str, Any]
) -> None:
    report = answering(status, said | {"command_uuid": MD5_OF_11, "request_type": "DeviceLock"})
    assert (report.state, report.result["push_error"]) == (State.SENT, "no APNs certificate")


@pytest.mark.parametrize("status", [200, 207, 500])
@pytest.mark.parametrize(
    "said",
    [
        {"command_error": "the store is full", "push_error": "x"},
        {"status": {"U": {"command_error": "the store is full"}}},
    ],
)
def test_what_is_not_queued_is_not_taken(status: int, said: dict[str, Any]) -> None:
    with pytest.raises(CallFailed, match="the store is full") as raised:
        answering(status, said)
    assert raised.value.kind is FailureKind.SERVER


@pytest.mark.parametrize("body", [b"", b"oops", {"errors": []}, ["push_error"], None])
def test_a_500_that_does_not_speak_of_the_push_is_a_failure(body: Any) -> None:
    with pytest.raises(CallFailed) as raised:
        answering(500, body)
    assert raised.value.kind is FailureKind.SERVER


def test_a_command_that_is_there_since_an_answer_got_lost_is_taken() -> None:
    said = {"command_error": 'pq: duplicate key value violates unique constraint "commands_pkey"'}
    report = answering(500, said, unanswered_at=datetime.now(UTC))
    assert (report.state, report.result["already"]) == (State.SENT, True)
    with pytest.raises(CallFailed):
        answering(500, said)
