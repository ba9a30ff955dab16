"""pgfleet run: the ledger of what became of each due instant."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, open_database

app = options.Noun("Runs: what became of each due instant.")

RunId = Annotated[int, typer.Argument(help="Id of the run.")]

_FINAL = ("completed", "failed", "skipped", "cancelled")
_LOOK_SECONDS = 0.5


@app.command("list")
def list_runs(
    schedule: Annotated[str | None, typer.Option(help="Only of this schedule.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: options.Limit = 50,
) -> None:
    """List runs, the newest first.

    Example: pgfleet run list --schedule nightly --status failed
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule) if schedule else None
        wanted = {"schedule_id": found, "status": status}
        rows = db.find("run_list", wanted, order=("-id",), limit=limit)
    output.show_rows(
        rows,
        [
            *("id", "schedule", "scheduled_for", "trigger", "status", "reason"),
            *("targeted", "completed", "failed"),
        ],
    )


@app.command()
def show(run: RunId) -> None:
    """Show one run.

    Example: pgfleet run show 17 --json
    """
    with open_database() as db:
        output.show_row(read_run(db, run))


@app.command()
def watch(
    run: Annotated[int | None, typer.Argument(help="Id of the run.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="The newest run of this schedule, or its first to come.")
    ] = None,
) -> None:
    """Follow a run until it is final; ends with 1 unless it completed.

    Example: pgfleet run watch --schedule nightly
    """
    if (run is None) == (schedule is None):
        raise typer.BadParameter("name a run, or a schedule with --schedule")
    with open_database() as db:
        found = _newest_run(db, schedule) if run is None else run
        with output.progress(f"run {found}") as advance:
            while True:
                row = read_run(db, found)
                db.commit()
                done = row["completed"] + row["failed"]
                advance(f"run {found} {row['status']}", done, row["targeted"])
                if row["status"] in _FINAL:
                    break
                time.sleep(_LOOK_SECONDS)
    output.show_row(row)
    if row["status"] != "completed":
        raise typer.Exit(1)


def _newest_run(db: Database, schedule: str | None) -> int:
    """Give the newest run of a schedule, waiting for the first where it has none."""
    assert schedule is not None
    found = names.schedule_id(db, schedule)
    while not (rows := db.find("run_list", {"schedule_id": found}, order=("-id",), limit=1)):
        db.commit()
        time.sleep(_LOOK_SECONDS)
    return int(rows[0]["id"])


def read_run(db: Database, run_id: int) -> dict[str, Any]:
    """Read one run by its id."""
    return names.found(db.find("run_list", {"id": run_id}), "run", run_id)
