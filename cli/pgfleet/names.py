"""People write a name or an id; the database wants an id."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, LiteralString

from pgfleet.database import Database
from pgfleet.errors import Conflict, InvalidInput, NotFound

_DEVICE: LiteralString = """
select d.id, d.hostname as name
from public.devices as d
where lower(d.hostname) = lower(%(text)s) or d.id::text = %(text)s
order by (lower(d.hostname) = lower(%(text)s)) desc, d.id
"""

_GROUP: LiteralString = """
select g.id, g.name
from public.device_groups as g
where lower(g.name) = lower(%(text)s) or g.id::text = %(text)s
order by (lower(g.name) = lower(%(text)s)) desc, g.id
"""

_SCHEDULE: LiteralString = """
select s.id, s.name
from public.schedules as s
where lower(s.name) = lower(%(text)s) or s.id::text = %(text)s
order by (lower(s.name) = lower(%(text)s)) desc, s.id
"""

_OWNER: LiteralString = """
select o.id, o.name
from public.owners as o
where lower(o.name) = lower(%(text)s) or o.id::text = lower(%(text)s)
order by (lower(o.name) = lower(%(text)s)) desc, o.id
"""


def device_id(db: Database, text: str) -> int:
    """Find a device by host name, in any case, or by id."""
    return int(_only(db.rows(_DEVICE, {"text": text}), "device", text))


def group_id(db: Database, text: str) -> int:
    """Find a group by name or id."""
    return int(_only(db.rows(_GROUP, {"text": text}), "group", text))


def schedule_id(db: Database, text: str) -> int:
    """Find a schedule by name or id."""
    return int(_only(db.rows(_SCHEDULE, {"text": text}), "schedule", text))


def owner_id(db: Database, text: str | None) -> str | None:
    """Find an owner by name or uuid; none named means the database decides."""
    if text is None:
        return None
    return str(_only(db.rows(_OWNER, {"text": text}), "owner", text))


def device_ids(db: Database, texts: list[str] | None) -> list[int]:
    """Find several devices."""
    return [device_id(db, text) for text in texts or []]


def group_ids(db: Database, texts: list[str] | None) -> list[int]:
    """Find several groups."""
    return [group_id(db, text) for text in texts or []]


def found(rows: list[dict[str, Any]], kind: str, text: object) -> dict[str, Any]:
    """Give the only row, or say that there is none."""
    if not rows:
        raise NotFound(
            f'{kind} "{text}" was not found',
            reason=f"{kind}_not_found",
            hint=f"List what there is with: pgfleet {kind} list",
        )
    return rows[0]


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Read a JSON object from an option: the text itself, `@file`, or `-` for stdin."""
    value = json_text(text, option)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(
            f"{option}: must be a JSON object, not {type(value).__name__}",
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
        return json.loads(source)
    except ValueError as error:
        raise InvalidInput(
            f"{option}: is not JSON: {error}",
            reason="json_invalid",
            hint=f'Quote it for the shell: {option} \'{{"key": "value"}}\', or name a file: @FILE',
        ) from error


def read_source(name: str, option: str) -> str:
    """Read a file that was named `@file` or `file`, or all of stdin for `-`."""
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name.removeprefix("@")).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{option}: cannot read {name.removeprefix('@')}: {error}", reason="file_unreadable"
        ) from error


def _only(rows: list[dict[str, Any]], kind: str, text: str) -> Any:
    """Choose the row that was meant; a name wins over an id, but not over another name."""
    named = [row for row in rows if str(row["name"]).lower() == text.lower()]
    if len(named) > 1:
        raise Conflict(
            f'{kind} "{text}" is ambiguous: ids {", ".join(str(row["id"]) for row in named)}',
            reason=f"{kind}_ambiguous",
            hint="Name the id",
        )
    return found(rows, kind, text)["id"]
