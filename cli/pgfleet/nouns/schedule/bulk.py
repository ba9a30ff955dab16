"""pgfleet schedule bulk: one verb for many schedules."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from pgfleet import options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.schedule.filter import Where, schedule_filter
from pgfleet.statements import among

app = options.Noun("Many schedules at once.", panel="Many at once")


class Action(StrEnum):
    """What can be done to many schedules."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    DELETE = "delete"
    RUN = "run"


@app.command(changes=True)
def bulk(
    action: Annotated[Action, typer.Argument(help="What to do to each of them.")],
    where: Where = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept with each schedule.")] = None,
    yes: options.Yes = False,
) -> None:
    """Pause, resume, cancel, delete or run all schedules that are found; says first how many.

    Example: pgfleet schedule bulk pause --where status=active --where name=%lab% --yes
    """
    with open_database() as db:
        wanted = schedule_filter(db, where)
        found = _bulk(db, action, wanted, reason, dry_run=True)
        rows = db.find(
            "schedules",
            {"id": among(found["ids"])},
            columns=("id", "name", "status", "next_run_at"),
            order=("id",),
        )
        db.commit()
        output.show_rows(rows)
        output.say(f"{len(rows)} schedules found for {action.value}.")
        if not rows:
            return
        db.touches("schedule", *found["ids"])
        output.confirm(f"{action.value.capitalize()} {len(rows)} schedules?", yes=yes)
        # What was counted, and nothing that has come to match since.
        found = _bulk(db, action, {"ids": found["ids"]}, reason, dry_run=False)
    output.did(f"{action.value}: {found['changed']} schedules.")


def _bulk(
    db: Database, action: Action, wanted: dict[str, Any], reason: str | None, *, dry_run: bool
) -> dict[str, Any]:
    found: dict[str, Any] = db.value(
        "bulk_schedules",
        p_action=action.value,
        p_filter=json_value(wanted),
        p_dry_run=dry_run,
        p_reason=reason,
    )
    return found
