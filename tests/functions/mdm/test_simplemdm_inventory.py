"""What SimpleMDM tells of its devices, page by page, and how its account may be called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.helpers.hostile import hostile, says
from tests.helpers.mdm_provider import Recorder, order
from tests.helpers.sandbox import FULL, Sandbox, serving

from pgfleet_functions.integrations.calls import CallFailed, FailureKind
from pgfleet_functions.mdm.nanomdm import NanoMDM
from pgfleet_functions.mdm.provider import Provider, Sighting
from pgfleet_functions.mdm.simplemdm import SimpleMDM


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
        return pages, [await provider.reread(str(one)) for one in ids]

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
    words = "the MDM gave no answer" if body[0] == "<" else "something else than devices"
    assert words in raised.value.message


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
    assert nano.capabilities({}).shows_effect is False
