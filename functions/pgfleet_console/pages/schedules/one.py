"""One schedule: what it says, what is to come, what became of it, and what can be done to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pgfleet.errors import FleetError
from pgfleet.statements import Row
from pgfleet_console.page import Act, Gone, Look, Shown, View
from pgfleet_console.pages.schedules import spoken

RUNS_SHOWN, COMING_SHOWN, CHANGES_SHOWN = 60, 10, 15


async def show(look: Look) -> Shown:
    """Show a schedule."""
    number = look.number("id")
    row = await look.db.one("schedule_list", "schedule", number)
    own = await look.db.find("schedules", {"id": number}, columns=("policies",))
    is_going = row["status"] in ("active", "paused")
    history = await look.db.call("schedule_history", p_schedule_id=number, p_limit=RUNS_SHOWN)
    exported = await look.db.value(
        "export_schedules",
        p_filter=look.db.json({"ids": [number], "status": row["status"]}),
        p_owner_id=row["owner_id"],
    )
    spec = exported["schedules"][0] if exported["schedules"] else {}
    return Shown(
        "schedule.html",
        {
            "schedule": row,
            "is_going": is_going,
            "described": await look.db.value("describe_schedule", p_schedule_id=number),
            "coming": await look.db.call(
                "upcoming_runs", p_schedule_id=number, p_count=COMING_SHOWN
            )
            if is_going
            else [],
            "history": history,
            "strip": strip_of(history),
            "own_policies": own[0]["policies"] if own else {},
            "changes": [
                change | {"keys": changed_keys(change)}
                for change in await look.db.find(
                    "audit_list",
                    {"table_name": "schedules", "row_id": str(number)},
                    order=("-id",),
                    limit=CHANGES_SHOWN,
                )
            ],
            "as_sql": spoken.as_sql(spec),
            "as_cli": spoken.as_cli(spec),
            "may_operate": await look.db.may("operate", row["owner_id"]),
            "may_manage": await look.db.may("manage", row["owner_id"]),
        },
    )


async def explain(look: Look) -> Shown:
    """Say why a schedule ran at an instant, or did not."""
    number = look.number("id")
    row = await look.db.one("schedule_list", "schedule", number)
    at = look.query.get("at") or datetime.now(UTC).isoformat()
    found = await look.db.value("explain_schedule", p_schedule_id=number, p_at=at)
    return Shown("schedule_explained.html", {"schedule": row, "at": at, "found": found})


def strip_of(history: list[Row]) -> list[dict[str, Any]]:
    """Give the ledger as a strip, the oldest first: how each run ended, and why."""
    return [
        {
            "id": run["id"],
            "state": _state(run),
            "at": run["missed_from"] or run["scheduled_for"],
            "reason": run["reason"] or "",
            "done": run["completed"],
            "targeted": run["targeted"],
        }
        for run in reversed(history)
    ]


def _state(run: Row) -> str:
    """Name how a run ended; one that only some devices completed is neither good nor bad."""
    if run["status"] == "completed" and run["failed"]:
        return "partly"
    return str(run["status"])


def changed_keys(change: Row) -> list[str]:
    """Name what differs between before and after."""
    old, new = change["old"] or {}, change["new"] or {}
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


async def run_now(look: Look) -> Gone:
    """Run a schedule besides its due instants."""
    minute = datetime.now(UTC).strftime("%Y%m%d%H%M")
    rows = await look.db.call(
        "run_schedule",
        "id",
        p_schedule_id=look.number("id"),
        # Sent twice, as by a second click, it is the same run.
        p_idempotency_key=f"console-{minute}",
    )
    return Gone(f"/runs/{rows[0]['id']}", "It runs.")


async def pause(look: Look) -> Gone:
    """Let a schedule rest."""
    await look.db.call("pause_schedule", "id", p_schedule_id=look.number("id"), p_reason=_why(look))
    return _back(look, "Paused.")


async def resume(look: Look) -> Gone:
    """Let a schedule go on."""
    await look.db.call("resume_schedule", "id", p_schedule_id=look.number("id"))
    return _back(look, "It goes on.")


async def cancel(look: Look) -> Gone:
    """End a schedule for good; its history stays."""
    await _confirmed(look)
    number = look.number("id")
    await look.db.call("cancel_schedule", "id", p_schedule_id=number, p_reason=_why(look))
    return _back(look, "Cancelled.")


async def delete(look: Look) -> Gone:
    """Delete a schedule with its history."""
    name = await _confirmed(look)
    await look.db.call("delete_schedule", "id", p_schedule_id=look.number("id"))
    return Gone("/schedules", f"{name} is deleted.")


async def duplicate(look: Look) -> Gone:
    """Make a paused copy."""
    made = await look.db.value("duplicate_schedule", p_schedule_id=look.number("id"))
    return Gone(f"/schedules/{made['id']}/edit", "This is the copy; it is paused.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show a schedule as it is, with why nothing was done to it."""
    shown = await show(look)
    return Shown(shown.template, {**shown.values, "refusal": error}, error.status_code)


async def _confirmed(look: Look) -> str:
    row = await look.db.one("schedules", "schedule", look.number("id"))
    look.confirmed(row["name"])
    return str(row["name"])


def _why(look: Look) -> str | None:
    return look.form.get("reason", "").strip() or None


def _back(look: Look, said: str) -> Gone:
    return Gone(f"/schedules/{look.params['id']}", said)


VIEWS = (
    View("/schedules/{id}", show, live=True),
    View("/schedules/{id}/explain", explain),
)
ACTS = tuple(
    Act(f"/schedules/{{id}}/{name}", do, refused=show_refusal)
    for name, do in (
        ("run", run_now),
        ("pause", pause),
        ("resume", resume),
        ("cancel", cancel),
        ("delete", delete),
        ("duplicate", duplicate),
    )
)
