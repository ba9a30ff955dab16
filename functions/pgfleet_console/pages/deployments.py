"""Deployments: packages and files on their way to devices."""

from __future__ import annotations

from typing import Any

from pgfleet.errors import FleetError
from pgfleet.statements import contains
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View
from pgfleet_console.words import read_words

FIELDS = ("status", "kind")
TARGETS_SHOWN = 200
STATES = ("succeeded", "failed", "rolled_back", "skipped", "open")


async def show_all(look: Look) -> Shown:
    """List deployments, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    found = words.fields
    where = {
        "id": words.id,
        "name": None if words.id is not None else contains(words.name),
        "status": found.get("status"),
        "kind": found.get("kind"),
    }
    listed = await newest(look, "deployment_list", where)
    return Shown(
        "deployments.html",
        {
            "listed": listed,
            "states": STATES,
            "words": words.text,
            "fields": FIELDS,
            "packages": await look.db.find("package_list", order=("name", "-id"), limit=50),
            "files": await look.db.find("file_list", order=("name", "-id"), limit=50),
        },
    )


async def show_one(look: Look) -> Shown:
    """Show a deployment with its devices."""
    return Shown("deployment.html", await _read(look))


async def _read(look: Look) -> dict[str, Any]:
    number = look.number("id")
    row = await look.db.one("deployment_list", "deployment", number)
    where = {"deployment_id": number, "state": look.query.get("state")}
    return {
        "deployment": row,
        "states": {state: row[state] for state in STATES if row[state]},
        "targets": await look.db.find(
            "deployment_target_list", where, order=("device_hostname",), limit=TARGETS_SHOWN
        ),
        "may_operate": await look.db.may("operate", row["owner_id"]),
    }


async def retry(look: Look) -> Gone:
    """Send a deployment once more to the devices on which it failed."""
    made = await look.db.value("retry_deployment", p_deployment_id=look.number("id"))
    return Gone(f"/schedules/{made['id']}", "It is sent again to those on which it failed.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show a deployment as it is, with why it is not sent again."""
    return Shown("deployment.html", {**await _read(look), "refusal": error}, error.status_code)


PAGE = Page(
    "Deployments",
    "/deployments",
    "p",
    views=(
        View("/deployments", show_all, live=True),
        View("/deployments/{id}", show_one, live=True),
    ),
    acts=(Act("/deployments/{id}/retry", retry, refused=show_refusal),),
)
