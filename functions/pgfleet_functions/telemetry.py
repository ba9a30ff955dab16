"""Telemetry points on their way into the database: written canonically, copied in, stored once."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from hashlib import md5
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from pgfleet_functions.database import Pool, storable
from pgfleet_functions.errors import translate_errors

# Of the data of one point, written as text.
MOST_CHARACTERS = 32_000
MOST_LEVELS = 100
# What its cloud keeps of a device is one series.
CLOUD_STREAM = "/"

_COPY = """
copy telemetry.staging
  (batch, device_id, stream, at, digest, owner_id, source, is_provisional, path, data)
from stdin
"""
ROWS_AT_ONCE = 1000
_EXPONENT = re.compile(r"\de[+-](\d{1,3})")
_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_STORE = "select telemetry.worker_store(%s, %s)"

# What else is written with a batch, given what came of it; in the same transaction where
# telemetry is in the same database, and after it where it is not.
Then = Callable[[AsyncConnection[Any], dict[str, Any]], Awaitable[None]]


class UnfitData(ValueError):
    """The data of a point cannot be stored; the message says why."""


class Point(NamedTuple):
    """One point of one device; `text` is its data as it is stored."""

    device_id: int
    at: datetime
    digest: str
    text: str
    # Pushed without a time: `at` is when it came.
    is_provisional: bool = False
    path: str | None = None


def canonical(data: Any) -> str:
    """Write data so that the same data always gives the same text, whichever way it came.

    Raises `UnfitData`.
    """
    text = written(data)
    # As it is stored, 1e300 has three hundred digits.
    size = len(text)
    if "e" in text:
        size += sum(min(int(one), 400) for one in _EXPONENT.findall(text))
    if size > MOST_CHARACTERS:
        raise UnfitData(f"it has {size} characters, at most {MOST_CHARACTERS} are stored")
    return text


def written(data: Any) -> str:
    """Write data as `canonical` does, however long. Raises `UnfitData`."""
    try:
        try:
            text = _text(_same_numbers(data))
            text.encode()
            if "\\u0000" not in text:
                return text
        except ValueError:
            pass
        # No number, half a character or a zero byte.
        return _text(_same_numbers(storable(data)))
    except RecursionError as error:
        raise UnfitData("it is too deeply nested") from error


def digest_of(text: str) -> str:
    """Give the digest of canonical data, as the database takes it."""
    return md5(text.encode(), usedforsecurity=False).hexdigest()


# Made once: `json.dumps` makes another one for each point.
_text = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


_AS_THEY_ARE = frozenset({int, str, bool, type(None)})


def _same_numbers(data: Any, levels: int = MOST_LEVELS) -> Any:
    """Write 20.0 as 20: what goes through another system's JSON may come out as either."""
    # By their types, which is quicker; what JSON gives has no others.
    kind = type(data)
    if kind is float:
        return int(data) if data.is_integer() and abs(data) < 2**53 else data
    if kind is dict or kind is list:
        if not levels:
            raise UnfitData("it is too deeply nested")
        if kind is dict:
            return {
                name: value if type(value) in _AS_THEY_ARE else _same_numbers(value, levels - 1)
                for name, value in data.items()
            }
        return [_same_numbers(value, levels - 1) for value in data]
    return data


class Telemetry:
    """Stores points where they belong: in the core database, or in one of their own."""

    def __init__(self, core: Pool, own: Pool | None = None) -> None:
        self._core = core
        self._own = own

    async def store(
        self,
        points: Sequence[Point],
        *,
        owner_id: str,
        source: str,
        keep_days: int,
        then: Then,
    ) -> dict[str, Any]:
        """Store what is not there yet and then do the rest. Raises `FunctionError`.

        {given, stored, known, outside, replaced, latest}: see telemetry.worker_store.
        """
        with translate_errors():
            if self._own is not None:
                async with self._own.connection() as own, own.transaction():
                    result = await _carry(own, points, owner_id, source, keep_days)
                async with self._core.connection() as core, core.transaction():
                    await then(core, result)
                return result
            async with self._core.connection() as core, core.transaction():
                result = await _carry(core, points, owner_id, source, keep_days)
                await then(core, result)
        return result

    async def tend(self, keep_days: int) -> None:
        """Do what the jobs of the core do, where points are in a database of their own."""
        if self._own is None:
            return
        with translate_errors():
            async with self._own.connection() as own:
                await own.execute("select telemetry.worker_roll_up()")
                await own.execute("select telemetry.worker_tend(%s)", (keep_days,))


def _line(point: Point, batch: UUID, owner_id: str, source: str) -> str:
    """Write a point as COPY takes it: quicker than value by value, for there are many."""
    path = "\\N" if point.path is None else point.path.translate(_ESCAPED)
    # In JSON, what would end a field or a line is escaped already.
    data = point.text.replace("\\", "\\\\")
    return (
        f"{batch}\t{point.device_id}\t{CLOUD_STREAM}\t{point.at.isoformat()}\t{point.digest}\t"
        f"{owner_id}\t{source}\t{point.is_provisional}\t{path}\t{data}\n"
    )


async def _carry(
    connection: AsyncConnection[Any],
    points: Sequence[Point],
    owner_id: str,
    source: str,
    keep_days: int,
) -> dict[str, Any]:
    if not points:
        return {"given": 0, "stored": 0, "known": 0, "outside": 0, "replaced": 0, "latest": []}
    batch = uuid4()
    async with connection.cursor() as cursor:
        async with cursor.copy(_COPY) as copy:
            for first in range(0, len(points), ROWS_AT_ONCE):
                some = points[first : first + ROWS_AT_ONCE]
                await copy.write("".join([_line(one, batch, owner_id, source) for one in some]))
        await cursor.execute(_STORE, (batch, keep_days))
        row = await cursor.fetchone()
    assert row is not None
    result: dict[str, Any] = row[0]
    return result
