"""Networks that answer for the server: whatever they say, the agent goes on trying."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.hostile import Answering, Hostile, hostile, says

from pgfleet.agent import credentials
from pgfleet.agent.client import DeviceClient
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.enroll import enroll, fetch_token
from pgfleet.agent.http import IdentityRefused, is_transient, make_client
from pgfleet.agent.journal import Outcome
from pgfleet.agent.location.fix import Fix
from pgfleet.agent.settings import AgentSettings, Timing
from pgfleet.errors import FleetError, InvalidInput, NotAllowed, NotSignedIn

PAGE = b"<html><title>Welcome to Hotel Paradise</title></html>"
HTML = "Content-Type: text/html"
JSON = "Content-Type: application/json"
STRANGE: dict[str, tuple[str, bytes]] = {
    "200 page": (f"HTTP/1.1 200 OK\n{HTML}", PAGE),
    "200 object": (f"HTTP/1.1 200 OK\n{JSON}", b'{"login": "/portal"}'),
    "200 text": ("HTTP/1.1 200 OK", b"Success"),
    "200 number": (f"HTTP/1.1 200 OK\n{JSON}", b"7"),
    "302": ("HTTP/1.1 302 Found\nLocation: http://portal.example/", b""),
    "302 page": (f"HTTP/1.1 302 Found\nLocation: http://portal.example/\n{HTML}", PAGE),
    "401 page": (f"HTTP/1.1 401 Unauthorized\n{HTML}", PAGE),
    "401 object": (f"HTTP/1.1 401 Unauthorized\n{JSON}", b'{"error": "login required"}'),
    "401 nothing": ("HTTP/1.1 401 Unauthorized", b""),
    "403 page": (f"HTTP/1.1 403 Forbidden\n{HTML}", PAGE),
    "404 page": (f"HTTP/1.1 404 Not Found\n{HTML}", PAGE),
    "404 object": (f"HTTP/1.1 404 Not Found\n{JSON}", b'{"detail": "Not Found"}'),
    "407": ("HTTP/1.1 407 Proxy Authentication Required", b""),
    "511 page": (f"HTTP/1.1 511 Network Authentication Required\n{HTML}", PAGE),
}
TOKEN = {"access_token": "a.b.c", "expires_in": 3600, "topic": "device:x"}
ENROLLED = {
    "device_id": 7,
    "auth_id": str(uuid.uuid4()),
    "hostname": "lab-01",
    "topic": "device:x",
    "device_secret": "pgfd_7_x",
}


def ours(body: Any, status: int = 200) -> Answering:
    return says(f"HTTP/1.1 {status} X\n{JSON}", json.dumps(body).encode())


@contextmanager
def answering(answers: Callable[[str], Answering]) -> Iterator[Hostile]:
    """Serve what a function chooses by the head of each request."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await answers(server.requests[-1])(writer)

    with hostile(answer) as server:
        yield server


def settings(server: Hostile, folder: Path, **more: Any) -> AgentSettings:
    return AgentSettings(
        url=server.url,
        anon_key="anon",
        state_dir=folder,
        hostname="lab-01",
        timing=Timing(retry=0.01, retry_limit=0.02),
        **more,
    )


def identity(server: Hostile) -> Credentials:
    return Credentials(
        **{**ENROLLED, "url": server.url, "functions_url": f"{server.url}/functions/v1"},
        anon_key="anon",
    )


def test_an_enrolment_waits_until_its_own_server_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    portals = [says(*STRANGE[kind]) for kind in STRANGE]

    def choose(_: str) -> Answering:
        asked = len(server.requests)
        return portals[asked - 1] if asked <= len(portals) else ours(ENROLLED, 201)

    async def run() -> Credentials:
        async with make_client(5) as http:
            return await enroll(settings(server, tmp_path / "s", code="C"), http)

    with answering(choose) as server, caplog.at_level(logging.WARNING):
        found = asyncio.run(run())
    assert (found.device_id, len(server.requests)) == (7, len(portals) + 1)
    assert credentials.load(tmp_path / "s") == found
    assert caplog.text.count("is not what the server would say") == len(portals)


