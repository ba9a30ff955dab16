"""Rollouts: runs that go group by group, with what each waits for."""

from __future__ import annotations

from typing import Any

from pgfleet.errors import FleetError
from pgfleet.statements import contains
from pgfleet_console.listing import newest
from pgfleet_console.page import Act, Gone, Look, Page, Shown, View
from pgfleet_console.words import read_words

FIELDS = ("status",)
OVER = ("completed", "aborted")


async def show_all(look: Look) -> Shown:
    """List rollouts, the newest first."""
    words = read_words(look.query.get("q", ""), FIELDS)
    name = None if words.id is not None else contains(words.name)
    where = {"run_id": words.id, "schedule": name, "status": words.fields.get("status")}
    listed = await newest(look, "rollout_list", where, key="run_id")
    return Shown("rollouts.html", {"listed": listed, "words": words.text, "fields": FIELDS})


async def show_one(look: Look) -> Shown:
    """Show a rollout with its groups."""
    return Shown("rollout.html", await _read(look))


async def _read(look: Look) -> dict[str, Any]:
    number = look.number("id")
    rollout = await look.db.one("rollout_list", "rollout", number, key="run_id")
    groups = await look.db.find("rollout_group_list", {"run_id": number}, order=("wave",))
    approvals = await look.db.find(
        "rollout_approvals", {"run_id": number}, order=("-created_at",), limit=50
    )
    names = {one["wave"]: one["name"] for one in groups}
    return {
        "rollout": rollout,
        "groups": groups,
        "approvals": [one | {"group": names.get(one["wave"], "")} for one in approvals],
        "is_over": rollout["status"] in OVER,
        "may_operate": await look.db.may("operate", rollout["owner_id"]),
    }


async def approve(look: Look) -> Gone:
    """Let the next group have its turn."""
    await look.db.value("approve_rollout", p_run_id=look.number("id"), p_note=_why(look))
    return _back(look, "Approved.")


async def pause(look: Look) -> Gone:
    """Let no further device have its turn."""
    await look.db.value("pause_rollout", p_run_id=look.number("id"), p_reason=_why(look))
    return _back(look, "Paused.")


async def resume(look: Look) -> Gone:
    """Let a rollout go on."""
    await look.db.value("resume_rollout", p_run_id=look.number("id"))
    return _back(look, "It goes on.")


async def abort(look: Look) -> Gone:
    """End a rollout, and undo it where its plan says so."""
    rollout = await look.db.one("rollout_list", "rollout", look.number("id"), key="run_id")
    look.confirmed(rollout["schedule"])
    await look.db.value("abort_rollout", p_run_id=look.number("id"), p_reason=_why(look))
    return _back(look, "Aborted.")


async def show_refusal(look: Look, error: FleetError) -> Shown:
    """Show a rollout as it is, with why what was asked was refused."""
    return Shown("rollout.html", {**await _read(look), "refusal": error}, error.status_code)


def _why(look: Look) -> str | None:
    return look.form.get("reason", "").strip() or None


def _back(look: Look, said: str) -> Gone:
    return Gone(f"/rollouts/{look.params['id']}", said)


PAGE = Page(
    "Rollouts",
    "/rollouts",
    "l",
    views=(View("/rollouts", show_all, live=True), View("/rollouts/{id}", show_one, live=True)),
    acts=tuple(
        Act(f"/rollouts/{{id}}/{name}", do, refused=show_refusal)
        for name, do in (
            ("approve", approve),
            ("pause", pause),
            ("resume", resume),
            ("abort", abort),
        )
    ),
)
