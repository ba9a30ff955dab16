"""The search of the whole fleet: by a name, or by the number of anything."""

from __future__ import annotations

from typing import Any

from pgfleet.statements import Name, Row, contains
from pgfleet_console.page import Look, Page, Shown, View
from pgfleet_console.words import read_words

MOST = 20

# What is looked for: its name, where, the column of its name, what is shown, and where it leads.
_NAMED: tuple[tuple[str, Name, Name, Name, str], ...] = (
    ("Devices", "devices", "hostname", "status", "/devices/"),
    ("Schedules", "schedules", "name", "status", "/schedules/"),
    ("Groups", "device_groups", "name", "description", "/groups/"),
    ("Integrations", "device_integrations", "name", "status", "/integrations/"),
)
_NUMBERED: tuple[tuple[str, Name, Name, Name, str], ...] = (
    ("Commands", "command_list", "command_type", "status", "/commands/"),
    ("Runs", "run_list", "schedule", "status", "/runs/"),
)


async def show(look: Look) -> Shown:
    """Show what is called so, or has this number."""
    words = read_words(look.query.get("q", ""), ())
    found: list[dict[str, Any]] = []
    for title, view, name, more, path in (*_NAMED, *_NUMBERED):
        is_named = (title, view, name, more, path) in _NAMED
        where = _where(words.id, words.name if is_named else None, name)
        if where is None:
            continue
        rows = await look.db.find(
            view, where, columns=("id", name, more), order=(name, "id"), limit=MOST + 1
        )
        if rows:
            found.append(
                {
                    "title": title,
                    "rows": [_line(row, name, more, path) for row in rows[:MOST]],
                    "is_more": len(rows) > MOST,
                }
            )
    return Shown("search.html", {"found": found, "words": words.text})


def _where(number: int | None, name: str | None, column: Name) -> dict[Name, Any] | None:
    if number is not None:
        return {"id": number}
    return {column: contains(name)} if name else None


def _line(row: Row, name: Name, more: Name, path: str) -> dict[str, Any]:
    return {"name": row[name], "id": row["id"], "more": row[more], "path": f"{path}{row['id']}"}


# It has a field on every page, and so no entry of its own in the navigation.
PAGE = Page("Search", "/search", "", views=(View("/search", show),), is_listed=False)
