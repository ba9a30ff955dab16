"""Looking at calendars elsewhere, over real HTTP: conditional, bounded, with checked addresses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgfleet_functions.calendars.dispatch import LookFailed, Subscription, dispatchers, look_at
from pgfleet_functions.calendars.ics import CalendarUnreadable
from pgfleet_functions.database import make_pool
from pgfleet_functions.dispatching import Dispatchers
from pgfleet_functions.outgoing.errors import AddressRefused, AnswerRefused, OutgoingError
from pgfleet_functions.outgoing.transport import Outgoing
from pgfleet_functions.setup import ensure_worker_role

FILES = Path(__file__).parent / "files"


@dataclass
class Place:
    """A web server that serves one calendar, and keeps what it was asked."""

    url: str = ""
    body: bytes = (FILES / "36_transparent.ics").read_bytes()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    asked: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def place() -> Iterator[Place]:
    """Serve a calendar on this machine."""
    here = Place()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.asked.append(dict(self.headers))
            same = self.headers.get("If-None-Match") == here.headers.get("ETag")
            self.send_response(304 if same and here.status == 200 else here.status)
            for name, value in here.headers.items():
                self.send_header(name, value)
            body = b"" if same else here.body
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_address[1]}/x.ics"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield here
    server.shutdown()
    server.server_close()
    thread.join(10)


def look(place: Place, **more: Any) -> dict[str, Any]:
    """Look at the place once."""
    known: dict[str, Any] = {
        "calendar_id": 1, "attempt": 1, "url": place.url, "timezone": None,
        "skip_transparent": False, "allow_private": True, "tag": None, "modified": None,
    }  # fmt: skip

    async def once() -> dict[str, Any]:
        outgoing = Outgoing()
        try:
            return await look_at(outgoing, Subscription(**{**known, **more}))
        finally:
            await outgoing.aclose()

    return asyncio.run(once())


def test_what_is_there_is_read_with_what_was_left_out(place: Place) -> None:
    found = look(place, skip_transparent=True)
    assert [period["summary"] for period in found["periods"]] == ["Opaque"]
    assert (found["tag"], found["note"]) == ('"one"', "left out: 2 that leave people free")


def test_who_has_it_already_is_told_that_nothing_is_new(place: Place) -> None:
    assert look(place, tag='"one"', modified="Fri, 01 May 2026 00:00:00 GMT") == {}
    assert place.asked[0]["If-Modified-Since"] == "Fri, 01 May 2026 00:00:00 GMT"
    assert look(place, tag='"old"')["tag"] == '"one"'


@pytest.mark.parametrize("status", [401, 404, 500])
def test_an_answer_that_is_none_is_told_by_its_status(place: Place, status: int) -> None:
    place.status = status
    with pytest.raises(LookFailed, match=f"answered {status}"):
        look(place)


def test_a_page_for_people_is_no_calendar(place: Place) -> None:
    place.body = (FILES / "41_no_calendar.ics").read_bytes()
    with pytest.raises(CalendarUnreadable, match="BEGIN:VCALENDAR"):
        look(place)


def test_a_redirect_is_followed_and_not_for_ever(place: Place) -> None:
    place.status, place.headers = 302, {"Location": "/y.ics"}
    with pytest.raises(LookFailed, match="redirects more than 3 times"):
        look(place)
    assert len(place.asked) == 4


def test_where_people_may_not_go_nobody_is_asked(place: Place) -> None:
    with pytest.raises(AddressRefused):
        look(place, allow_private=False)
    assert place.asked == []


def test_too_much_is_not_read(place: Place) -> None:
    place.body = b"BEGIN:VCALENDAR\n" + b"X-LONG:" + b"x" * (5 * 1024 * 1024)
    with pytest.raises(AnswerRefused, match="larger than"):
        look(place)
    assert issubclass(AnswerRefused, OutgoingError)


def test_a_subscription_is_claimed_looked_at_and_written_down(place: Place, database: Any) -> None:
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    with database.connect() as conn:
        conn.execute("select fleet.grant_worker()")
        conn.execute("select fleet.set_setting('webhook_allow_private', 'true')")
        conn.execute("insert into owners (name) values ('school')")
        conn.execute(
            "select subscribe_blackouts(%s, 'far', p_owner_id => (select id from owners limit 1))",
            (place.url,),
        )

    async def work() -> dict[str, int] | None:
        pool = make_pool(database.url("fleet_worker"))
        await pool.open(wait=True)
        outgoing = Outgoing()
        try:
            found = Dispatchers(dispatchers(pool, outgoing))
            async with found.running():
                return await found.work(30)
        finally:
            await outgoing.aclose()
            await pool.close()

    assert asyncio.run(work()) == {"changed": 1}
    with database.connect() as conn:
        row = conn.execute(
            "select periods, look_error, looked_at is not null"
            " from blackout_list where name = 'far'"
        ).fetchone()
    assert row == (3, None, True)
