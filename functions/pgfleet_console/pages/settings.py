"""Settings and usage: fleets and their people, how much they use, and how the engine is set."""

from __future__ import annotations

import json

from pgfleet.errors import FleetError
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View

MEMBERS_SHOWN = 200


async def show(look: Look) -> Shown:
    """Show fleets with what they use; the engine's settings to its operator alone."""
    owners = await look.db.find("owner_list", order=("-is_default", "name"), limit=50)
    for owner in owners:
        owner["usage"] = await look.db.call("owner_usage", p_owner_id=owner["id"])
        owner["may_manage"] = await look.db.may("manage", owner["id"])
    settings = (
        await look.db.find("setting_list", order=("name",)) if look.viewer.is_operator else []
    )
    return Shown(
        "settings.html",
        {
            "owners": owners,
            "members": await look.db.find(
                "owner_member_list", order=("owner", "email"), limit=MEMBERS_SHOWN
            ),
            "settings": settings,
        },
    )


async def set_zone(look: Look) -> Gone:
    """Say in which time zone the people of a fleet live."""
    await look.db.call(
        "set_owner_timezone",
        "id",
        p_owner_id=look.params["id"],
        p_timezone=look.form.get("timezone", "").strip(),
    )
    return Gone("/settings", "The time zone is set.")


async def change_setting(look: Look) -> Gone:
    """Set a setting of the engine; what is no JSON is meant as a text."""
    text = look.form.get("value", "").strip()
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    name = look.params["name"]
    await look.db.value("fleet.set_setting", p_name=name, p_value=look.db.json(value))
    return Gone("/settings", f"{name} is set.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show the settings as they are, with why one was not changed."""
    shown = await show(look)
    return Shown(shown.template, {**shown.values, "refusal": error}, error.status_code)


PAGE = Page(
    "Settings and usage",
    "/settings",
    "e",
    views=(View("/settings", show),),
    acts=(
        Act("/settings/zone/{id}", set_zone, refused=show_refusal),
        Act("/settings/engine/{name}", change_setting, refused=show_refusal),
    ),
)
