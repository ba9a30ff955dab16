"""Owners take turns at calendar feeds: whoever reads many at once keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import psycopg
import pytest
from tests.functions.insight.test_calendar_feed import make_feed, make_schedule

from pgfleet_functions.errors import TooMany, Unavailable
from pgfleet_functions.insight.turns import Turns


async def holding(turns: Turns, owner: str, over: asyncio.Event, log: list[str]) -> None:
    async with turns.turn(owner):
        log.append(owner)
        await over.wait()


def test_one_owner_holds_its_share_and_others_pass() -> None:
    async def play() -> tuple[list[str], list[str]]:
        turns, over, log = Turns(total=3, each=1), asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(holding(turns, "a", over, log)) for _ in range(6)]
        tasks += [asyncio.create_task(holding(turns, one, over, log)) for one in "bcd"]
        await asyncio.sleep(0.01)
        held = list(log)
        over.set()
        await asyncio.gather(*tasks)
        return held, log

    held, log = asyncio.run(play())
    assert sorted(held) == ["a", "b", "c"]
    assert sorted(log) == ["a"] * 6 + ["b", "c", "d"]


def test_a_crowd_is_refused_and_who_waits_too_long_is_told() -> None:
    async def play() -> list[type[BaseException] | None]:
        turns, over, log = Turns(each=1, crowd=2, patience=0.05), asyncio.Event(), list[str]()
        tasks = [asyncio.create_task(holding(turns, "a", over, log)) for _ in range(1)]
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(holding(turns, "a", over, log)) for _ in range(3)]
        ended = await asyncio.gather(*tasks[1:], return_exceptions=True)
        over.set()
        await tasks[0]
        return [type(one) if isinstance(one, BaseException) else None for one in ended]

    assert asyncio.run(play()) == [Unavailable, Unavailable, TooMany]


@pytest.mark.timeout(600)
def test_feeds_that_hang_leave_connections_for_everybody_else(site: Any) -> None:
    hostile, good = site.owner(), site.owner()
    for owner in (hostile, good):
        make_schedule(site, owner, "Lock")
    feeds = [make_feed(site, hostile) for _ in range(12)]
    mine = make_feed(site, good)
    with psycopg.connect(site.database.url()) as held:
        # As feeds that take long: each of them waits for a row that somebody has.
        held.execute("select from calendar_feeds where owner_id = %s for update", (hostile,))
        crowd = [
            threading.Thread(
                target=httpx.get, args=(f"{site.url}{feed['path']}",), kwargs={"timeout": 40}
            )
            for feed in feeds
        ]
        for one in crowd:
            one.start()
        waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        end = time.monotonic() + 10
        while not site.value(waits):
            assert time.monotonic() < end
            time.sleep(0.05)
        begun = time.monotonic()
        assert httpx.get(f"{site.url}{mine['path']}", timeout=10).status_code == 200
        wrong = httpx.post(f"{site.url}/device-token", json={"device_secret": "x"}, timeout=10)
        assert wrong.status_code == 401
        assert time.monotonic() - begun < 2.5
        assert site.value(waits) == 1
        held.rollback()
    for one in crowd:
        one.join(30)
