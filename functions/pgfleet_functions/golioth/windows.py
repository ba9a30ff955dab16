"""Cutting the time that is to be read into windows of as many points as are stored at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgfleet_functions.golioth.client import PAGE, Record, StreamPage
from pgfleet_functions.telemetry import Point

# A batch of this size is stored at once; what was read of it is read again after a kill.
MOST_POINTS = 20_000
# Of their texts: points may be large, and whoever says how many there are may be wrong.
MOST_CHARACTERS = 16 * 1024 * 1024
SHORTEST = timedelta(seconds=1)

# Gives a page of what lies between two moments.
Reading = Callable[[datetime, datetime, int], Awaitable[StreamPage]]
# Makes points of the records of a page.
Fitting = Callable[[Iterable[Record]], list[Point]]


@dataclass(frozen=True, slots=True)
class Window:
    """Points between two moments: all up to `end`, or some of more than are kept at once.

    `unread` is how many there are that nobody can read.
    """

    end: datetime
    points: list[Point]
    unread: int = 0


async def windows(
    read: Reading, fit: Fitting, start: datetime, end: datetime
) -> AsyncIterator[Window]:
    """Read from start to end; the end of each window stands still, so that no page moves."""
    at, span = start, end - start
    while at < end:
        to = min(at + span, end)
        first = await read(at, to, 0)
        if first.total > MOST_POINTS and to - at > SHORTEST:
            span = max((to - at) * (0.8 * MOST_POINTS / first.total), SHORTEST)
            continue
        found, total, page = first, first.total, 0
        points: list[Point] = []
        unread = size = 0
        while found.points or found.unread:
            fitting = fit(found.points)
            points.extend(fitting)
            size += sum(len(one.text) for one in fitting)
            unread += found.unread
            page += 1
            if page * PAGE >= total:
                break
            if len(points) >= MOST_POINTS or size >= MOST_CHARACTERS:
                # So much is not kept in memory; what is read to is told with the last of it.
                yield Window(at, points, unread)
                points, unread, size = [], 0, 0
            found = await read(at, to, page)
            total = max(total, found.total)
        yield Window(to, points, unread)
        at = to
        if first.total < MOST_POINTS / 4:
            span *= 4
