"""Now: what needs a person, first; then how the fleet is doing."""

from __future__ import annotations

from pgfleet.statements import among
from pgfleet_console.page import Look, Page, Shown, View

_GOING = ("running", "waiting", "closed", "paused", "aborting")


async def show_now(look: Look) -> Shown:
    """Show the fleet at a glance."""
    status = await look.lately("status", lambda: look.db.value("fleet_status"))
    rollouts = await look.db.find(
        "rollout_list", {"status": among(_GOING)}, order=("-run_id",), limit=8
    )
    return Shown(
        "now.html",
        {
            "status": status,
            "rollouts": rollouts,
            "waiting": [one for one in rollouts if one["status"] == "waiting"],
            "integrations": await look.db.find("integration_list", order=("name",), limit=20),
            "runs": await look.db.find("run_list", order=("-id",), limit=8),
            "commands": await look.db.find("command_list", order=("-id",), limit=8),
        },
    )


PAGE = Page("Now", "/", "n", views=(View("/", show_now, live=True),))
