"""pgfleet run: the ledger of what became of each due instant."""

from __future__ import annotations

import time
from typing import Annotated, Any, LiteralString

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, open_database

app = options.Noun("Runs: what became of each due instant.")

RunId = Annotated[int, typer.Argument(help="Id of the run.")]

_FINAL = ("completed", "failed", "skipped", "cancelled")
_LOOK_SECONDS = 0.5

_RUNS: LiteralString = """
select
  r.id, s.name as schedule, r.schedule_id, r.scheduled_for, r.trigger, r.status, r.reason,
  r.targeted, r.completed, r.failed, r.skipped, r.missed_from, r.missed_to, r.missed_count,
  r.dst_rule, r.error_message, r.action_type, r.payload, r.priority, r.result, r.expires_at,
  r.started_at, r.finished_at, r.created_at
from public.schedule_runs as r
join public.schedules as s on s.id = r.schedule_id
where (%(id)s::bigint is null or r.id = %(id)s)
  and (%(schedule_id)s::bigint is null or r.schedule_id = %(schedule_id)s)
  and (%(status)s::text is null or r.status = %(status)s)
order by r.id desc
limit %(limit)s
"""


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
        params = {"id": None, "schedule_id": found, "status": status, "limit": limit}
        rows = db.rows(_RUNS, params)
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
    params = {"id": None, "schedule_id": found, "status": None, "limit": 1}
    while not (rows := db.rows(_RUNS, params)):
        db.commit()
        time.sleep(_LOOK_SECONDS)
    return int(rows[0]["id"])


def read_run(db: Database, run_id: int) -> dict[str, Any]:
    """Read one run by its id."""
    rows = db.rows(_RUNS, {"id": run_id, "schedule_id": None, "status": None, "limit": 1})
    return names.found(rows, "run", run_id)
