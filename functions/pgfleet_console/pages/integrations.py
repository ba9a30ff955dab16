"""Integrations: other systems that know or manage the devices, and how they are."""

from __future__ import annotations

from typing import Any

from pgfleet.errors import FleetError
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View

ACTIVITY_SHOWN = 50


async def show_all(look: Look) -> Shown:
    """List integrations."""
    rows = await look.db.find("integration_list", order=("name", "id"), limit=200)
    return Shown("integrations.html", {"rows": rows})


async def show_one(look: Look) -> Shown:
    """Show an integration with what it did."""
    return Shown("integration.html", await _read(look))


async def _read(look: Look) -> dict[str, Any]:
    number = look.number("id")
    row = await look.db.one("integration_list", "integration", number)
    return {
        "integration": row,
        "listed": await newest(
            look, "integration_activity_list", {"integration_id": number}, rows=ACTIVITY_SHOWN
        ),
        "webhooks": await look.db.find(
            "integration_webhook_list", {"integration_id": number}, order=("-id",), limit=20
        ),
        "may_operate": await look.db.may("operate", row["owner_id"]),
        "may_manage": await look.db.may("manage", row["owner_id"]),
    }


async def pause(look: Look) -> Gone:
    """Ask an integration nothing for a while."""
    why = look.form.get("reason", "").strip() or None
    await look.db.call("pause_integration", "id", p_integration_id=look.number("id"), p_reason=why)
    return _back(look, "Paused.")


async def resume(look: Look) -> Gone:
    """Let an integration go on."""
    await look.db.call("resume_integration", "id", p_integration_id=look.number("id"))
    return _back(look, "It goes on.")


async def sync(look: Look) -> Gone:
    """Read what an integration knows, as soon as possible."""
    await look.db.value("sync_integration", p_integration_id=look.number("id"))
    return _back(look, "It is read soon.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show an integration as it is, with why what was asked was refused."""
    return Shown("integration.html", {**await _read(look), "refusal": error}, error.status_code)


def _back(look: Look, said: str) -> Gone:
    return Gone(f"/integrations/{look.params['id']}", said)


PAGE = Page(
    "Integrations",
    "/integrations",
    "i",
    views=(
        View("/integrations", show_all, live=True),
        View("/integrations/{id}", show_one, live=True),
    ),
    acts=tuple(
        Act(f"/integrations/{{id}}/{name}", do, refused=show_refusal)
        for name, do in (("pause", pause), ("resume", resume), ("sync", sync))
    ),
)