def test_whatever_a_network_says_to_a_call_may_pass(tmp_path: Path) -> None:
    fix = Fix(1.0, 2.0, datetime.now(UTC))
    portal = ours({})

    async def run() -> None:
        nonlocal portal
        async with make_client(5) as http:
            client = DeviceClient(identity(server), settings(server, tmp_path), http)
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "claim": lambda: client.claim(1, "j"),
                "finish": lambda: client.finish(1, 1, Outcome("completed", {"a": 1})),
                "extend": lambda: client.extend(1, 1),
                "release": lambda: client.release(1, 1),
                "check in": client.checkin,
                "report": lambda: client.report_location(fix),
            }
            for kind, (head, body) in STRANGE.items():
                portal = says(head, body)
                for name, call in calls.items():
                    with pytest.raises(FleetError) as raised:
                        await call()
                    found = (kind, name, raised.value.reason, is_transient(raised.value))
                    assert found == (kind, name, "answer_not_understood", True)

    with answering(lambda head: ours(TOKEN) if "device-token" in head else portal) as server:
        asyncio.run(run())


def test_no_network_ends_an_identity(tmp_path: Path) -> None:
    portal = ours({})

    async def run() -> None:
        nonlocal portal
        async with make_client(5) as http:
            for head, body in STRANGE.values():
                portal = says(head, body)
                with pytest.raises(FleetError) as raised:
                    await fetch_token(identity(server), settings(server, tmp_path), http)
                assert is_transient(raised.value), head
                assert not isinstance(raised.value, IdentityRefused)

    with answering(lambda _: portal) as server:
        asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            401,
            {"code": "PT401", "message": "no", "details": "device_secret_unknown", "hint": "h"},
            IdentityRefused,
        ),
        (401, {"code": "PT401", "message": "no", "details": "other", "hint": "h"}, NotSignedIn),
        (403, {"code": "PT403", "message": "no", "details": None, "hint": None}, NotAllowed),
        (401, {"message": "Invalid API key", "hint": "Double check your key."}, NotSignedIn),
    ],
)
def test_what_our_server_refuses_is_refused(
    status: int, body: dict[str, Any], kind: type[FleetError], tmp_path: Path
) -> None:
    async def run() -> None:
        async with make_client(5) as http:
            await fetch_token(identity(server), settings(server, tmp_path), http)

    with answering(lambda _: ours(body, status)) as server, pytest.raises(kind):
        asyncio.run(run())


def test_a_gateway_that_refuses_a_token_gets_a_new_one(tmp_path: Path) -> None:
    refused = {"code": 401, "message": "Invalid JWT"}

    def choose(head: str) -> Answering:
        if "device-token" in head:
            return ours(TOKEN)
        return ours(refused, 401) if len(server.requests) < 4 else ours([])

    async def run() -> list[Any]:
        async with make_client(5) as http:
            client = DeviceClient(identity(server), settings(server, tmp_path), http)
            return await client.claim(1, "j")

    with answering(choose) as server:
        assert asyncio.run(run()) == []
    assert sum("device-token" in head for head in server.requests) == 2


@pytest.mark.parametrize(
    "hosts", ["[::1]", "fd00::/8,localhost", "[fd00::1]:8080", "::1,10.0.0.0/8", "fe80::1%eth0"]
)
def test_a_no_proxy_list_may_hold_ipv6_addresses(
    hosts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", hosts)
    monkeypatch.setenv("HTTP_PROXY", "http://[fd00::9]:3128")

    async def run() -> None:
        await make_client(1).aclose()

    asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["http://[::1]:54321", "https://[fd00::7]/api", "http://10.0.0.7:1"]
)
def test_an_ipv6_address_stands_in_brackets(url: str, tmp_path: Path) -> None:
    made = AgentSettings(url=url, anon_key="k", state_dir=tmp_path, hostname="h")
    assert made.functions_url == f"{url}/functions/v1"


@pytest.mark.parametrize(
    "url", ["http://fd00::7:8000", "http://[::1", "http://::1", "https://", "http://h:70000", "h:1"]
)
def test_what_is_no_address_is_refused_at_once(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not an http"):
        AgentSettings(url=url, anon_key="k", state_dir=tmp_path, hostname="h")


def test_a_server_may_have_nothing_but_an_ipv6_address(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        await reader.readexactly(length)
        await ours(TOKEN if "device-token" in head else [])(writer)
        await writer.drain()
        writer.close()

    async def run() -> list[Any]:
        try:
            server = await asyncio.start_server(serve, "::1", 0)
        except OSError:
            return []
        url = f"http://[::1]:{server.sockets[0].getsockname()[1]}"
        made = AgentSettings(url=url, anon_key="k", state_dir=tmp_path, hostname="h")
        found = Credentials(
            **{**ENROLLED, "url": url, "functions_url": made.functions_url}, anon_key="k"
        )
        async with server, make_client(5) as http:
            return await DeviceClient(found, made, http).claim(1, "j")

    assert asyncio.run(run()) == []
