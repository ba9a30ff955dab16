"""Groups: listed or selected, with how many devices each has at this moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pgfleet.errors import FleetError, InvalidInput
from pgfleet.statements import Row, contains, holding, same
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Part, Shown, View
from pgfleet_console.words import read_words

FIELDS = ("kind",)
MEMBERS_SHOWN = 100
EXAMPLE = '{"tags": ["lab"], "platform": ["linux"]}'


async def show_all(look: Look) -> Shown:
    """List groups, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    name = None if words.id is not None else contains(words.name)
    where = {"id": words.id, "name": name, "kind": words.fields.get("kind")}
    listed = await newest(look, "group_list", where)
    return Shown("groups.html", {"listed": listed, "words": words.text, "fields": FIELDS})


async def show_one(look: Look) -> Shown:
    """Show a group with its devices and its schedules."""
    number = look.number("id")
    group = await look.db.one("group_list", "group", number)
    members = await look.db.call(
        "group_devices", "id", "hostname", "platform", "last_seen", p_group_id=number
    )
    return Shown(
        "group.html",
        {
            "group": group,
            "members": members[:MEMBERS_SHOWN],
            "schedules": await look.db.find(
                "schedules",
                {"group_ids": holding([number])},  # type: ignore[list-item]
                columns=("id", "name", "status", "next_run_at"),
                order=("name", "id"),
                limit=100,
            ),
        },
    )


async def show_new(look: Look) -> Shown:
    """Show the form of a group that is to be made."""
    return await _form(look, {"selector": look.query.get("selector", EXAMPLE)})


async def count(look: Look) -> Part:
    """Count whom a selector finds, while it is being written."""
    try:
        found = await _selected(look, _selector(look.form))
        return Part("group_count.html", found)
    except FleetError as error:
        return Part("refusal.html", {"error": error})


async def make(look: Look) -> Gone:
    """Make a group."""
    name = look.form.get("name", "").strip()
    if await look.db.find("device_groups", {"name": same(name), **_owner(look.form)}, limit=1):
        raise InvalidInput(
            f'there is a group "{name}" already',
            reason="name_taken",
            hint="Give it another name.",
        )
    asked = {
        "name": name,
        "description": look.form.get("description", "").strip(),
        "selector": _selector(look.form),
    }
    await look.db.value(
        "apply_document",
        p_document=look.db.json({"version": 1, "groups": [asked]}),
        p_owner_id=_owner(look.form).get("owner_id"),
    )
    made = await look.db.find(
        "device_groups", {"name": name, **_owner(look.form)}, columns=("id",), order=("-id",)
    )
    return Gone(f"/groups/{made[0]['id']}", "Made.")


async def show_refused(look: Look, error: FleetError) -> Shown:
    """Show the form as it was sent, with what is wrong with it."""
    return await _form(look, dict(look.form), error)


async def _form(look: Look, fields: dict[str, str], error: FleetError | None = None) -> Shown:
    owners = await look.db.find("owner_list", order=("-is_default", "name"))
    mine = [row for row in owners if await look.db.may("manage", row["id"])]
    values = {"fields": fields, "owners": mine, "error": error}
    return Shown("group_form.html", values, error.status_code if error else 200)


async def _selected(look: Look, selector: Any) -> Row:
    """Ask how many devices a schedule with this selector would reach; it is checked as well."""
    rows = await look.db.call(
        "preview_schedule",
        p_spec=look.db.json(
            {
                "name": "whom it finds",
                "action_type": "lock",
                "recurrence_type": "once",
                "start_time": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
                "selector": selector,
                **_owner(look.form),
            }
        ),
        p_count=1,
    )
    return {"devices": rows[0]["devices"] if rows else 0}


def _selector(form: Mapping[str, str]) -> Any:
    try:
        return json.loads(form.get("selector", "").strip() or "{}")
    except ValueError as error:
        raise InvalidInput(
            "the selector is no JSON", reason="group_invalid", hint=f"Example: {EXAMPLE}"
        ) from error


def _owner(form: Mapping[str, str]) -> dict[Any, Any]:
    return {"owner_id": form["owner_id"]} if form.get("owner_id") else {}


PAGE = Page(
    "Groups",
    "/groups",
    "o",
    views=(
        View("/groups", show_all, live=True),
        View("/groups/new", show_new),
        View("/groups/{id}", show_one, live=True),
    ),
    acts=(
        Act("/groups/new", make, refused=show_refused),
        Act("/groups/new/count", count, tries=True),
    ),
)
