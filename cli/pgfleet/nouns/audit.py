"""pgfleet audit: who changed what, from what to what."""

from __future__ import annotations

from typing import Annotated

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import open_database
from pgfleet.statements import since as after

app = options.Noun("The audit log: who changed what.")


@app.command("list")
def list_changes(
    table: Annotated[
        str | None, typer.Option(help="Only of this table: schedules, devices, …")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Only of this schedule.")] = None,
    row: Annotated[str | None, typer.Option("--row", help="Only of the row with this id.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this person or program.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on.")] = None,
    limit: options.Limit = 50,
) -> None:
    """List changes, the newest first, with what was before and after.

    Example: pgfleet audit list --schedule nightly
    """
    with open_database() as db:
        if schedule is not None:
            # A schedule that is gone is still in the log: by its id.
            row = schedule if schedule.isdecimal() else str(names.schedule_id(db, schedule))
            table = "schedules"
        moment = inputs.moment(since, "--since")
        wanted = {"table_name": table, "row_id": row, "who": actor, "at": after(moment)}
        rows = db.find("audit_list", wanted, order=("-id",), limit=limit)
    output.show_rows(
        rows, ["id", "at", "who", "action", "table_name", "row_id", "old", "new"], spare=("old",)
    )


@app.command()
def show(
    change: Annotated[int, typer.Argument(help="Id of the entry.")],
) -> None:
    """Show one change with all that is known of it.

    Example: pgfleet audit show 17
    """
    with open_database() as db:
        rows = db.find("audit_list", {"id": change})
    output.show_row(names.found(rows, "audit", change))
