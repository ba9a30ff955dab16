"""pgfleet run: the ledger of what became of each due instant."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pgfleet import completion, names, options, output
from pgfleet.database import Database, open_database

app = options.Noun("Runs: what became of each due instant.")

RunId = Annotated[int, typer.Argument(help="Id of the run.")]

_FINAL = ("completed", "failed", "skipped", "cancelled")
_COLUMNS = [
    *("id", "schedule", "scheduled_for", "trigger", "status", "reason"),
    *("targeted", "completed", "failed"),
]
_SPARE = ["trigger", "reason", "targeted", "completed"]


@app.command("list")
def list_runs(
    schedule: Annotated[
        str | None,
        typer.Option(help="Only of this schedule.", autocompletion=completion.schedules),
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: options.Limit = 50,
    watch: options.Watch = False,
) -> None:
    """List runs, the newest first.

    Example: pgfleet run list --schedule nightly --status failed
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule) if schedule else None
        wanted = {"schedule_id": found, "status": status}

        def read() -> list[dict[str, Any]]:
            rows = db.find("run_list", wanted, order=("-id",), limit=limit)
            db.commit()
            return rows

        output.show_or_watch(read, _COLUMNS, _SPARE, watch=watch)


@app.command()
def show(run: RunId, watch: options.Watch = False) -> None:
    """Show one run.

    Example: pgfleet run show 17 --json
    """
    with open_database() as db:
        if watch:
            output.watch_row(lambda: read_run(db, run), lambda row: row["status"] in _FINAL)
            return
        row = read_run(db, run)
    output.show_row(row)


@app.command()
def watch(
    run: Annotated[int | None, typer.Argument(help="Id of the run.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="The newest run of this schedule, or its first to come.",
            autocompletion=completion.schedules,
        ),
    ] = None,
    timeout: options.Timeout = None,
) -> None:
    """Follow a run until it is final; ends with 1 unless it completed.

    Example: pgfleet run watch --schedule nightly --timeout 60
    """
    if (run is None) == (schedule is None):
        raise typer.BadParameter("name a run, or a schedule with --schedule")
    with open_database() as db:
        end = None if timeout is None else time.monotonic() + timeout
        found = _newest_run(db, schedule, timeout) if run is None else run
        left = None if end is None else max(0.0, end - time.monotonic())
        row = follow_run(db, found, left)
    output.show_row(row)
    if row["status"] != "completed":
        raise typer.Exit(1)


def follow_run(db: Database, run_id: int, timeout: float | None) -> dict[str, Any]:
    """Look again until the run is final, telling how far it is."""

    def look() -> tuple[dict[str, Any], str, bool]:
        row = read_run(db, run_id)
        done = f"{row['completed'] + row['failed']} of {row['targeted']} devices"
        return row, f"{row['status']}, {done}", row["status"] in _FINAL

    found: dict[str, Any] = output.follow(
        look,
        timeout=timeout,
        what=f"run {run_id}",
        goes_on=f"Look again: pgfleet run watch {run_id}. What it sent: "
        f"pgfleet command list --run {run_id}; end one with pgfleet command cancel ID",
    )
    return found


def read_run(db: Database, run_id: int) -> dict[str, Any]:
    """Read one run by its id."""
    row = names.found(db.find("run_list", {"id": run_id}), "run", run_id)
    db.commit()
    return row


def _newest_run(db: Database, schedule: str | None, timeout: float | None) -> int:
    """Give the newest run of a schedule, waiting for the first where it has none."""
    assert schedule is not None
    found = names.schedule_id(db, schedule)

    def look() -> tuple[int | None, str, bool]:
        rows = db.find("run_list", {"schedule_id": found}, order=("-id",), limit=1)
        db.commit()
        return (
            (rows[0]["id"] if rows else None),
            "has run" if rows else "has no run yet",
            bool(rows),
        )

    return int(
        output.follow(
            look,
            timeout=timeout,
            what=f"schedule {schedule}",
            goes_on=f"See when it is due: pgfleet schedule upcoming {found}",
        )
    )
