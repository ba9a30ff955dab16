"""What people hand over as JSON, as a file or on stdin; JSON with every digit of its numbers."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pgfleet import output
from pgfleet.errors import InvalidInput, MissingExtra

_JSON_KINDS: dict[type, str] = {
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_AMOUNT = re.compile(r"\b(ago|in|from)\b")
_CLOCK_AMOUNT = re.compile(r"(in )?\d+ ?(s|sec|seconds?|m|min|minutes?|h|hours?)( ago| from now)?")
# A day with an offset is an instant, too.
_MIDNIGHT = re.compile(r"^(\d{4}-\d\d-\d\d)(Z|[+-]\d\d(?::?\d\d)?)$")
_HAS_TIME = 16 | 32 | 64 | 128 | 256


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Read a JSON object from an option: the text itself, `@file`, or `-` for stdin."""
    value = json_text(text, option)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(
            f"{option}: must be a JSON object, and is {_JSON_KINDS[type(value)]}",
            reason="json_invalid",
            hint=f'Example: {option} \'{{"key": "value"}}\'',
        )
    return value


def json_text(text: str | None, option: str) -> Any:
    """Read any JSON from an option: the text itself, `@file`, or `-` for stdin."""
    if text is None:
        return None
    source = read_source(text, option) if text == "-" or text.startswith("@") else text
    try:
        return read_json(source)
    except ValueError as error:
        raise InvalidInput(
            f"{option}: is not JSON{_where(error)}",
            reason="json_invalid",
            hint=f'Quote it for the shell: {option} \'{{"key": "value"}}\', or name a file: @FILE',
        ) from error


def _where(error: ValueError) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return ""
    if error.pos >= len(error.doc.rstrip()):
        return ": it ends too early"
    return f": line {error.lineno}, at {error.doc[error.pos : error.pos + 10]!r}"


def read_source(name: str, option: str) -> str:
    """Read a file that was named `@file` or `file`, or all of stdin for `-`."""
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name.removeprefix("@")).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        # Of an OSError the person needs the reason, not its number.
        why = (
            (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8 text"
        )
        raise InvalidInput(
            f"{option}: cannot read {name.removeprefix('@')}: {why}",
            reason="file_unreadable",
            hint="Name a FILE that is there, or - for what is typed or piped in",
        ) from error


def moment(text: str | None, option: str, *, zone: str | None = None) -> str | None:
    """Read a time as people say it, in this machine's zone unless another is named.

    What is written as a date or an instant is passed on as it is: without an offset the database
    knows in which zone it is meant.
    """
    if text is None:
        return None
    text = _MIDNIGHT.sub(r"\1T00:00\2", text.strip())
    if _is_exact(text):
        return text
    found = _said(text, datetime.now(_zone(zone)).replace(microsecond=0))
    if found is None:
        raise InvalidInput(
            f'{option}: "{text}" is not a time',
            reason="time_invalid",
            hint='Write it like 2026-03-29T02:30, 2026-03-29T00:30Z, "tomorrow 9:00" or '
            '"in 2 hours"',
        )
    is_local = zone == "device"
    named = found.replace(tzinfo=None) if is_local else found
    whose = "on the wall of each device" if is_local else output.when(found)
    output.say(f'{option}: "{text}" is {named:%Y-%m-%d %H:%M}, {whose}')
    return named.isoformat()


def _is_exact(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _said(text: str, now: datetime) -> datetime | None:
    """Understand all of what was said, or nothing of it."""
    try:
        import parsedatetime  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingExtra("admin", "A time in words") from error

    words = " ".join(text.split())
    if words.lower() == "now":
        return now
    if _CLOCK_AMOUNT.fullmatch(words.lower()):
        # An hour is an hour, also where the clocks are changed meanwhile.
        here, now = now.tzinfo, now.astimezone(UTC)
    else:
        here = now.tzinfo
    calendar = parsedatetime.Calendar(version=parsedatetime.VERSION_CONTEXT_STYLE)
    parts = calendar.nlp(words, sourceTime=now.timetuple())
    # A part that it does not know it passes over in silence.
    if not parts or len(parts) != 1 or parts[0][2:4] != (0, len(words)):
        return None
    at, context = calendar.parseDT(words, sourceTime=now.timetuple())
    if not context.accuracy:
        return None
    if not context.accuracy & _HAS_TIME and not _AMOUNT.search(words.lower()):
        at = at.replace(hour=0, minute=0, second=0)
    found: datetime = at
    if now.tzinfo is not here:
        return found.replace(tzinfo=UTC).astimezone(here)
    # The zone's own rules at that time, and not those of now.
    return found.replace(tzinfo=here) if here is not None else found.astimezone()


def _zone(name: str | None) -> ZoneInfo | None:
    """Give a zone that was named; one that does not exist the database will refuse."""
    if name is None or name == "device":
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return None


def read_bytes(name: str, option: str) -> bytes:
    """Read a file, or all of stdin for `-`, in whatever code it is written."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name.removeprefix("@")).expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{option}: cannot read {name.removeprefix('@')}: {error}", reason="file_unreadable"
        ) from error


def read_json(text: str) -> Any:
    """Read JSON with every digit of its numbers."""
    return json.loads(
        text, parse_float=decimal, parse_int=integer, parse_constant=_refuse,
        object_pairs_hook=_object,
    )  # fmt: skip


def to_json(value: Any, *, indent: int | None = None, depth: int = 0) -> str:
    """Write JSON with every digit of its numbers."""
    if isinstance(value, dict):
        items: Iterable[str] = (
            f"{to_json(key)}: {to_json(item, indent=indent, depth=depth + 1)}"
            for key, item in value.items()
        )
        opening, closing = "{}"
    elif isinstance(value, list):
        items = (to_json(item, indent=indent, depth=depth + 1) for item in value)
        opening, closing = "[]"
    elif isinstance(value, Decimal):
        return number_text(value)
    else:
        return json.dumps(value, ensure_ascii=False)
    if not value:
        return opening + closing
    if indent is None:
        return f"{opening}{', '.join(items)}{closing}"
    margin = " " * indent * depth
    inner = f"\n{margin}{' ' * indent}"
    return f"{opening}{inner}{f',{inner}'.join(items)}\n{margin}{closing}"


def decimal(text: str) -> Decimal:
    """Read a number with every digit; raises ValueError where nobody could hold it."""
    found = Decimal(text)
    # More than the database can hold, and enough to fill a memory.
    if found.is_finite() and abs(found.adjusted()) > 1000:
        raise ValueError(f"the number {text[:40]} is out of bounds")
    return found


def integer(text: str) -> int | Decimal:
    """Read a whole number."""
    return int(text) if len(text) < 1000 else decimal(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def number_text(value: Decimal) -> str:
    """Write a number with every digit."""
    text = str(value)
    return text if math.isfinite(value) else "null"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'the key "{key}" stands twice in one object')
        found[key] = value
    return found
