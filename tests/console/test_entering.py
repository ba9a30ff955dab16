"""Who comes in, by which door, and what is kept out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.helpers.serving import serving

from pgfleet.errors import NotFound
from pgfleet_console.app import create_local, find_viewer
from pgfleet_console.settings import ConsoleSettings, ConsoleSettingsError
from pgfleet_console.viewers import OPERATOR


@pytest.fixture(scope="module")
def laptop(a_school: Any, free_port: Callable[[], int]) -> Iterator[tuple[httpx.Client, Any]]:
    """Serve the console to its operator; give a browser that is not in yet, and the door."""
    settings = ConsoleSettings(database_url=a_school.database.url())
    port = free_port()
    app, door = create_local(settings, OPERATOR, port)
    with serving(app, port) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client, door


def test_a_link_lets_in_once(laptop: Any) -> None:
    client, door = laptop
    link = door.new_link()

    came = client.get(link)
    assert (came.status_code, came.headers["location"]) == (303, "/")
    cookie = came.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert "Evening lock" in client.get("/").text

    again = httpx.get(f"{client.base_url}{link}")
    assert again.status_code == 401
    assert "used already" in again.text and "Press Enter" in again.text


def test_who_has_no_link_is_sent_to_the_entrance(laptop: Any) -> None:
    client, _ = laptop

    sent = httpx.get(f"{client.base_url}/?q=lab")

    assert sent.status_code == 303
    assert sent.headers["location"] == "/enter?next=%2F%3Fq%3Dlab"


def test_a_link_from_elsewhere_is_followed_from_here(laptop: Any) -> None:
    client, _ = laptop

    page = httpx.get(f"{client.base_url}/?q=a&b", headers={"Sec-Fetch-Site": "cross-site"})

    assert page.status_code == 200
    assert 'content="0;url=/?q=a&amp;b"' in page.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", ""])
def test_other_names_of_this_machine_are_not_answered(laptop: Any, host: str) -> None:
    client, _ = laptop

    assert client.get("/", headers={"Host": host}).status_code == 421


def test_every_answer_is_strict(laptop: Any) -> None:
    client, door = laptop
    client.get(door.new_link())

    page = client.get("/")

    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"
    # What the policy forbids would not work.
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page.text)
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        kept = client.get(address)
        assert kept.status_code == 200
        assert "immutable" in kept.headers["cache-control"]


def test_a_form_of_another_page_is_refused(console: Any, a_school: Any) -> None:
    admin = console("admin")
    path = f"/commands/{a_school.waiting}/cancel"
    csrf = admin.csrf()

    forged = admin.http.post(path, data={"csrf": csrf}, headers={"Origin": "http://evil.example"})
    assert (forged.status_code, "another page" in forged.text) == (403, True)
    stale = admin.http.post(path, data={"csrf": "0" * 64})
    assert (stale.status_code, "Reload the page" in stale.text) == (403, True)
    other = console("admin")
    other.get("/")
    assert other.http.post(path, data={"csrf": csrf}).status_code == 403


@pytest.mark.parametrize(
    "claims",
    [{"exp": 1}, {"role": "service_role"}, {"role": "anon"}, {"device_id": 1}],
    ids=str,
)
def test_a_token_that_is_nobodys_lets_nobody_in(console: Any, a_school: Any, claims: Any) -> None:
    token = a_school.token("admin", **claims)

    sent = httpx.get(f"{console('admin').url}/", headers={"Authorization": f"Bearer {token}"})

    assert sent.status_code == 303
    assert sent.headers["location"].startswith("/sign-in")


def test_row_security_decides_what_there_is(console: Any) -> None:
    assert "Evening lock" in console("admin").get("/")
    assert "Evening lock" in console("viewer").get("/")
    assert "Evening lock" not in console("stranger").get("/")


def test_a_page_that_is_not_there_says_so_and_what_to_do(console: Any) -> None:
    text = console("admin").get("/nothing/here", 404)

    assert "there is no such page" in text and "Begin at the first page" in text


def test_one_may_look_as_somebody(a_school: Any) -> None:
    url = a_school.database.url()
    who = str(a_school.people["viewer"])

    viewer = asyncio.run(find_viewer(ConsoleSettings(database_url=url, acting_as=who)))
    assert (viewer.role, who in viewer.claims) == ("authenticated", True)

    nobody = ConsoleSettings(database_url=url, acting_as="nobody@else.example")
    with pytest.raises(NotFound):
        asyncio.run(find_viewer(nobody))


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, "PGFLEET_CONSOLE_DATABASE_URL"),
        ({"PGFLEET_CONSOLE_DATABASE_URL": "x"}, "SUPABASE_JWT_SECRET"),
        (
            {"PGFLEET_CONSOLE_DATABASE_URL": "x", "SUPABASE_URL": "https://p.example"},
            "PGFLEET_CONSOLE_HOSTS",
        ),
    ],
)
def test_a_service_says_which_setting_is_missing(environ: dict[str, str], missing: str) -> None:
    with pytest.raises(ConsoleSettingsError, match=missing):
        ConsoleSettings.of_service(environ)
