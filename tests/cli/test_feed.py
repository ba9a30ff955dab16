"""Calendar feeds on the command line: made, listed, revoked."""

from __future__ import annotations

from typing import Any

import psycopg

FILTER = ("--group", "labs", "--action", "lock", "--search", "night")


def read(fleet: Any, path: str) -> str:
    """Read a feed as the HTTP function does."""
    token = path.removeprefix("/calendar-feed/").removesuffix(".ics")
    with psycopg.connect(fleet.url()) as conn:
        row = conn.execute("select fleet.worker_calendar_feed(%s)", (token,)).fetchone()
    assert row is not None
    return str(row[0])


def test_a_feed_is_made_read_and_revoked(pgfleet: Any, fleet: Any) -> None:
    pgfleet("group", "create", "labs", "--selector", "{}")
    pgfleet("device", "create", "feed-pc")
    for action in ("lock", "clear_cache"):
        words = ("--action", action, "--group", "labs", "--daily", "22:00")
        assert pgfleet("schedule", "create", f"night {action}", *words).code == 0

    made = pgfleet("feed", "create", "Labs at night", *FILTER, "--json")

    assert made.code == 0, made.err
    assert "not shown again" in made.err
    assert made.data["url"] is None
    assert "functions_url" in made.err
    calendar = read(fleet, made.data["path"])
    assert "X-WR-CALNAME:Labs at night" in calendar
    assert "night lock" in calendar
    assert "night clear_cache" not in calendar

    (listed,) = pgfleet("feed", "list", "--json").data
    assert (listed["name"], listed["owner"], listed["revoked_at"]) == (
        *("Labs at night", "School 7"),
        None,
    )
    assert listed["last_read_at"] is not None
    assert made.data["path"].split("/")[-1] not in str(listed)

    feed = str(listed["id"])
    assert pgfleet("feed", "revoke", feed, "--dry-run").code == 0
    assert pgfleet("feed", "revoke", feed).code == 1
    assert "BEGIN:VCALENDAR" in read(fleet, made.data["path"])
    revoked = pgfleet("feed", "revoke", feed, "--yes", "--json")
    assert revoked.data["revoked_at"] is not None
    try:
        read(fleet, made.data["path"])
    except psycopg.Error as error:
        assert error.sqlstate == "PT404"
    else:
        raise AssertionError("the address still answers")


def test_a_feed_of_one_schedule_and_one_device(pgfleet: Any, fleet: Any) -> None:
    pgfleet("device", "create", "feed-mac")
    for name in ("feed one", "feed two"):
        words = ("--action", "lock", "--device", "feed-mac", "--daily", "22:00")
        assert pgfleet("schedule", "create", name, *words).code == 0

    words = ("--schedule", "feed one", "--device", "FEED-MAC")
    made = pgfleet("feed", "create", "One", *words, "--json").data

    assert set(made["filter"]) == {"name", "schedule_ids", "device_id"}
    calendar = read(fleet, made["path"])
    assert "feed one" in calendar
    assert "feed two" not in calendar


def test_what_is_wrong_with_a_feed_is_said(pgfleet: Any) -> None:
    missing = pgfleet("feed", "create", "x", "--device", "nobody")
    unknown = pgfleet("feed", "revoke", "99999", "--yes")

    assert (missing.code, "device_not_found" in missing.err) == (1, True)
    assert (unknown.code, "Reason: calendar_feed_not_found" in unknown.err) == (1, True)
