"""What the recurrence tests share: clock changes, compiling, and asking many at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.types.json import Jsonb

Json = dict[str, Any]
Question = tuple[Json, str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the clocks of a zone, in Unix seconds and seconds ahead of UTC."""

    zone: str
    at: int
    before: int
    after: int


@pytest.fixture(scope="module")
def steady(database: Any) -> Any:
    """Give one connection for read-only tests of a module, hypothesis among them."""
    with database.connect() as connection:
        connection.execute("set timezone to 'Asia/Kathmandu'")
        yield connection


@pytest.fixture(scope="module")
def zones(steady: psycopg.Connection[Any]) -> list[str]:
    """List every zone that schedules may name."""
    return [name for (name,) in steady.execute("select name from fleet.time_zones order by name")]


@pytest.fixture(scope="session")
def changes_of() -> Callable[[str], list[Change]]:
    """Give a function that finds every change of a zone's clocks from 1970 to 2037 by zoneinfo."""
    known: dict[str, list[Change]] = {}

    def find(zone: str) -> list[Change]:
        if zone not in known:
            known[zone] = _changes(zone)
        return known[zone]

    return find


@pytest.fixture(scope="module")
def compile_one(steady: psycopg.Connection[Any]) -> Callable[..., Json]:
    """Give a function that compiles one recurrence."""

    def run(
        kind: str,
        config: Json,
        zone: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        gap: str = "first_instant",
        fold: str = "first",
    ) -> Json:
        row = steady.execute(
            "select fleet.compile_recurrence(%s, %s, %s, %s, %s, %s, %s)",
            (kind, Jsonb(config), zone, start, end, gap, fold),
        ).fetchone()
        assert row is not None
        compiled: Json = row[0]
        return compiled

    return run


@pytest.fixture(scope="module")
def occurrences(steady: psycopg.Connection[Any]) -> Callable[..., list[datetime]]:
    """Give a function that lists the occurrences of a compiled recurrence in a window."""

    def run(compiled: Json, since: datetime, until: datetime) -> list[datetime]:
        rows = steady.execute(
            "select o from fleet.occurrences(%s, %s, %s) as o", (Jsonb(compiled), since, until)
        )
        return [instant.astimezone(UTC) for (instant,) in rows]

    return run


@pytest.fixture(scope="module")
def next_of_many(
    steady: psycopg.Connection[Any],
) -> Callable[[Sequence[Question]], list[int | None]]:
    """Give a function that asks for many next occurrences in one statement.

    Each question is a compiled recurrence, the zone to read it in and a Unix second; equal
    recurrences are sent once.
    """

    def ask(questions: Sequence[Question]) -> list[int | None]:
        steady.execute("create temp table if not exists plans (id int, plan jsonb)")
        steady.execute(
            "create temp table if not exists asked (n int, id int, zone text, at bigint)"
        )
        steady.execute("truncate plans, asked")
        ids: dict[int, int] = {}
        with steady.cursor() as cursor, cursor.copy("copy plans from stdin") as copy:
            for plan, _, _ in questions:
                if id(plan) not in ids:
                    ids[id(plan)] = len(ids)
                    copy.write_row((ids[id(plan)], Jsonb(plan)))
        with steady.cursor() as cursor, cursor.copy("copy asked from stdin") as copy:
            for n, (plan, zone, at) in enumerate(questions):
                copy.write_row((n, ids[id(plan)], zone, at))
        rows = steady.execute(
            """
            select extract(epoch from fleet.next_occurrence(
              p.plan || jsonb_build_object('timezone', a.zone, 'clock', z.clock),
              to_timestamp(a.at)
            ))::bigint
            from asked as a
            join plans as p using (id)
            join (
              select d.zone, fleet.zone_clock(d.zone) as clock
              from (select distinct zone from asked) as d
            ) as z using (zone)
            order by a.n
            """
        )
        return [instant for (instant,) in rows]

    return ask


def _changes(name: str) -> list[Change]:
    zone = ZoneInfo(name)
    found = []
    end, step = int(datetime(2038, 1, 1, tzinfo=UTC).timestamp()), 5 * 86400
    known, offset = 0, _offset(zone, 0)
    while known < end:
        probe = min(known + step, end)
        if (after := _offset(zone, probe)) != offset:
            low, high = known, probe
            while high - low > 1:
                middle = (low + high) // 2
                if _offset(zone, middle) == offset:
                    low = middle
                else:
                    high = middle
            found.append(Change(name, high, offset, after))
            offset = after
        known = probe
    return found


def _offset(zone: ZoneInfo, epoch: int) -> int:
    moved = datetime.fromtimestamp(epoch, UTC).astimezone(zone).utcoffset()
    assert moved is not None
    return int(moved.total_seconds())
