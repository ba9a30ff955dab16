"""The list of devices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pgfleet.statements import Compared, Name, among, contains, holding, same, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Look, Shown, View
from pgfleet_console.words import Words, age, read_words

FIELDS = ("status", "platform", "tag", "group", "zone", "seen", "silent")
COLUMNS: tuple[Name, ...] = (
    *("id", "owner_id", "owner", "hostname", "status", "platform", "timezone", "tags"),
    *("last_seen", "pending", "clone_seen_at"),
)


def conditions(words: Words, members: Sequence[int] | None, now: datetime) -> dict[Name, Any]:
    """Say what a search of devices means to their list."""
    found = words.fields
    silent = age(found.get("silent"), now, "silent")
    seen = since(age(found.get("seen"), now, "seen"))
    return {
        "id": words.id if words.id is not None else among(members),
        "hostname": None if words.id is not None else contains(words.name),
        "status": found.get("status"),
        "platform": same(found.get("platform")),
        "tags": holding([found["tag"]] if "tag" in found else None),
        "timezone": same(found.get("zone")),
        "last_seen": Compared("< {}", silent) if silent is not None else seen,
    }


async def show_all(look: Look) -> Shown:
    """List devices, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    where = conditions(words, await _members(look, words.fields.get("group")), datetime.now(UTC))
    listed = await newest(look, "device_list", where, COLUMNS)
    return Shown(
        "devices.html",
        {
            "listed": listed,
            "words": words.text,
            "fields": FIELDS,
            "is_shared": len({row["owner_id"] for row in listed.rows}) > 1,
        },
    )


async def _members(look: Look, group: str | None) -> list[int] | None:
    if group is None:
        return None
    members: list[int] = []
    for one in await look.db.find("device_groups", {"name": same(group)}, columns=("id",)):
        found = await look.db.call("group_devices", "id", p_group_id=one["id"])
        members += [row["id"] for row in found]
    # The id of nothing, so that an empty group has no devices instead of all.
    return members or [0]


VIEWS = (View("/devices", show_all, live=True),)
