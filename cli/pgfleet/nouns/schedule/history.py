"""pgfleet schedule history and stats: what schedules have done."""

from __future__ import annotations

from typing import Annotated

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import open_database

app = options.Noun("What schedules have done.", panel="See")


@app.command()
def history(
    schedule: Annotated[
        str, typer.Argument(help="Name or id of the schedule.", autocompletion=completion.schedules)
    ],
    before: Annotated[
        str | None, typer.Option(help="Only instants before this time, for the next page.")
    ] = None,
    limit: options.Limit = 50,
) -> None:
    """List what became of each due instant of a schedule, the latest first.

    Example: pgfleet schedule history nightly --limit 10
    """
    with open_database() as db:
        rows = db.call(
            "schedule_history",
            p_schedule_id=names.schedule_id(db, schedule),
            p_limit=limit,
            p_before=inputs.moment(before, "--before"),
        )
    output.show_rows(
        rows,
        [
            *("id", "scheduled_for", "local_time", "trigger", "status", "reason", "missed_count"),
            *("targeted", "completed", "failed", "duration_seconds"),
        ],
        spare=("missed_count", "local_time", "reason", "duration_seconds", "trigger"),
    )


@app.command()
def stats() -> None:
    """Show figures about all schedules and their runs.

    Example: pgfleet schedule stats --json
    """
    with open_database() as db:
        row = db.value("schedule_stats")
    output.show_row(row)
