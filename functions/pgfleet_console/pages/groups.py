"""Groups: listed or selected, with how many devices each has at this moment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pgfleet.errors import FleetError, InvalidInput, NotAllowed
from pgfleet.statements import Compared, Row, contains, holding, literal, same
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Part, Shown, View
from pgfleet_console.words import read_words

FIELDS = ("kind",)
MEMBERS_SHOWN = 100
NAMES_AT_ONCE = 500
EXAMPLE = '{"tags": ["lab"], "platform": ["linux"]}'


async def show_all(look: Look) -> Shown:
    """List groups, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    name = None if words.id is not None else contains(words.name)
    where = {"id": words.id, "name": name, "kind": words.fields.get("kind")}
    listed = await newest(look, "group_list", where)
    return Shown(
        "groups.html",
        {
            "listed": listed,
            "words": words.text,
            "fields": FIELDS,
            "may_make": not look.is_again and await look.db.may_begin("manage"),
        },
    )


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
            "may_edit": group["kind"] == "static"
            and await look.db.may("manage", group["owner_id"]),
            "schedules": await look.db.find(
                "schedules",
                {"group_ids": holding([number])},  # type: ignore[list-item]
                columns=("id", "name", "status", "next_run_at"),
                order=("name", "id"),
                limit=100,
            ),
        },
    )


async def count_members(look: Look) -> Part:
    """Say what adding or taking out those that are typed would do, before it is done."""
    group = await look.db.one("group_list", "group", look.number("id"))
    if not look.form.get("devices", "").strip():
        return Part("group_members_count.html", {"added": None})
    try:
        found = await _named(look, group)
    except FleetError as error:
        return Part("refusal.html", {"error": error})
    here = await look.db.call("group_devices", "id", p_group_id=group["id"])
    inside = len({row["id"] for row in here} & set(found))
    schedules = await look.db.find(
        "schedules",
        {"group_ids": holding([group["id"]]), "status": "active"},
        columns=("id",),
        limit=MEMBERS_SHOWN,
    )
    effect = {"added": len(found) - inside, "removed": inside, "schedules": len(schedules)}
    return Part("group_members_count.html", effect)


async def add(look: Look) -> Gone:
    """Add devices to a group that lists its members."""
    group = await look.db.one("group_list", "group", look.number("id"))
    found = await _named(look, group)
    added = await look.db.value("add_to_group", p_group_id=group["id"], p_device_ids=found)
    return Gone(f"/groups/{group['id']}", f"Added {added} of {len(found)}.")


async def remove(look: Look) -> Gone:
    """Take devices out of a group that lists its members."""
    group = await look.db.one("group_list", "group", look.number("id"))
    if not await look.db.may("manage", group["owner_id"]):
        # Row security lets nothing be taken out, and says nothing.
        raise NotAllowed(
            "you may not change this group",
            reason="permission_missing",
            hint="Ask an admin of the fleet for the permission manage.",
        )
    found = await _named(look, group)
    removed = await look.db.value("remove_from_group", p_group_id=group["id"], p_device_ids=found)
    return Gone(f"/groups/{group['id']}", f"Took out {removed} of {len(found)}.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show a group as it is, with why nobody was added or taken out."""
    shown = await show_one(look)
    return Shown(shown.template, {**shown.values, "refusal": error}, error.status_code)


async def _named(look: Look, group: Row) -> list[int]:
    """Give the ids of the devices that are typed; all of them have to be there."""
    typed = re.split(r"[\n,]", look.form.get("devices", ""))
    names = list(dict.fromkeys(name.strip().lower() for name in typed if name.strip()))
    if len(names) > NAMES_AT_ONCE:
        raise InvalidInput(
            f"{len(names)} names are too many at once",
            reason="choice_invalid",
            hint=f"Up to {NAMES_AT_ONCE}; a selector finds any number.",
        )
    rows = await look.db.find(
        "device_list",
        {
            "owner_id": group["owner_id"],
            "hostname": Compared("ilike any ({})", [literal(name) for name in names]),
        },
        columns=("id", "hostname"),
        limit=NAMES_AT_ONCE,
    )
    missing = set(names) - {row["hostname"].lower() for row in rows}
    if missing or not names:
        first = ", ".join(sorted(missing)[:5])
        raise InvalidInput(
            f"there is no device {first}" if missing else "no name is typed",
            reason="device_not_found",
            hint="Write host names as they are in the list of devices, one a line.",
        )
    return [row["id"] for row in rows]


async def show_new(look: Look) -> Shown:
    """Show the form of a group that is to be made."""
    return await _form(look, {"selector": look.query.get("selector", EXAMPLE)})


async def count(look: Look) -> Part:
    """Count whom a selector finds, while it is being written."""
    if not look.form.get("selector", "").strip():
        return Part("group_count.html", {"devices": None})
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
    asked: dict[str, Any] = {
        "name": name,
        "description": look.form.get("description", "").strip(),
    }
    # Without a selector it is a group that lists its members; they are added on its page.
    if look.form.get("selector", "").strip():
        asked["selector"] = _selector(look.form)
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
        Act("/groups/{id}/members/count", count_members, tries=True),
        Act("/groups/{id}/members/add", add, refused=show_refusal),
        Act("/groups/{id}/members/remove", remove, refused=show_refusal),
    ),
)
