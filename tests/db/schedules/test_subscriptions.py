"""Blackout calendars that follow a calendar elsewhere, as the database sees them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

URL = "https://example.com/holidays.ics"
SHARES = Jsonb({"all": 10, "owner": 2, "way": 2})
XMAS = {"starts_on": "2040-12-25", "ends_on": "2040-12-26", "summary": "Christmas"}
DAY = timedelta(days=1)


def subscribe(fleet: Fleet, url: str = URL, name: str | None = "Holidays", **more: Any) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value(
            "select subscribe_blackouts(%s, %s, %s, %s)",
            url, name, more.get("timezone"), more.get("skip_transparent", False),
        )  # fmt: skip
    return answer


def claim(fleet: Fleet, now: datetime | None = None) -> list[Row]:
    rows = fleet.rows(
        "select fleet.worker_claim_calendars(%s, coalesce(%s, clock_timestamp())) as job",
        SHARES, now,
    )  # fmt: skip
    return [row["job"] for row in rows if row["job"]["owner_id"] == str(fleet.owner_id)]


def finish(fleet: Fleet, job: Row, error: str | None = None, **found: Any) -> Row:
    answer: Row = fleet.value(
        "select fleet.worker_finish_calendar(%s, %s, %s, %s)",
        job["calendar_id"], job["attempt"], Jsonb(found), error,
    )  # fmt: skip
    return answer


def calendar(fleet: Fleet) -> Row:
    return fleet.row("select * from blackout_list where owner_id = %s", fleet.owner_id)


def test_what_is_found_replaces_what_was_there_and_is_looked_at_again_in_a_day(
    fleet: Fleet,
) -> None:
    fleet.value(
        "select import_blackouts('holidays', %s, null, %s)",
        Jsonb([{"starts_on": "2039-01-01"}]), fleet.owner_id,
    )  # fmt: skip
    made = subscribe(fleet, timezone="Europe/Berlin", skip_transparent=True)
    assert calendar(fleet)["periods"] == 1
    (job,) = claim(fleet)
    assert (job["url"], job["timezone"], job["skip_transparent"]) == (URL, "Europe/Berlin", True)
    assert claim(fleet) == []

    found = {"periods": [XMAS], "note": "left out: 1 cancelled", "tag": '"a"', "modified": "then"}
    assert finish(fleet, job, **found) == {"accepted": True, "status": "changed"}
    row = calendar(fleet)
    assert (row["id"], row["periods"], row["look_error"]) == (made["id"], 1, None)
    assert row["look_note"] == "left out: 1 cancelled"
    assert timedelta(hours=22) < row["look_next_at"] - row["looked_at"] <= DAY

    (again,) = claim(fleet, datetime.now(tz=UTC) + 2 * DAY)
    assert (again["tag"], again["modified"]) == ('"a"', "then")
    assert finish(fleet, again)["status"] == "unchanged"
    assert calendar(fleet)["periods"] == 1
    # What repeats for ever is read some years ahead, so at times it is read anew.
    (late,) = claim(fleet, datetime.now(tz=UTC) + 40 * DAY)
    assert (late["tag"], late["modified"]) == (None, None)


def test_a_look_that_brings_nothing_leaves_everything_as_it_was(fleet: Fleet) -> None:
    subscribe(fleet)
    (job,) = claim(fleet)
    finish(fleet, job, periods=[XMAS])
    now, pauses = datetime.now(tz=UTC), []
    for _ in range(10):
        now += 2 * DAY
        (job,) = claim(fleet, now)
        finish(fleet, job, "the address answered 503")
        row = calendar(fleet)
        assert (row["periods"], row["look_error"]) == (1, "the address answered 503")
        pauses.append(row["look_next_at"] - row["looked_at"])
    assert pauses[0] == timedelta(minutes=15)
    assert pauses == sorted(pauses)
    assert pauses[-1] == DAY
    (job,) = claim(fleet, now + 2 * DAY)
    many = [{"starts_on": "2040-01-01"}] * 2001
    assert finish(fleet, job, periods=many)["status"] == "failed"
    assert "periods: has 2001 entries" in calendar(fleet)["look_error"]
    assert calendar(fleet)["periods"] == 1


def test_a_look_that_is_overtaken_counts_for_nothing(fleet: Fleet) -> None:
    subscribe(fleet)
    (slow,) = claim(fleet)
    (fast,) = claim(fleet, datetime.now(tz=UTC) + timedelta(minutes=4))
    assert finish(fleet, slow, periods=[XMAS]) == {"accepted": False, "reason": "stale_attempt"}
    assert finish(fleet, fast, periods=[])["status"] == "changed"
    (job,) = claim(fleet, datetime.now(tz=UTC) + 2 * DAY)
    subscribe(fleet, "https://example.com/other.ics")
    assert finish(fleet, job, periods=[XMAS])["accepted"] is False


def test_what_is_the_same_is_not_written_again(fleet: Fleet) -> None:
    subscribe(fleet)
    (job,) = claim(fleet)
    finish(fleet, job, periods=[XMAS])
    ids = fleet.rows("select id from blackout_periods where owner_id = %s", fleet.owner_id)
    (job,) = claim(fleet, datetime.now(tz=UTC) + 2 * DAY)
    finish(fleet, job, periods=[XMAS])
    same = fleet.rows("select id from blackout_periods where owner_id = %s", fleet.owner_id)
    assert same == ids


def test_who_fills_or_leaves_a_calendar_ends_the_subscription(fleet: Fleet) -> None:
    made = subscribe(fleet, "webcal://example.com/x.ics", None)
    assert (made["name"], made["url"]) == ("example.com", "https://example.com/x.ics")
    (job,) = claim(fleet)
    finish(fleet, job, periods=[XMAS])
    with fleet.acting(fleet.owner_id):
        left = fleet.value("select unsubscribe_blackouts(%s)", made["id"])
    assert (left["url"], left["look_next_at"], calendar(fleet)["periods"]) == (None, None, 1)
    subscribe(fleet, name="example.com")
    fleet.value("select import_blackouts('example.com', '[]', null, %s)", fleet.owner_id)
    assert calendar(fleet)["url"] is None
    assert claim(fleet, datetime.now(tz=UTC) + 2 * DAY) == []


@pytest.mark.parametrize(
    ("url", "timezone", "words"),
    [
        ("http://example.com/x.ics", None, "url: must begin with https://"),
        ("https://10.0.0.1/x.ics", None, "url: is a private address"),
        ("https://me:secret@example.com/x.ics", None, "url: is not an address"),
        ("ftp://example.com", None, "url: is not an address"),
        ("https://printer.local/x.ics", None, "url: is a name of a private network"),
        (URL, "Mars/Olympus", 'timezone: "Mars/Olympus" is not a known time zone'),
    ],
)
def test_where_nothing_can_come_from_is_refused(
    fleet: Fleet, url: str, timezone: str | None, words: str
) -> None:
    with fleet.refused("PT422", "calendar_invalid", words):
        subscribe(fleet, url, timezone=timezone)


def test_a_subscription_goes_into_a_document_and_back(fleet: Fleet) -> None:
    subscribe(fleet, timezone="Europe/Berlin")
    (job,) = claim(fleet)
    finish(fleet, job, periods=[XMAS])
    with fleet.acting(fleet.owner_id):
        made = fleet.value("select export_schedules()")
        assert made["blackout_calendars"] == [
            {"name": "Holidays", "url": URL, "timezone": "Europe/Berlin"}
        ]
        assert fleet.value("select apply_document(%s)", Jsonb(made))["unchanged"] == 1
    other = Fleet(fleet.conn)
    with other.acting(other.owner_id):
        answer = other.value("select apply_document(%s)", Jsonb(made))
    assert [row["name"] for row in answer["create"]] == ["Holidays"]
    assert calendar(other)["url"] == URL
    assert len(claim(other)) == 1


def test_the_tick_pokes_where_a_calendar_is_due(fleet: Fleet) -> None:
    now = datetime.now(tz=UTC)
    assert fleet.value("select fleet.poke_calendars(%s)", now) is False
    subscribe(fleet)
    assert fleet.value("select fleet.poke_calendars(%s)", now + timedelta(seconds=5)) is True
    claim(fleet)
    assert fleet.value("select fleet.poke_calendars(%s)", now + timedelta(seconds=10)) is False
