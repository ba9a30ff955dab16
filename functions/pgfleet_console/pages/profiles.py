"""Profiles: which there are, where they are for how long, and where devices differ."""

from __future__ import annotations

from pgfleet.statements import Row, contains
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View
from pgfleet_console.words import read_words

FIELDS = ("state", "device")
PROFILES, INSTALLS, DRIFT = 200, 100, 200
ENDED = ("removed", "never installed", "removal cancelled", "removal deleted")


async def show(look: Look) -> Shown:
    """Show profiles, those that are somewhere for a time, and where devices differ."""
    words = read_words(look.query.get("q", ""), FIELDS)
    found = words.fields
    installs = await look.db.find(
        "temporary_profiles",
        {
            "install_id": words.id,
            "profile_name": contains(words.name) if words.id is None else None,
            "state": found.get("state"),
            "hostname": contains(found.get("device")),
        },
        order=("-install_id",),
        limit=INSTALLS,
    )
    for one in installs:
        is_going = one["state"] not in ENDED
        one["may_end"] = is_going and await look.db.may("operate", one["owner_id"])
    owners = await look.db.find("owner_list", order=("-is_default", "name"), limit=50)
    drift = await look.lately("drift", lambda: _drift(look, owners))
    return Shown(
        "profiles.html",
        {
            "profiles": await look.db.find("profile_list", order=("name", "id"), limit=PROFILES),
            "installs": installs,
            "drift": drift[:DRIFT],
            "differ": len(drift),
            "owners": [one for one in owners if await look.db.may("operate", one["id"])],
            "words": words.text,
            "fields": FIELDS,
        },
    )


async def _drift(look: Look, owners: list[Row]) -> list[Row]:
    """Say where devices differ from what is assigned; it looks at all of them."""
    found = []
    for owner in owners:
        found += await look.db.call("profile_drift", p_owner_id=owner["id"])
    return found


async def end(look: Look) -> Gone:
    """Take a profile off a device before its time."""
    await look.db.value("end_profile", p_install_id=look.number("id"))
    return Gone("/profiles", "It ends now.")


async def extend(look: Look) -> Gone:
    """Leave a profile on a device for longer."""
    await look.db.value(
        "extend_profile", p_install_id=look.number("id"), p_by=look.form.get("by", "").strip()
    )
    return Gone("/profiles", "It stays longer.")


async def reconcile(look: Look) -> Gone:
    """Push what is assigned and missing, at once."""
    done = await look.db.value("reconcile_profiles", p_owner_id=look.params["id"])
    return Gone("/profiles", f"{done['pushes']} pushes and {done['removals']} removals.")


PAGE = Page(
    "Profiles",
    "/profiles",
    "f",
    views=(View("/profiles", show, live=True),),
    acts=(
        Act("/profiles/installs/{id}/end", end),
        Act("/profiles/installs/{id}/extend", extend),
        Act("/profiles/reconcile/{id}", reconcile),
    ),
)
