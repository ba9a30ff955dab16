"""Lists that go on: the newest first, a page at a time, by the last id and not by counting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgfleet.statements import Compared, Name, Row
from pgfleet_console.page import Look

ROWS = 100


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of a list, and where the next one is."""

    rows: list[Row]
    more: str | None
    first: str | None


async def newest(
    look: Look,
    view: Name,
    where: Mapping[Name, Any],
    columns: Sequence[Name] = ("*",),
    *,
    key: Name = "id",
    rows: int = ROWS,
) -> Listed:
    """Read a page of a view, from the id on that the address names."""
    before = look.asked_number("before")
    conditions = dict(where)
    if before is not None and conditions.get(key) is None:
        conditions[key] = Compared("< {}", before)
    found = await look.db.find(
        view, conditions, columns=columns, order=(f"-{key}",), limit=rows + 1
    )
    more = look.with_query(before=found[rows - 1][key]) if len(found) > rows else None
    first = look.with_query(before=None) if before is not None else None
    return Listed(found[:rows], more, first)
