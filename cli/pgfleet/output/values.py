"""One value as text: for a person, for JSON, for a table with its sign and colour."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from pgfleet.output import safe, times

# A sign reads without colour, and the word is always beside it.
_STATES = {
    **dict.fromkeys(("completed", "delivered", "installed", "uploaded"), ("✓", "green")),
    **dict.fromkeys(("active", "good", "ok", "enabled"), ("●", "green")),
    **dict.fromkeys(("running", "installing", "removing"), ("▸", "cyan")),
    **dict.fromkeys(("pending", "waiting", "scheduled", "ending"), ("○", "yellow")),
    **dict.fromkeys(("paused",), ("‖", "yellow")),
    **dict.fromkeys(("skipped", "skip"), ("-", "yellow")),
    **dict.fromkeys(("failed", "expired", "error", "refused"), ("✗", "red")),
    **dict.fromkeys(
        ("cancelled", "retired", "deleted", "ended", "revoked", "used up", "removed"), ("⊘", "dim")
    ),
}
_WITH_STATES = ("status", "state")
# Where a terminal cannot show the signs.
_PLAIN_SIGNS = {"✓": "+", "●": "*", "▸": ">", "○": ".", "‖": "=", "✗": "x", "⊘": "/"}


def as_text(value: Any) -> str:
    """Write one value for a person: times in the local zone, JSON in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return times.written(value)
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict | list):
        return as_json(value)
    return str(value)


def in_table(name: str, value: Any) -> tuple[str, str]:
    """Give a cell and its style: near times relative, a state with its sign."""
    at = times.parsed(value)
    if at is not None:
        return times.short(at), ""
    state = _state(name, value)
    if state is not None:
        return state
    if isinstance(value, dict):
        # What things are is told by --json; here it is told that they are.
        are_things = any(isinstance(item, dict) for item in value.values())
        return safe.one_line(", ".join(value) if are_things else _inner(value)), ""
    return safe.one_line(as_text(value)), ""


def in_card(name: str, value: Any) -> tuple[list[str], str]:
    """Give the lines of a value that stands for itself, and their style."""
    at = times.parsed(value)
    if at is not None:
        return [times.full(at)], ""
    state = _state(name, value)
    if state is not None:
        return [state[0]], state[1]
    if isinstance(value, dict) and value:
        return [safe.one_line(f"{key}: {_inner(item)}") for key, item in _known(value)], ""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [safe.one_line(_inner(item)) for item in value], ""
    return [safe.visible(line) for line in as_text(value).splitlines()] or [""], ""


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Write JSON that is safe on a terminal and the same for a program."""
    return safe.json_text(json.dumps(value, default=plain, indent=indent, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Give what JSON has no word for as text or as a number."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return times.in_json(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def in_csv(value: Any) -> Any:
    """Give a cell for a spreadsheet, in which text stays text."""
    if isinstance(value, dict | list):
        return safe.csv_cell(as_json(value))
    if isinstance(value, str):
        return safe.csv_cell(value)
    return "" if value is None else plain(value)


def sign(state: str) -> str:
    """Give the sign of a state, in what this terminal can show."""
    found = _STATES.get(state, ("", ""))[0]
    return found if _shows(found) else _PLAIN_SIGNS.get(found, found)


def is_text(values: Sequence[Any]) -> bool:
    """Tell whether a column holds text that may be shortened, and no numbers, times or states."""
    return any(isinstance(v, str | list | dict) and times.parsed(v) is None for v in values)


def is_number(values: Sequence[Any]) -> bool:
    """Tell whether a column holds numbers only."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in known
    )


def _state(name: str, value: Any) -> tuple[str, str] | None:
    if name not in _WITH_STATES or not isinstance(value, str) or value not in _STATES:
        return None
    return f"{sign(value)} {value}", _STATES[value][1]


def _known(found: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, item) for key, item in found.items() if item is not None]


def _shows(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _inner(value: Any) -> str:
    at = times.parsed(value)
    if at is not None:
        return times.short(at)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_inner(item)}" for key, item in _known(value))
    return as_text(value)
