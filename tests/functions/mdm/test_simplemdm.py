"""SimpleMDM over real HTTP: what its provider sends, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.helpers.hostile import hostile, says
from tests.helpers.mdm_provider import Recorder, order, sent
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving, wait_until

from pgfleet_functions.integrations.calls import CallFailed, FailureKind
from pgfleet_functions.mdm.nanomdm import NanoMDM
from pgfleet_functions.mdm.provider import Provider, Sighting, State
from pgfleet_functions.mdm.simplemdm import SimpleMDM
from pgfleet_local.sandboxes.simplemdm import create_sandbox


@pytest.fixture(scope="module")
def served(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.control("POST", "reset")
    return served


@pytest.fixture
def recorder(sandbox: Sandbox) -> Recorder:
    return Recorder(sandbox.api)


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
    assert recorder.settle(sent(push, report)).state is State.DEFERRED

    sandbox.device(device, online=True)
    wait_until(lambda: sandbox.has(device, profile))
    assert recorder.settle(sent(push, report)).state is State.ACKNOWLEDGED

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
    assert recorder.settle(sent(push, report)).state is State.DEFERRED
    wait_until(lambda: recorder.settle(sent(push, report)).state is State.ACKNOWLEDGED)
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
    wait_until(lambda: recorder.settle(sent(action, report)).state is State.ACKNOWLEDGED)
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
    assert recorder.settle(sent(push, report)).state is State.ACKNOWLEDGED
    assert [one["name"] for one in sandbox.device(device)["commands"]] == ["install_profile"]


def test_a_place_counts_only_when_it_is_newer_than_the_question(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    [device] = sandbox.devices()
    locate = order(device, "mdm_locate")
    report = recorder.send(locate)
    wait_until(lambda: sandbox.device(device)["commands"])
    assert recorder.settle(sent(locate, report)).state is State.DEFERRED
    recorder.send(order(device, "mdm_lost_mode_on", message="Call us"))
    report = recorder.send(locate)
    wait_until(lambda: recorder.settle(sent(locate, report)).state is State.ACKNOWLEDGED)


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
    sandbox.faults(limit_share=0)
    assert Recorder(sandbox.api, "wrong").failure(restart).kind is FailureKind.KEY
    assert Recorder(sandbox.api, READ_ONLY).failure(restart).status == 403


def test_a_place_without_a_server_was_not_reached(free_port: Callable[[], int]) -> None:
    failure = Recorder(f"http://127.0.0.1:{free_port()}").failure(order(1, "mdm_restart"))
    assert (failure.kind, failure.reached) == (FailureKind.NETWORK, False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1", "only https:// addresses are allowed"),
        ("https://127.0.0.1:1", "the host 127.0.0.1 stands for the private address 127.0.0.1"),
        ("https://localhost:1", "the host localhost stands for the private address"),
    ],
)
def test_an_integration_opens_no_inner_network(url: str, message: str) -> None:
    failure = Recorder(url, allow_private=False).failure(order(1, "mdm_restart"))
    assert (failure.kind, failure.reached) == (FailureKind.REFUSED, False)
    assert failure.message.startswith(message)


def test_every_call_is_recorded_without_key_and_pin(sandbox: Sandbox) -> None:
    [mac] = sandbox.devices(model_name="MacBook Air")
    inside = Recorder(sandbox.api.replace("http://", "http://user:word@"))
    inside.send(order(mac, "mdm_lock", pin="123456", message=f"key {FULL}"))
    [call], [begun] = inside.calls, inside.begun
    assert (call.id, call.url, begun.url) == (1, begun.url, call.url)
    assert (begun.status, begun.request_body) == (None, call.request_body)
    assert (call.method, call.status, call.command_id, call.attempt) == ("POST", 202, 11, 2)
    assert call.url == f"{sandbox.api}/devices/{mac}/lock"
    assert call.request_body == "message=key [hidden]&pin=[hidden]"
    assert not any(secret in repr([call, begun]) for secret in (FULL, "123456", "word"))


def test_the_inventory_follows_the_cursor(sandbox: Sandbox, recorder: Recorder) -> None:
    devices = sandbox.devices(230)
    sandbox.device(
        devices[0],
        location_latitude="60.17",
        location_longitude="24.94",
        location_accuracy="65",
        location_updated_at="2026-02-11T05:55:00.000Z",
    )

    async def read(provider: Provider) -> list[list[Sighting]]:
        return [page async for page in provider.inventory()]

    pages = recorder("simplemdm", read)
    first = pages[0][0]
    assert [len(page) for page in pages] == [100, 100, 30]
    assert [one.external_id for page in pages for one in page] == [str(one) for one in devices]
    assert (first.latitude, first.longitude, first.accuracy_m) == (60.17, 24.94, 65.0)
    assert (first.serial_number, first.platform) == (f"F0SANDBOX{devices[0]}", "ios")


def test_a_look_shows_one_device_as_the_inventory_does(
    sandbox: Sandbox, recorder: Recorder
) -> None:
    [device, waiting, other] = sandbox.devices(3)
    sandbox.device(waiting, status="awaiting_enrollment")
    sandbox.device(other, status="unenrolled", location_latitude="nan", serial_number=None)
    sandbox.device(device, last_seen_at="2026-02-11T05:55:00.000-08:00")

    async def read(provider: Provider) -> Any:
        pages = [page async for page in provider.inventory()]
        ids = (device, waiting, other, 999_999)
        return pages, [await provider.look(str(one)) for one in ids]

    [page], looks = recorder("simplemdm", read)
    assert looks == [*page, None]
    assert [one.is_enrolled for one in page] == [True, False, False]
    assert (page[0].last_seen, page[2].latitude) == ("2026-02-11T05:55:00.000-08:00", None)


@pytest.mark.parametrize(
    "body", ["{}", "[]", "<p>Down for maintenance</p>", '{"data": []}', '{"data": [7]}']
)
def test_what_is_no_list_of_devices_is_no_empty_account(
    free_port: Callable[[], int], body: str
) -> None:
    async def server(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body.encode()})

    async def read(provider: Provider) -> Any:
        return [page async for page in provider.inventory()]

    with serving(server, free_port()) as url, pytest.raises(CallFailed) as raised:
        Recorder(url)("simplemdm", read)
    assert raised.value.message == "the MDM answered something else than devices"


def test_a_list_that_has_no_end_is_none(free_port: Callable[[], int]) -> None:
    async def server(scope: Any, _: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            body = b'{"data": [{"id": 1, "attributes": {}}], "has_more": true}'
            await send({"type": "http.response.body", "body": body})

    async def read(provider: Provider) -> Any:
        return [page async for page in provider.inventory()]

    with serving(server, free_port()) as url, pytest.raises(CallFailed):
        Recorder(url)("simplemdm", read)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ("Retry-After: 7", 7),
        ("Retry-After: 9000", 60),
        ("X-RateLimit-Reset: 5", 5),
        ("X-RateLimit-Reset: 1000000001", 0),
        ("X-RateLimit-Reset: soon", None),
        ("X-Nothing: said", None),
    ],
)
def test_the_time_to_wait_is_read_from_either_header_and_is_a_minute_at_most(
    headers: str, pause: float | None
) -> None:
    with hostile(says(f"HTTP/1.1 429 Too Many Requests\n{headers}")) as server:
        recorder = Recorder(server.url)
        failure = recorder.failure(order(1, "mdm_lock"))
    assert (failure.kind, failure.retry_after) == (FailureKind.RATE, pause)
    assert recorder.pauses == [pause]


def test_providers_tell_what_they_cannot_know() -> None:
    simple, nano = SimpleMDM(None, {}), NanoMDM(None, {})  # type: ignore[arg-type]
    assert simple.capabilities({"model_name": "MacBook Air"}).needs_pin is True
    assert simple.capabilities({}).can_locate is None
    assert nano.capabilities({}).can_settle is False
