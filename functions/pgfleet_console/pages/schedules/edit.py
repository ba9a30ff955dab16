"""Making and editing a schedule: a form, and beside it what would come of it."""

from __future__ import annotations

from typing import Any

from pgfleet.errors import FleetError
from pgfleet.statements import Row, among
from pgfleet_console.page import Act, Gone, Look, Part, Shown, View
from pgfleet_console.pages.schedules import spec

NAMES_SHOWN = 500
COMING_SHOWN = 10
NEW: dict[str, str] = {
    "recurrence_type": "daily",
    "time": "02:30",
    "timezone": "UTC",
    "priority": "0",
    "devices": "",
    "groups": "",
}


async def show_new(look: Look) -> Shown:
    """Show the form of a schedule that is to be made."""
    owners = await _owners(look)
    zones = {owner["timezone"] for owner in owners}
    fields = NEW | ({"timezone": zones.pop()} if len(zones) == 1 else {})
    return await _form(look, None, fields | dict(look.query))


async def show_edit(look: Look) -> Shown:
    """Show the form of a schedule."""
    row, fields = await _read(look)
    return await _form(look, row, fields)


async def preview(look: Look) -> Part:
    """Show what would come of what the form says, or what is wrong with it."""
    try:
        if "id" in look.params:
            _, before = await _read(look)
            rows = await look.db.call(
                "diff_schedule",
                p_schedule_id=look.number("id"),
                p_changes=look.db.json(spec.changes(before, look.form)),
                p_count=COMING_SHOWN,
            )
            return Part("schedule_diff.html", {"rows": rows})
        rows = await look.db.call(
            "preview_schedule",
            p_spec=look.db.json(spec.made(look.form) | _owner(look)),
            p_count=COMING_SHOWN,
        )
        return Part("schedule_preview.html", {"rows": rows})
    except FleetError as error:
        return Part("schedule_problems.html", {"error": error, "problems": spec.problems_of(error)})


async def make(look: Look) -> Gone:
    """Make a schedule."""
    row = await look.db.value(
        "create_schedule", p_spec=look.db.json(spec.made(look.form) | _owner(look))
    )
    return Gone(f"/schedules/{row['id']}", _said("Made.", row))


async def change(look: Look) -> Gone:
    """Change a schedule."""
    _, before = await _read(look)
    row = await look.db.value(
        "update_schedule",
        p_schedule_id=look.number("id"),
        p_changes=look.db.json(spec.changes(before, look.form)),
    )
    return Gone(f"/schedules/{row['id']}", _said("Changed.", row))


async def show_refused_new(look: Look, error: FleetError) -> Shown:
    """Show the form as it was sent, with what is wrong at its fields."""
    return await _form(look, None, NEW | dict(look.form), error)


async def show_refused_change(look: Look, error: FleetError) -> Shown:
    """Show the form as it was sent, with what is wrong at its fields."""
    row, fields = await _read(look)
    return await _form(look, row, fields | dict(look.form), error)


async def _form(
    look: Look, row: Row | None, fields: dict[str, str], error: FleetError | None = None
) -> Shown:
    return Shown(
        "schedule_form.html",
        {
            "schedule": row,
            "fields": fields,
            "kinds": spec.KINDS,
            "actions": await look.db.find(
                "command_types", columns=("name", "description"), order=("name",)
            ),
            "groups": await look.db.find("device_groups", columns=("name",), order=("name",)),
            "owners": await _owners(look),
            "error": error,
            "problems": spec.problems_of(error) if error else {},
        },
        error.status_code if error else 200,
    )


async def _read(look: Look) -> tuple[Row, dict[str, str]]:
    row = await look.db.one("schedules", "schedule", look.number("id"))
    devices = await look.db.find(
        "devices",
        {"id": among(row["device_ids"])},
        columns=("hostname",),
        order=("hostname",),
        limit=NAMES_SHOWN + 1,
    )
    groups = await look.db.find(
        "device_groups", {"id": among(row["group_ids"])}, columns=("name",), order=("name",)
    )
    fields = spec.fields_of(
        row, [one["hostname"] for one in devices], [one["name"] for one in groups]
    )
    if len(devices) > NAMES_SHOWN:
        # So many names are nothing to be edited by hand: they stay as they are.
        del fields["devices"]
    return row, fields


async def _owners(look: Look) -> list[Row]:
    rows = await look.db.find(
        "owner_list",
        columns=("id", "name", "is_default", "timezone"),
        order=("-is_default", "name"),
    )
    return [row for row in rows if await look.db.may("manage", row["id"])]


def _owner(look: Look) -> dict[str, Any]:
    return {"owner_id": look.form["owner_id"]} if look.form.get("owner_id") else {}


def _said(done: str, row: dict[str, Any]) -> str:
    return " ".join((done, *(row.get("warnings") or ())))


VIEWS = (View("/schedules/new", show_new), View("/schedules/{id}/edit", show_edit))
ACTS = (
    Act("/schedules/new", make, refused=show_refused_new),
    Act("/schedules/new/preview", preview, tries=True),
    Act("/schedules/{id}/edit", change, refused=show_refused_change),
    Act("/schedules/{id}/preview", preview, tries=True),
)
