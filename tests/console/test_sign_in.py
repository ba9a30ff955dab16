"""People with an account of the project sign in, stay, and leave."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.helpers.serving import serving

from pgfleet_console.app import create_service
from pgfleet_console.doors.tokens import ACCESS, REFRESH
from pgfleet_console.settings import Accounts, ConsoleSettings
from pgfleet_local.auth import users

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def account(stack: Any) -> str:
    """Make an account of the platform; give its address."""
    email = f"ada-{secrets.token_hex(4)}@school.example"
    users.create_user(stack.settings.admin_url, email, PASSWORD)
    return email


@pytest.fixture(scope="module")
def served(stack: Any, free_port: Callable[[], int]) -> Iterator[str]:
    """Serve the console to those who have an account of the platform."""
    settings = ConsoleSettings(
        database_url=stack.settings.authenticator_url,
        accounts=Accounts(
            jwt_secret=stack.settings.jwt_secret,
            project_url=stack.settings.api_url,
            anon_key=stack.settings.anon_key,
        ),
    )
    with serving(create_service(settings), free_port()) as url:
        yield url


def signed_in(client: httpx.Client, email: str, password: str, **more: str) -> httpx.Response:
    """Fill in the form and send it."""
    page = client.get("/sign-in?next=/commands")
    found = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert found is not None
    form = {"csrf": found[1], "email": email, "password": password, "next": "/commands", **more}
    return client.post("/sign-in", data=form)


def test_a_person_signs_in_and_out(served: str, account: str) -> None:
    with httpx.Client(base_url=served, timeout=60) as client:
        assert client.get("/commands").headers["location"] == "/sign-in?next=%2Fcommands"
        came = signed_in(client, account, PASSWORD)
        assert (came.status_code, came.headers["location"]) == (303, "/commands")
        for cookie in came.headers.get_list("set-cookie"):
            assert "httponly" in cookie.lower() and "samesite=strict" in cookie.lower()
        page = client.get("/commands").text
        assert account in page

        csrf = re.search(r'name="csrf" content="(\w+)"', page)
        assert csrf is not None
        client.post("/sign-out", data={"csrf": csrf[1]})
        assert client.get("/commands").status_code == 303


def test_whoever_is_at_the_end_of_a_token_stays(served: str, account: str) -> None:
    with httpx.Client(base_url=served, timeout=60) as client:
        signed_in(client, account, PASSWORD)
        del client.cookies[ACCESS]
        before = client.cookies[REFRESH]

        page = client.get("/commands")

        assert page.status_code == 200 and account in page.text
        assert client.cookies[ACCESS] and client.cookies[REFRESH] != before
        client.cookies.clear()
        client.cookies.set(REFRESH, "made-up")
        assert client.get("/commands").status_code == 303


def test_a_wrong_password_is_told_and_nobody_is_led_away(served: str, account: str) -> None:
    with httpx.Client(base_url=served, timeout=60) as client:
        refused = signed_in(client, account, "wrong")
        assert refused.status_code == 401
        assert "the address or the password is wrong" in refused.text
        assert ACCESS not in client.cookies

        for away in ("https://evil.example/", "//evil.example", "/\\evil.example"):
            came = signed_in(client, account, PASSWORD, next=away)
            assert came.headers["location"] == "/"
        assert client.post("/sign-in", data={"email": account}).status_code == 403
