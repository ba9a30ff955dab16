"""What the function calendar-dispatch does: looks at calendars elsewhere that are due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
from psycopg.types.json import Jsonb

from pgfleet_functions.calendars.ics import CalendarUnreadable, Reading, read_calendar
from pgfleet_functions.database import Pool, fetch_value, finish, storable
from pgfleet_functions.dispatching import Claim, Dispatcher, Ended, Piece
from pgfleet_functions.outgoing.answers import Answer
from pgfleet_functions.outgoing.errors import OutgoingError, TooSlow
from pgfleet_functions.outgoing.transport import Limits, Outgoing
from pgfleet_functions.shares import Bounds

log = logging.getLogger(__name__)

CALENDARS = Bounds(total=8, owner=1, way=1)
LIMITS = Limits(seconds=30.0, body_bytes=4 * 1024 * 1024)
MOST_REDIRECTS = 3

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_calendars(%s) as c"
_FINISH = "select fleet.worker_finish_calendar(%s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A calendar elsewhere, as it was claimed."""

    calendar_id: int
    attempt: int
    url: str
    timezone: str | None
    skip_transparent: bool
    allow_private: bool
    # Of what was read last: whoever has nothing newer says so (304).
    tag: str | None
    modified: str | None


class LookFailed(Exception):
    """A look brought nothing that can be used; the message says why."""


def dispatchers(pool: Pool, outgoing: Outgoing) -> Sequence[Dispatcher]:
    """Return what looks at calendars."""
    return [Dispatcher("calendars", partial(_claim, pool, outgoing), CALENDARS)]


async def _claim(pool: Pool, outgoing: Outgoing, shares: Mapping[str, Any]) -> Claim:
    rows = await fetch_value(pool, _CLAIM, Jsonb(shares))

    def piece(row: dict[str, Any]) -> Piece:
        owner = row.pop("owner_id")
        subscription = Subscription(**row)
        work = partial(_look, pool, outgoing, subscription)
        return Piece(owner, subscription.calendar_id, work)

    return Claim([piece(row) for row in rows], wait=0 if rows else None)


async def _look(pool: Pool, outgoing: Outgoing, subscription: Subscription) -> Ended:
    """Look at one calendar and write down what that brought."""
    found: dict[str, Any] = {}
    error, is_slow = None, False
    try:
        found = await look_at(outgoing, subscription)
    except (LookFailed, CalendarUnreadable) as failure:
        error = str(failure)
    except OutgoingError as failure:
        error, is_slow = failure.message, isinstance(failure, TooSlow)
    except Exception as failure:
        # One calendar that trips us up must not stop the others.
        log.exception("calendar %s failed", subscription.calendar_id)
        error = f"the function failed: {type(failure).__name__}"
    answer = await finish(
        pool, _FINISH, subscription.calendar_id, subscription.attempt,
        Jsonb(storable(found)), storable(error),
    )  # fmt: skip
    return Ended({str(answer.get("status") or answer.get("reason")): 1}, is_slow)


async def look_at(outgoing: Outgoing, subscription: Subscription) -> dict[str, Any]:
    """Fetch a calendar and read it; an empty answer says that nothing has changed.

    Raises LookFailed, CalendarUnreadable and OutgoingError.
    """
    answer = await _fetched(outgoing, subscription)
    if answer.status == 304:
        return {}
    if not answer.is_success:
        raise LookFailed(f"the address answered {answer.status}")
    reading = await asyncio.to_thread(
        read_calendar,
        answer.body,
        timezone=subscription.timezone,
        today=datetime.now(tz=UTC).date(),
        skip_transparent=subscription.skip_transparent,
    )
    return {
        "periods": reading.periods,
        "note": note_of(reading),
        "tag": answer.headers.get("etag"),
        "modified": answer.headers.get("last-modified"),
    }


async def _fetched(outgoing: Outgoing, subscription: Subscription) -> Answer:
    headers = {"Accept": "text/calendar, */*;q=0.5"}
    if subscription.tag:
        headers["If-None-Match"] = subscription.tag
    if subscription.modified:
        headers["If-Modified-Since"] = subscription.modified
    try:
        url = httpx.URL(subscription.url)
        for _ in range(MOST_REDIRECTS + 1):
            request = httpx.Request("GET", url, headers=headers)
            answer = await outgoing.call(request, LIMITS, allow_private=subscription.allow_private)
            place = answer.headers.get("location")
            if answer.status not in (301, 302, 303, 307, 308) or not place:
                return answer
            # Each step is looked at as the first was.
            url = url.join(place)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise LookFailed(f"the address cannot be used: {error}") from error
    raise LookFailed(f"the address redirects more than {MOST_REDIRECTS} times")


def note_of(reading: Reading) -> str | None:
    """Say what was left out; None where nothing was."""
    parts = []
    if reading.cancelled:
        parts.append(f"{reading.cancelled} cancelled")
    if reading.transparent:
        parts.append(f"{reading.transparent} that leave people free")
    parts += [f'"{one.event}": {one.problem}' for one in reading.left_out[:5]]
    if len(reading.left_out) > 5:
        parts.append(f"{len(reading.left_out) - 5} more that cannot be read")
    return f"left out: {'; '.join(parts)}" if parts else None
