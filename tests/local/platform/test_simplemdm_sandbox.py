"""The sandbox answers as SimpleMDM does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving, wait_until

from pgfleet_local.sandboxes.simplemdm import create_sandbox


@pytest.fixture(scope="module")
def served(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    app = create_sandbox({"full": FULL, "read_only": READ_ONLY})
    with serving(app, free_port()) as url:
        yield Sandbox(url)


@pytest.fixture
def sandbox(served: Sandbox) -> Sandbox:
    served.control("POST", "reset")
    return served


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.api, auth=(FULL, ""), trust_env=False) as client:
        yield client


def test_a_key_is_the_user_name_and_the_password_is_empty(sandbox: Sandbox) -> None:
    def status(method: str, *auth: str) -> int:
        path = "/devices/1/restart" if method == "POST" else "/devices"
        given = (auth[0], auth[1]) if auth else None
        return httpx.request(method, sandbox.api + path, auth=given, trust_env=False).status_code

    assert [status("GET"), status("GET", "wrong", ""), status("GET", FULL, "word")] == [401] * 3
    assert [status("GET", FULL, ""), status("GET", READ_ONLY, "")] == [200, 200]
    assert status("POST", READ_ONLY, "") == 403


def test_lists_are_pages_of_ten_that_a_cursor_walks(sandbox: Sandbox, http: httpx.Client) -> None:
    devices = sandbox.devices(23)
    seen: list[int] = []
    sizes = []
    more = True
    while more:
        body = http.get("/devices", params={"starting_after": seen[-1] if seen else 0}).json()
        seen += [one["id"] for one in body["data"]]
        sizes.append(len(body["data"]))
        more = body["has_more"]
    backwards = http.get("/devices", params={"limit": 2, "direction": "desc"}).json()["data"]
    assert (seen, sizes) == (devices, [10, 10, 3])
    assert [one["id"] for one in backwards] == devices[:-3:-1]
    assert http.get("/devices", params={"limit": 101}).status_code == 400


def test_a_push_is_an_empty_204_and_reaches_the_device_later(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    sandbox.faults(command_seconds=2)
    [device], [profile] = sandbox.devices(), sandbox.profiles("Wi-Fi")
    path = f"/custom_configuration_profiles/{profile}/devices/{device}"

    pushed, again = http.post(path), http.post(path)
    assert (pushed.status_code, pushed.content, again.status_code) == (204, b"", 409)
    assert sandbox.has(device, profile) is None
    at = wait_until(lambda: sandbox.has(device, profile))
    assert abs(at - time.time()) < 5
    assert [one["id"] for one in http.get(f"/devices/{device}/profiles").json()["data"]] == [
        profile
    ]

    assert [http.delete(path).status_code, http.delete(path).status_code] == [204, 409]
    wait_until(lambda: sandbox.has(device, profile) is None)
    events = [one["event"] for one in sandbox.history()]
    assert events == ["assigned", "installed", "unassigned", "removed"]


def test_only_the_path_of_all_kinds_takes_profiles_of_other_kinds(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    [device], [profile] = sandbox.devices(), sandbox.profiles("Mail", kind="email")
    tail = f"{profile}/devices/{device}"
    assert http.post(f"/custom_configuration_profiles/{tail}").status_code == 404
    assert http.post(f"/profiles/{tail}").status_code == 204


def test_a_device_that_is_off_gets_its_commands_when_it_is_back(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    [device], [profile] = sandbox.devices(online=False), sandbox.profiles("VPN")
    seen = sandbox.device(device)["attributes"]["last_seen_at"]
    http.post(f"/profiles/{profile}/devices/{device}")
    sandbox.control("POST", "settings", advance=3600)
    assert sandbox.device(device)["waiting"] == ["install_profile"]
    sandbox.device(device, online=True)
    found = sandbox.device(device)
    assert (found["waiting"], list(found["installed"])) == ([], [str(profile)])
    assert found["attributes"]["last_seen_at"] > seen


def test_a_custom_profile_is_made_changed_and_read_as_a_file(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    made = http.post(
        "/custom_configuration_profiles/",
        data={"name": "Corp", "user_scope": "false"},
        files={"mobileconfig": ("a.mobileconfig", b"<plist>1</plist>")},
    )
    profile = made.json()["data"]["id"]
    [device] = sandbox.devices()
    http.post(f"/custom_configuration_profiles/{profile}/devices/{device}")
    one = f"/custom_configuration_profiles/{profile}"
    first = http.get(f"{one}/download")
    changed = http.patch(one, files={"mobileconfig": ("b.mobileconfig", b"<plist>2</plist>")})
    second = http.get(f"{one}/download")

    assert (made.status_code, made.json()["data"]["attributes"]["user_scope"]) == (201, False)
    assert (first.content, second.content) == (b"<plist>1</plist>", b"<plist>2</plist>")
    assert first.headers["etag"] != second.headers["etag"]
    assert changed.status_code == 200
    assert http.patch(one, json={"name": "x"}).status_code == 500
    wait_until(lambda: len(sandbox.device(device)["commands"]) == 2)


def test_a_lock_needs_a_pin_on_a_mac_and_takes_none_elsewhere(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    [phone], [mac] = sandbox.devices(), sandbox.devices(model_name="MacBook Air")
    pin = {"pin": "123456"}
    tried = [(phone, None), (phone, pin), (mac, None), (mac, pin)]
    statuses = [http.post(f"/devices/{one}/lock", data=form).status_code for one, form in tried]
    assert statuses == [202, 422, 422, 202]


def test_a_place_is_told_only_in_lost_mode_and_as_text(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    [device] = sandbox.devices(position={"latitude": 48.2, "longitude": 16.37, "accuracy": 12})

    def place() -> Any:
        return sandbox.device(device)["attributes"]["location_latitude"]

    def commands() -> list[tuple[str, str]]:
        return [(one["name"], one["state"]) for one in sandbox.device(device)["commands"]]

    path = f"/devices/{device}/lost_mode"
    assert http.post(f"{path}/update_location").status_code == 202
    wait_until(lambda: commands() == [("update_location", "failed")])
    assert http.post(path).status_code == 400
    assert http.post(path, data={"message": "Call us"}).status_code == 202
    assert http.post(f"{path}/update_location").status_code == 202
    assert wait_until(place) == "48.2"


def test_asking_too_often_is_answered_429_with_the_time_to_come_back(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    [device] = sandbox.devices()
    path = f"/devices/{device}/refresh"
    assert http.post(path).status_code == 202
    refused = http.post(path)
    assert refused.status_code == 429
    assert float(refused.headers["x-ratelimit-reset"]) > time.time()
    assert http.post("/assignment_groups/7/sync_profiles").status_code == 204
    assert http.post("/assignment_groups/7/sync_profiles").status_code == 429


def test_more_than_the_limit_is_refused(sandbox: Sandbox, http: httpx.Client) -> None:
    sandbox.faults(rate_limit=2, limit_headers="retry_after")
    statuses = [http.get("/devices").status_code for _ in range(25)]
    assert statuses == [200] * 21 + [429] * 4
    assert int(http.get("/devices").headers["retry-after"]) >= 1


def test_faults_come_as_they_are_switched_on(sandbox: Sandbox, http: httpx.Client) -> None:
    [device], [profile] = sandbox.devices(), sandbox.profiles("Wi-Fi")
    sandbox.faults(error_burst=2)
    assert [http.get("/devices").status_code for _ in range(3)] == [500, 500, 200]
    sandbox.faults(down=True)
    assert http.get("/devices").status_code == 503
    sandbox.faults(down=False, slow_seconds=0.3)
    started = time.monotonic()
    http.get("/devices")
    assert time.monotonic() - started >= 0.3

    sandbox.faults(slow_seconds=0, reset_share=1)
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(f"/profiles/{profile}/devices/{device}")
    sandbox.faults(reset_share=0)
    assert http.post(f"/profiles/{profile}/devices/{device}").status_code == 409
    with pytest.raises(AssertionError, match="there is no switch"):
        sandbox.faults(nonsense=1)


def test_webhooks_are_small_and_unsigned(
    sandbox: Sandbox, http: httpx.Client, free_port: Callable[[], int]
) -> None:
    heard: list[dict[str, Any]] = []

    async def hook(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        heard.append(httpx.Response(200, content=(await receive())["body"]).json())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with serving(hook, free_port()) as url:
        sandbox.control("POST", "settings", webhook_url=url)
        [device] = sandbox.devices()
        http.post(f"/devices/{device}/lock")
        http.post(f"/devices/{device}/unenroll")
        wait_until(lambda: len(heard) == 3)
    events = ["device.enrolled", "device.lock.enabled", "device.unenrolled"]
    assert [one["type"] for one in heard] == events
    assert {one["data"]["device"]["id"] for one in heard} == {device}
