"""The project's Auth does not do what it should: whoever signs in is told, and nothing hangs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.helpers.hostile import Answering, drips, hostile, pours, says
from tests.helpers.resetting import resetting
from tests.helpers.serving import serving

from pgfleet_console.app import create_service
from pgfleet_console.doors import tokens
from pgfleet_console.doors.tokens import REFRESH
from pgfleet_console.settings import Accounts, ConsoleSettings

PAGE = "Content-Type: text/html"


async def flood() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65536


ODD: dict[str, Answering] = {
    "silent": drips(b"", 0),
    "endless": pours("HTTP/1.1 200 OK", flood),
    "a page": says(f"HTTP/1.1 200 OK\n{PAGE}", b"<p>hello"),
    "not found": says(f"HTTP/1.1 404 Not Found\n{PAGE}", b"<p>no"),
    "refused with a page": says(f"HTTP/1.1 403 Forbidden\n{PAGE}", b"<p>by a firewall"),
    "other json": says("HTTP/1.1 200 OK", b"[1]"),
    "out of order": says("HTTP/1.1 500 Oh", b"{}"),
    "too many": says("HTTP/1.1 429 Slow", b'{"msg": "later"}'),
    "no http": says("SSH-2.0-x"),
}


@contextmanager
def behaving(how: str) -> Iterator[str]:
    """Serve something in the place of Auth."""
    if how == "resets":
        with resetting() as url:
            yield url.removesuffix("/")
    else:
        with hostile(ODD[how]) as odd:
            yield odd.url


@pytest.fixture(params=["resets", *ODD])
def console(
    request: pytest.FixtureRequest,
    stack: Any,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[httpx.Client]:
    """Serve the console beside an Auth that is odd."""
    monkeypatch.setattr(tokens, "SIGN_IN_SECONDS", 0.3)
    with behaving(request.param) as project_url:
        accounts = Accounts(stack.settings.jwt_secret, None, project_url, stack.settings.anon_key)
        settings = ConsoleSettings(database_url=stack.settings.authenticator_url, accounts=accounts)
        with (
            serving(create_service(settings), free_port()) as url,
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            yield client


def test_whoever_signs_in_is_told_that_it_does_not_work(console: httpx.Client) -> None:
    # Some connections are reset before, some after they are made use of.
    for _ in range(10):
        page = console.get("/sign-in")
        csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
        assert csrf is not None
        form = {"csrf": csrf[1], "email": "ada@school.example", "password": "secret word"}
        answer = console.post("/sign-in", data=form)
        assert answer.status_code == 503
        assert "signing in does not work at the moment" in answer.text
        assert "secret word" not in answer.text


def test_whoever_cannot_be_renewed_is_led_to_the_way_in(console: httpx.Client) -> None:
    console.cookies.set(REFRESH, "left-over")
    answer = console.get("/commands")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fcommands")
