"""The way out, against real servers that mean harm."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import count
from typing import Any

import httpx
import pytest
from tests.helpers.hostile import Answering, drips, hostile, pours, says
from tests.helpers.resetting import resetting

from pgfleet_functions.outgoing.answers import Answer
from pgfleet_functions.outgoing.errors import (
    AddressRefused,
    AnswerRefused,
    NoAnswer,
    NotConnected,
    TooSlow,
)
from pgfleet_functions.outgoing.transport import Limits, Outgoing
from pgfleet_local.settings import HOST

LIMITS = Limits(seconds=5, body_bytes=100_000)
OK = "HTTP/1.1 200 OK\nContent-Type: application/json"


def call(*urls: str, limits: Limits = LIMITS, allow_private: bool = True) -> list[Answer]:
    """Call addresses one after the other, through one way out."""

    async def run() -> list[Answer]:
        async with aclosing(Outgoing()) as outgoing:
            return [
                await outgoing.call(
                    httpx.Request("POST", url, json={}), limits, allow_private=allow_private
                )
                for url in urls
            ]

    return asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000, 0.05),
        drips(b"HTTP/1.1 200 OK\r\nX-Pad: " + b"x" * 9000, 0.05),
        drips(b"HTTP/1.1 100 Continue\r\n\r\n" * 900, 0.05),
        drips(b"", 0),
    ],
    ids=["body", "headers", "continue", "silence"],
)
def test_the_time_is_for_the_whole_call_however_often_something_comes(answer: Answering) -> None:
    with hostile(answer) as server:
        began = time.monotonic()
        with pytest.raises(TooSlow) as slow:
            call(server.url, limits=Limits(seconds=0.7, body_bytes=100_000))
        assert time.monotonic() - began < 4
    assert slow.value.reached


def test_an_answer_without_end_is_left_after_the_bytes_that_it_may_have() -> None:
    sent = count()

    async def flood() -> AsyncIterator[bytes]:
        while True:
            next(sent)
            yield bytes(65536)

    with hostile(pours(OK, flood)) as server:
        tracemalloc.start()
        with pytest.raises(AnswerRefused, match="larger than 100000 bytes"):
            call(server.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # What was in flight is lost, no more: neither here nor on the wire.
    assert next(sent) < 600
    assert peak < 20_000_000


def packed(wbits: int, size: int = 300_000_000) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    block = bytes(1_000_000)
    return b"".join(packer.compress(block) for _ in range(size // len(block))) + packer.flush()


@pytest.mark.parametrize(("encoding", "wbits"), [("gzip", 31), ("deflate", 15), ("x-gzip", 31)])
def test_a_small_body_that_unpacks_to_a_huge_one_takes_no_memory(encoding: str, wbits: int) -> None:
    bomb = packed(wbits)
    assert len(bomb) < 400_000
    limits = Limits(seconds=5, body_bytes=500_000)
    with hostile(says(f"{OK}\nContent-Encoding: {encoding}", bomb)) as server:
        tracemalloc.start()
        with pytest.raises(AnswerRefused, match="larger than 500000 bytes"):
            call(server.url, limits=limits)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 10_000_000


def test_a_packed_body_that_unpacks_to_nothing_ends() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield zlib.compressobj(9, zlib.DEFLATED, 31).flush()[:10]
        while True:
            # A stored block of no bytes, again and again.
            yield b"\x00\x00\x00\xff\xff" * 10_000

    with hostile(pours(f"{OK}\nContent-Encoding: gzip", nothing)) as server:
        with pytest.raises(AnswerRefused):
            call(server.url)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", b"..."),
        ("gzip, gzip", gzip.compress(b"{}")),
        ("gzip", b"no gzip at all"),
        ("zstd", b"(\xb5/\xfd"),
    ],
    ids=["brotli", "twice", "not gzip", "zstd"],
)
def test_what_cannot_be_unpacked_is_refused(encoding: str, body: bytes) -> None:
    with hostile(says(f"{OK}\nContent-Encoding: {encoding}", body)) as server:
        with pytest.raises(AnswerRefused) as refused:
            call(server.url)
    assert refused.value.reached


def test_a_packed_answer_is_unpacked() -> None:
    body = b'{"data": [' + b"1," * 1000 + b"1]}"
    with hostile(says(f"{OK}\nContent-Encoding: gzip", gzip.compress(body))) as server:
        [answer] = call(server.url)
    assert len(answer.json()["data"]) == 1001
    assert "accept-encoding: gzip" in server.requests[0].lower()


def test_json_that_is_nested_without_end_is_no_json() -> None:
    with hostile(says(OK, b"[" * 90_000)) as server:
        [answer] = call(server.url)
    with pytest.raises(ValueError, match="nested"):
        answer.json()


def test_a_body_that_nobody_asked_for_is_not_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65536)

    with hostile(pours(OK, endless)) as server:
        [answer] = call(server.url, limits=Limits(seconds=5))
    assert (answer.status, answer.body) == (200, b"")


def test_no_cookie_is_ever_sent() -> None:
    cookie = f"{OK}\nSet-Cookie: session=of-one-owner; Path=/; Max-Age=9999"
    with hostile(says(cookie)) as one, hostile(says(cookie)) as another:
        # Two receivers of one host, and each of them twice.
        call(one.url, another.url, one.url, another.url)
    heads = [*one.requests, *another.requests]
    assert len(heads) == 4
    assert not any("cookie" in head.lower() for head in heads)


def test_a_redirect_is_an_answer() -> None:
    with hostile(says(OK)) as elsewhere:
        moved = f"HTTP/1.1 307 Temporary Redirect\nLocation: {elsewhere.url}"
        with hostile(says(moved)) as server:
            [answer] = call(server.url)
    assert (answer.status, elsewhere.requests) == (307, [])


def test_the_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(says(OK)) as proxy, hostile(says(OK)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{HOST}:{proxy.port}")
        call(server.url)
    assert (len(server.requests), proxy.requests) == (1, [])


@pytest.mark.parametrize("url", ["http://{host}:{port}/", "https://{host}:{port}/", "ftp://x/"])
def test_without_leave_no_private_address_is_called(url: str) -> None:
    with hostile(says(OK)) as server:
        with pytest.raises(AddressRefused) as refused:
            call(url.format(host=HOST, port=server.port), allow_private=False)
    assert (server.requests, refused.value.reached) == ([], False)


def resolving(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> list[str]:
    """Let names of `.test` stand for what a test wants, and give what was asked."""
    real, asked = socket.getaddrinfo, []

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, port, *rest, **more)
        asked.append(str(host))
        return [found for one in answer(host) for found in real(one, port, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_is_asked_for_once_and_the_connection_goes_to_what_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = resolving(monkeypatch, lambda _: [HOST] if len(asked) == 1 else ["127.0.0.9"])
    with hostile(says(OK)) as server:
        [answer] = call(f"http://other.test:{server.port}/")
    assert (answer.status, asked) == (200, ["other.test"])
    assert f"host: other.test:{server.port}" in server.requests[0].lower()


def test_the_next_address_of_a_name_is_tried_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, lambda _: ["127.0.0.77", HOST])
    with hostile(says(OK)) as server:
        [answer] = call(f"http://two.test:{server.port}/")
    assert answer.status == 200


def test_one_private_address_among_many_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, lambda _: ["8.8.8.8", "10.1.2.3"])
    with pytest.raises(AddressRefused, match=r"10\.1\.2\.3"):
        call("https://mixed.test/", allow_private=False)


def test_name_servers_that_never_answer_hold_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asleep = threading.Event()

    def answer(host: str) -> list[str]:
        if host.startswith("slow"):
            asleep.wait(20)
        return [HOST]

    resolving(monkeypatch, answer)

    async def run(port: int) -> float:
        async with aclosing(Outgoing()) as outgoing:

            async def ask(host: str) -> Answer:
                request = httpx.Request("POST", f"http://{host}:{port}/", json={})
                return await outgoing.call(request, LIMITS, allow_private=True)

            slow = [asyncio.create_task(ask(f"slow{number}.test")) for number in range(100)]
            await asyncio.sleep(0.1)
            began = time.monotonic()
            assert (await ask("quick.test")).status == 200
            took = time.monotonic() - began
            for task in slow:
                task.cancel()
            asleep.set()
            return took

    with hostile(says(OK)) as server:
        assert asyncio.run(run(server.port)) < 1


def test_where_nobody_listens_nothing_was_reached(free_port: Callable[[], int]) -> None:
    with pytest.raises(NotConnected) as failed:
        call(f"http://{HOST}:{free_port()}/")
    assert not failed.value.reached


@pytest.mark.parametrize(
    "text", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"]
)
def test_what_is_no_answer_may_have_been_reached(text: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()
        writer.close()

    with hostile(answer) as server:
        with pytest.raises(NoAnswer) as failed:
            call(server.url)
    assert failed.value.reached


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_connections_that_are_reset_at_once_are_failures_of_the_network(loop: str) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if loop == "uvloop" else None

    async def run(url: str) -> list[Answer | BaseException]:
        async with aclosing(Outgoing()) as outgoing:
            request = httpx.Request("POST", url, json={})
            calls = [outgoing.call(request, LIMITS, allow_private=True) for _ in range(200)]
            return await asyncio.gather(*calls, return_exceptions=True)

    with resetting() as url, asyncio.Runner(loop_factory=factory) as runner:
        failed = runner.run(run(url))
    assert {type(one) for one in failed} <= {NoAnswer, NotConnected}
