"""The audit log: who changed what, from what to what."""

from __future__ import annotations

from datetime import UTC, datetime

from pgfleet.statements import contains, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Look, Page, Shown, View
from pgfleet_console.pages.schedules.one import changed_keys
from pgfleet_console.words import age, read_words

FIELDS = ("table", "row", "who", "action", "since")


async def show(look: Look) -> Shown:
    """List changes, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    found = words.fields
    listed = await newest(
        look,
        "audit_list",
        {
            "id": words.id,
            "table_name": found.get("table"),
            "row_id": found.get("row"),
            "who": contains(found.get("who") or (None if words.id else words.name)),
            "action": found.get("action"),
            "at": since(age(found.get("since"), datetime.now(UTC))),
        },
    )
    for row in listed.rows:
        row["changed"] = changed_keys(row)
    return Shown("audit.html", {"listed": listed, "words": words.text, "fields": FIELDS})


PAGE = Page("Audit", "/audit", "a", views=(View("/audit", show, live=True),))
