"""SimpleMDM over real HTTP: what its provider sends, and what it makes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.helpers.hostile import hostile, says
from tests.helpers.mdm_provider import Recorder, order, sent
from tests.helpers.sandbox import READ_ONLY, Sandbox, wait_until

from pgfleet_functions.integrations.calls import FailureKind
from pgfleet_functions.mdm.provider import Provider, Sighting, State


@pytest.mark.parametrize("kind", ["custom_configuration_profile", "wifi"])
def test_a_profile_of_any_kind_is_pushed_settled_and_removed(
    sandbox: Sandbox, recorder: Recorder, kind: str
) -> None:
    [device], [profile] = sandbox.devices(online=False), sandbox.profiles("Wi-Fi", kind=kind)
    push = order(device, "push_profile", profile_id=str(profile))
    # The device was last seen when it was made, which is before.
    sandbox.device(device, last_seen_at="2026-01-01T00:00:00.000-08:00")
    report = recorder.send(push)
    assert (report.state, report.result["status"]) == (State.SENT, 204)
    assert recorder.look_at(sent(push, report)).state is State.DEFERRED

    sandbox.device(device, online=True)
    wait_until(lambda: sandbox.has(device, profile))
    assert recorder.look_at(sent(push, report)).state is State.ACKNOWLEDGED

    removal = order(device, "remove_profile", profile_id=str(profile))
    assert recorder.send(removal).state is State.SENT
    wait_until(lambda: not sandbox.has(device, profile))
    again = recorder.send(removal)
    assert (again.state, again.result["already"]) == (State.SENT, True)


def test_what_is_there_already_is_a_success_and_the_device_is_asked_for_news(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    [device], [profile] = sandbox.devices(), sandbox.profiles("Wi-Fi")
    push = order(device, "push_profile", profile_id=str(profile))
    sandbox.faults(reset_share=1)
    lost = recorder.failure(push)
    sandbox.faults(reset_share=0)
    assert (lost.kind, lost.reached) == (FailureKind.NETWORK, True)

    wait_until(lambda: sandbox.has(device, profile))
    report = recorder.send(push)
    assert report.result["status"] == 409
    assert recorder.look_at(sent(push, report)).state is State.DEFERRED
    wait_until(lambda: recorder.look_at(sent(push, report)).state is State.ACKNOWLEDGED)
    assert [one["event"] for one in sandbox.history()] == ["assigned", "installed"]


@pytest.mark.parametrize(
    ("command_type", "payload", "name"),
    [
        ("mdm_lock", {"message": "Found it?"}, "lock"),
        ("mdm_restart", {}, "restart"),
        ("mdm_shutdown", {}, "shutdown"),
        ("mdm_clear_passcode", {}, "clear_passcode"),
        ("mdm_play_sound", {}, "play_sound"),
        ("mdm_refresh", {}, "refresh"),
        ("mdm_push_apps", {}, "push_apps"),
        ("mdm_lost_mode_on", {"phone_number": "+358 1"}, "enable_lost_mode"),
        ("mdm_wipe", {"confirm": True}, "wipe"),
        ("mdm_unenroll", {"confirm": True}, "unenroll"),
    ],
)
def test_actions_reach_the_device_and_are_settled_by_what_it_shows(
    sandbox: Sandbox,
    recorder: Recorder,
    command_type: str,
    payload: dict[str, Any],
    name: str,
) -> None:
    [device] = sandbox.devices()
    action = order(device, command_type, **payload)
    report = recorder.send(action)
    assert (report.state, report.result["status"]) == (State.SENT, 202)
    wait_until(lambda: recorder.look_at(sent(action, report)).state is State.ACKNOWLEDGED)
    assert [one["name"] for one in sandbox.device(device)["commands"]] == [name]


def test_many_devices_are_looked_at_by_few_calls(sandbox: Sandbox, recorder: Recorder) -> None:
    devices = sandbox.devices(250)
    [profile] = sandbox.profiles("Wi-Fi")
    some = [*devices[:90], *devices[200:240]]
    pushes = {device: order(device, "push_profile", profile_id=str(profile)) for device in some}
    orders = [sent(push, recorder.send(push)) for push in pushes.values()]
    wait_until(lambda: all(sandbox.has(device, profile) for device in some))
    sandbox.control("DELETE", f"devices/{devices[5]}")
    recorder.calls.clear()

    found = recorder.look([*orders, order("no-number", "mdm_refresh")])

    states = {what.external_id: report.state for what, report in found}
    assert len(found) == len(states) == len(some) + 1
    assert states.pop("no-number") is State.FAILED
    assert states.pop(str(devices[5])) is State.FAILED
    assert set(states.values()) == {State.ACKNOWLEDGED}
    # Two pages, and one closer look at the device that is not on them.
    assert len(recorder.calls) == 3


def test_an_answer_that_got_lost_needs_no_second_visit_of_the_device(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    [device], [profile] = sandbox.devices(), sandbox.profiles("Wi-Fi")
    push = order(device, "push_profile", profile_id=str(profile))
    sandbox.faults(reset_share=1, command_seconds=0.5)
    recorder.failure(push)
    lost_at = datetime.now(UTC)
    sandbox.faults(reset_share=0)
    wait_until(lambda: sandbox.has(device, profile))

    report = recorder.send(replace(push, unanswered_at=lost_at))

    assert report.result["already"] is True
    assert recorder.look_at(sent(push, report)).state is State.ACKNOWLEDGED
    assert [one["name"] for one in sandbox.device(device)["commands"]] == ["install_profile"]


def test_a_place_counts_only_when_it_is_newer_than_the_question(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    [device] = sandbox.devices()
    locate = order(device, "mdm_locate")
    report = recorder.send(locate)
    wait_until(lambda: sandbox.device(device)["commands"])
    assert recorder.look_at(sent(locate, report)).state is State.DEFERRED
    recorder.send(order(device, "mdm_lost_mode_on", message="Call us"))
    report = recorder.send(locate)
    wait_until(lambda: recorder.look_at(sent(locate, report)).state is State.ACKNOWLEDGED)


@pytest.mark.parametrize(
    ("device", "command_type", "payload", "reason"),
    [
        ({"model_name": "MacBook Air"}, "mdm_lock", {}, "invalid_payload"),
        ({"model_name": "iPhone 15"}, "mdm_lock", {"pin": "123456"}, "invalid_payload"),
        ({"model_name": "Mac mini"}, "mdm_locate", {}, "unsupported"),
        ({}, "mdm_lost_mode_on", {}, "invalid_payload"),
        ({}, "mdm_wipe", {}, "invalid_payload"),
        ({}, "push_profile", {"profile_id": "../1"}, "invalid_payload"),
        ({}, "mdm_make_coffee", {}, "unsupported"),
    ],
)
def test_what_cannot_succeed_fails_before_any_call(
    sandbox: Sandbox,
    recorder: Recorder,
    device: dict[str, Any],
    command_type: str,
    payload: dict[str, Any],
    reason: str,
) -> None:
    report = recorder.send(replace(order(1, command_type, **payload), attributes=device))
    assert (report.state, report.reason, recorder.calls) == (State.FAILED, reason, [])


def test_refusals_are_told_apart_by_what_they_mean(sandbox: Sandbox, recorder: Recorder) -> None:
    [device] = sandbox.devices()
    restart = order(device, "mdm_restart")
    refused = recorder.failure(order(999_999, "mdm_restart"))
    assert (refused.kind, refused.message) == (
        FailureKind.REFUSED,
        "the MDM answered 404: object not found",
    )
    sandbox.faults(error_burst=1)
    assert recorder.failure(restart).kind is FailureKind.SERVER
    sandbox.faults(limit_share=1, limit_headers="reset")
    limited = recorder.failure(restart)
    assert limited.kind is FailureKind.RATE
    assert limited.retry_after and 0 < limited.retry_after <= 3 and len(recorder.pauses) == 1
    recorder.failure(order(device, "mdm_refresh"))
    assert recorder.slowed == ["", "refresh"]
    sandbox.faults(limit_share=0)
    assert Recorder(sandbox.api, "wrong").failure(restart).kind is FailureKind.KEY
    assert Recorder(sandbox.api, READ_ONLY).failure(restart).status == 403


def test_a_place_without_a_server_was_not_reached(free_port: Callable[[], int]) -> None:
    failure = Recorder(f"http://127.0.0.1:{free_port()}").failure(order(1, "mdm_restart"))
    assert (failure.kind, failure.reached) == (FailureKind.NETWORK, False)


PAGE = b"<!DOCTYPE html><title>Welcome to the guest network</title>"


HTML = "Content-Type: text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (f"HTTP/1.1 200 OK\n{HTML}", PAGE),
        (f"HTTP/1.1 202 Accepted\n{HTML}", PAGE),
        ("HTTP/1.1 200 OK\nContent-Type: text/plain", b"logged in"),
        ("HTTP/1.1 200 OK", b"\xef\xbb\xbf  " + PAGE),
        ("HTTP/1.1 302 Found\nLocation: http://portal.example/", b""),
        ("HTTP/1.1 307 Temporary Redirect\nLocation: https://a.simplemdm.com/login", b""),
        ("HTTP/1.1 304 Not Modified", b""),
        (f"HTTP/1.1 401 Unauthorized\n{HTML}", PAGE),
        (f"HTTP/1.1 403 Forbidden\n{HTML}", PAGE),
        (f"HTTP/1.1 404 Not Found\n{HTML}", PAGE),
        (f"HTTP/1.1 409 Conflict\n{HTML}", PAGE),
        ("HTTP/1.1 407 Proxy Authentication Required", b""),
        ("HTTP/1.1 511 Network Authentication Required\nContent-Type: application/json", b"{}"),
    ],
)
def test_what_a_proxy_says_is_no_answer(head: str, body: bytes) -> None:
    with hostile(says(head, body)) as server:
        failure = Recorder(server.url).failure(order(1, "mdm_restart"))
    assert (failure.kind, failure.reached) == (FailureKind.NETWORK, True)
    assert failure.message.startswith("the MDM gave no answer: something else answered")


@pytest.mark.parametrize(
    ("head", "body", "kind"),
    [
        (f"HTTP/1.1 429 Too Many Requests\n{HTML}", PAGE, FailureKind.RATE),
        (f"HTTP/1.1 502 Bad Gateway\n{HTML}", PAGE, FailureKind.SERVER),
        ("HTTP/1.1 401 Unauthorized\nContent-Type: text/plain", b"Unauthorized", FailureKind.KEY),
        ("HTTP/1.1 403 Forbidden", b'{"errors": [{"title": "no"}]}', FailureKind.KEY),
        ("HTTP/1.1 401 Unauthorized", b"", FailureKind.KEY),
        ("HTTP/1.1 422 Unprocessable", b'{"errors": []}', FailureKind.REFUSED),
    ],
)
def test_what_the_mdm_or_its_front_door_says_counts(
    head: str, body: bytes, kind: FailureKind
) -> None:
    with hostile(says(head, body)) as server:
        assert Recorder(server.url).failure(order(1, "mdm_restart")).kind is kind


def test_odd_devices_keep_no_page_from_being_read() -> None:
    odd = [
        {"id": 1, "attributes": {"name": "a", "location_latitude": "north", "is_supervised": "x"}},
        {"id": 2, "attributes": ["a"]},
        {"id": 3},
        {"attributes": {"name": "nobody"}},
        "device",
        {"id": 4, "attributes": {"name": 7, "location_accuracy": "nan", "last_seen_at": ""}},
    ]
    body = json.dumps({"data": odd, "has_more": False}).encode()

    async def read(provider: Provider) -> list[Sighting]:
        return [one async for page in provider.inventory() for one in page]

    with hostile(says("HTTP/1.1 200 OK\nContent-Type: application/json", body)) as server:
        found = Recorder(server.url)("simplemdm", read)
    assert [one.external_id for one in found] == ["1", "2", "3", "", "", "4"]
    assert (found[0].latitude, found[5].accuracy_m, found[5].last_seen) == ("north", None, "")
