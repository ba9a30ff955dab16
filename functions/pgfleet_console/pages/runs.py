"""Runs: what became of each due instant, and on which devices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pgfleet.statements import Name, contains, since
from pgfleet_console.listing import newest
from pgfleet_console.page import Look, Page, Shown, View
from pgfleet_console.pages import commands
from pgfleet_console.words import Words, age, read_words

FIELDS = ("status", "trigger", "schedule", "action", "since")
DEVICE_FIELDS = ("status", "device", "reason")
COLUMNS: tuple[Name, ...] = (
    *("id", "owner_id", "schedule", "schedule_id", "scheduled_for", "scheduled_local", "trigger"),
    *("status", "reason", "targeted", "completed", "failed", "skipped", "missed_count"),
    *("missed_from", "missed_to", "action_type", "started_at", "finished_at"),
)
# In the order in which a command passes through them.
STATES = ("completed", "failed", "expired", "cancelled", "running", "pending")


def conditions(words: Words, now: datetime) -> dict[Name, Any]:
    """Say what a search of runs means to their list."""
    found = words.fields
    return {
        "id": words.id,
        "schedule": contains(found.get("schedule") or (None if words.id else words.name)),
        "status": found.get("status"),
        "trigger": found.get("trigger"),
        "action_type": found.get("action"),
        "scheduled_for": since(age(found.get("since"), now)),
    }


async def show_all(look: Look) -> Shown:
    """List runs, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    listed = await newest(look, "run_list", conditions(words, datetime.now(UTC)), COLUMNS)
    return Shown("runs.html", {"listed": listed, "words": words.text, "fields": FIELDS})


async def show_one(look: Look) -> Shown:
    """Show one run with its devices."""
    run = await look.db.one("run_list", "run", look.number("id"))
    words = read_words(look.query.get("q", ""), DEVICE_FIELDS)
    where = commands.conditions(words, datetime.now(UTC)) | {"run_id": run["id"]}
    counts = await look.db.counts("command_list", "status", {"run_id": run["id"]})
    listed = await newest(look, "command_list", where, commands.COLUMNS)
    return Shown(
        "run.html",
        {
            "run": run,
            "states": {state: counts.get(state, 0) for state in STATES if counts.get(state)},
            "listed": listed,
            "choosable": await commands.choosable(look, listed.rows),
            "words": words.text,
            "fields": DEVICE_FIELDS,
            "rollouts": await look.db.find("rollout_list", {"run_id": run["id"]}, limit=1),
        },
    )


PAGE = Page(
    "Runs",
    "/runs",
    "r",
    views=(View("/runs", show_all, live=True), View("/runs/{id}", show_one, live=True)),
)
