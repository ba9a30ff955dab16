"""Tables and cards that fit the window: columns are shortened or left out, words never broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgfleet.output import safe, values, words
from pgfleet.output.streams import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]

_GAP = 2
# Half of it would say nothing.
_WHOLE = ("status", "state", "local_time")
# A column of text is shortened to this before another column is left out for it; what people
# type, to more.
_NARROW, _NARROW_NAME = 14, 24
_NAMES = ("name", "hostname", "device_hostname", "schedule")
_HEADS = {
    "device_hostname": "device",
    "scheduled_for": "due",
    "command_type": "type",
    "action_type": "action",
    "integration_type": "type",
    "recurrence_type": "repeats",
    "next_run_at": "next run",
    "last_executed_at": "last run",
    "scheduled_removal_time": "removal",
    "duration_minutes": "minutes",
    "duration_seconds": "seconds",
    "group_name": "group",
    "table_name": "table",
    "profile_name": "profile",
    "missed_count": "missed",
    "last_error": "error",
    "error_message": "error",
}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    head: str
    cells: list[tuple[str, str]]
    width: int
    floor: int
    is_number: bool


def table(rows: Sequence[Row], columns: Sequence[str], spare: Sequence[str], width: int) -> Table:
    """Draw rows in a window; `spare` columns are the first to go, then those on the right."""
    from rich.table import Table
    from rich.text import Text

    chosen = [_column(name, rows) for name in columns if _says_something(name, rows, spare)]
    fitting, left_out = _fit(chosen, spare, width)
    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, wide in fitting:
        side: Any = "right" if column.is_number else "left"
        drawn.add_column(column.head, width=wide, no_wrap=True, overflow="ellipsis", justify=side)
    for number in range(len(rows)):
        drawn.add_row(*(Text(*column.cells[number]) for column, _ in fitting))
    if left_out:
        names = ", ".join(column.head for column in left_out)
        drawn.caption = Text(f"Not shown: {names}. A wider window or --json has all.", "dim")
        drawn.caption_justify = "left"
    return drawn


def card(row: Row, width: int) -> Iterator[str]:
    """Give the lines of one thing; what is empty of it is left out, what is long is wrapped."""
    named = [(head(name), name, value) for name, value in row.items() if not _is_empty(value)]
    indent = max((len(label) for label, _, _ in named), default=0) + _GAP
    for label, name, value in named:
        lines, style = values.in_card(name, value)
        wrapped = [piece for line in lines for piece in words.wrapped(line, width - indent)]
        for number, line in enumerate(wrapped):
            shown = styled(label, "bold") + " " * (indent - len(label)) if number == 0 else ""
            yield (shown or " " * indent) + (styled(line, style) if style else line)


def head(name: str) -> str:
    """Give the words over a column, or before a value."""
    found = _HEADS.get(name) or name.removesuffix("_at").replace("_", " ").replace(".", " ")
    return safe.one_line(found)


def console(width: int | None = None) -> Console:
    """Give the console on which tables are drawn."""
    from rich.console import Console

    return Console(width=width, highlight=False, markup=False, emoji=False)


def _column(name: str, rows: Sequence[Row]) -> _Column:
    from rich.cells import cell_len

    found = [row[name] for row in rows]
    cells = [values.in_table(name, value) for value in found]
    label = head(name)
    width = max([cell_len(label), *(cell_len(text) for text, _ in cells)])
    may_shrink = values.is_text(found) and name not in _WHOLE
    return _Column(
        name=name,
        head=label,
        cells=cells,
        width=width,
        floor=min(width, max(_NARROW_NAME if name in _NAMES else _NARROW, len(label)))
        if may_shrink
        else width,
        is_number=values.is_number(found) and not name.endswith("id"),
    )


def _says_something(name: str, rows: Sequence[Row], spare: Sequence[str]) -> bool:
    """Leave out a spare column in which there is nothing."""
    return name not in spare or any(not _is_empty(row[name]) for row in rows)


def _fit(
    columns: list[_Column], spare: Sequence[str], width: int
) -> tuple[list[tuple[_Column, int]], list[_Column]]:
    kept, left_out = list(columns), []
    if _needs(kept) > width:
        kept = [c for c in kept if any(text for text, _ in c.cells)]
    while len(kept) > 1 and _needs(kept) > width:
        goes = next((c for name in spare for c in kept if c.name == name), kept[-1])
        kept.remove(goes)
        left_out.append(goes)
    return list(zip(kept, _widths(kept, width), strict=True)), left_out


def _needs(columns: Sequence[_Column]) -> int:
    return sum(column.floor + _GAP for column in columns) - _GAP


def _widths(columns: Sequence[_Column], width: int) -> list[int]:
    """Take what is too much from the widest, so that short ones stay whole."""
    wide = [column.width for column in columns]
    room = width - _GAP * (len(columns) - 1)
    while (excess := sum(wide) - room) > 0:
        able = [n for n, column in enumerate(columns) if wide[n] > column.floor]
        if not able:
            wide[0] = max(1, wide[0] - excess)
            break
        widest = max(able, key=lambda n: wide[n])
        next_widest = max((wide[n] for n in able if wide[n] < wide[widest]), default=0)
        wide[widest] -= max(1, min(excess, wide[widest] - max(next_widest, columns[widest].floor)))
    return wide


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == [] or value == {}
