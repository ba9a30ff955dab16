"""pgfleet schedule bulk: one verb for many schedules."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, LiteralString

import typer

from pgfleet import options, output
from pgfleet.database import json_value, open_database
from pgfleet.nouns.schedule.filter import Where, schedule_filter

app = options.Noun("Many schedules at once.", panel="Many at once")

_BULK: LiteralString = (
    "select public.bulk_schedules(%(action)s, %(filter)s, %(dry_run)s, %(reason)s) as answer"
)


class Action(StrEnum):
    """What can be done to many schedules."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    DELETE = "delete"
    RUN = "run"


@app.command()
def bulk(
    action: Annotated[Action, typer.Argument(help="What to do to each of them.")],
    where: Where = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept with each schedule.")] = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Pause, resume, cancel, delete or run all schedules that are found; says first how many.

    Example: pgfleet schedule bulk pause --where status=active --where name=%lab% --yes
    """
    with open_database() as db:
        wanted = schedule_filter(db, where)
        params = {"action": action.value, "reason": reason}
        found = db.row(_BULK, {**params, "filter": json_value(wanted), "dry_run": True})["answer"]
        rows = db.rows(
            """
            select s.id, s.name, s.status, s.next_run_at
            from public.schedules as s
            where s.id = any (%(ids)s::bigint[])
            order by s.id
            """,
            {"ids": found["ids"]},
        )
        db.commit()
        output.show_rows(rows)
        if dry_run or not rows:
            output.say(f"{len(rows)} schedules found for {action.value}.")
            return
        output.confirm(f"{action.value.capitalize()} {len(rows)} schedules?", yes=yes)
        # What was counted, and nothing that has come to match since.
        chosen = json_value({"ids": found["ids"]})
        found = db.row(_BULK, {**params, "filter": chosen, "dry_run": False})["answer"]
    output.say(f"{action.value}: {found['changed']} schedules.")
