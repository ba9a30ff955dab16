"""Calendar feeds: read by a secret address, parsed back, revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from icalendar import Calendar
from psycopg.types.json import Jsonb

ME, STRANGER = UUID(int=201), UUID(int=202)


def make_schedule(site: Any, owner: UUID, name: str, time: str = "06:30") -> int:
    device = site.value(
        "insert into devices (owner_id, hostname) values (%s, %s) returning id", owner, name
    )
    spec = {
        "owner_id": str(owner),
        "name": name,
        "action_type": "lock",
        "recurrence_type": "daily",
        "recurrence_config": {"time": time},
        "timezone": "Europe/Berlin",
        "device_ids": [device],
    }
    return int(site.value("select create_schedule(%s) -> 'id'", Jsonb(spec)))


def make_feed(site: Any, owner: UUID, **filters: Any) -> dict[str, Any]:
    made: dict[str, Any] = site.value(
        "select create_calendar_feed(%s, 'phone', %s)", Jsonb(filters), owner
    )
    return made


def events(text: str) -> list[tuple[str, datetime]]:
    found = Calendar.from_ical(text).walk("VEVENT")
    return [(str(event["SUMMARY"]), event["DTSTART"].dt.astimezone(UTC)) for event in found]


def test_the_feed_holds_the_coming_runs_of_its_owner_and_no_others(site: Any) -> None:
    mine, theirs = site.owner(), site.owner()
    schedule = make_schedule(site, mine, "Lock the lab")
    make_schedule(site, theirs, "Not mine")
    feed = make_feed(site, mine)

    answer = httpx.get(f"{site.url}{feed['path']}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    expected = site.run(
        "select o from schedules as s, fleet.occurrences(s.recurrence, now(),"
        " now() + interval '30 days') as o where s.id = %s order by o",
        schedule,
    )
    horizon = datetime.now(UTC) + timedelta(days=30)
    found = events(answer.text)
    assert {name for name, _ in found} == {"Lock the lab"}
    assert [at for _, at in found if at < horizon] == [at for (at,) in expected]
    assert len(expected) in (29, 30, 31)


def test_a_filter_chooses_schedules(site: Any, owner: UUID) -> None:
    chosen = make_schedule(site, owner, "Chosen")
    make_schedule(site, owner, "Other")
    feed = make_feed(site, owner, schedule_ids=[chosen])
    names = {name for name, _ in events(httpx.get(f"{site.url}{feed['path']}").text)}
    assert names == {"Chosen"}


def test_a_program_that_has_it_is_told_so(site: Any, owner: UUID) -> None:
    feed = make_feed(site, owner)
    first = httpx.get(f"{site.url}{feed['path']}")
    again = httpx.get(f"{site.url}{feed['path']}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert site.value("select last_read_at from calendar_feeds where id = %s", feed["id"])


def test_a_revoked_address_and_a_guessed_one_are_the_same(site: Any, owner: UUID) -> None:
    feed = make_feed(site, owner)
    site.run("select revoke_calendar_feed(%s)", feed["id"])
    answers = [
        httpx.get(f"{site.url}{path}")
        for path in (feed["path"], f"/calendar-feed/{'0' * 64}.ics", "/calendar-feed/%00.ics")
    ]
    assert [answer.status_code for answer in answers[:2]] == [404, 404]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["details"] == "calendar_feed_not_found"
    assert 400 <= answers[2].status_code < 500


def test_the_secret_is_not_kept_and_the_address_is_complete_where_it_is_known(site: Any) -> None:
    owner = site.owner()
    feed = make_feed(site, owner)
    assert (len(feed["token"]), feed["url"]) == (64, None)
    assert feed["token"] not in site.value(
        "select to_jsonb(f)::text from calendar_feeds as f where id = %s", feed["id"]
    )
    with site.database.connect() as conn:
        conn.execute("select fleet.set_setting('functions_url', '\"https://f.example.com/v1\"')")
        row = conn.execute(
            "select create_calendar_feed('{}', '', %s) ->> 'url'", (owner,)
        ).fetchone()
        conn.rollback()
    assert row[0].startswith("https://f.example.com/v1/calendar-feed/")
