"""pgfleet schedule: when, what and who."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import completion, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.run import follow_run
from pgfleet.nouns.schedule import bulk, calendar, change, history, insight, transfer
from pgfleet.nouns.schedule.made import SHOWN, show_made
from pgfleet.nouns.schedule.spec import Given, takes_a_schedule
from pgfleet.statements import contains

app = options.Noun("Schedules: when, what and who.")
for _verbs in (change, bulk, transfer, history, insight, calendar):
    app.add_typer(_verbs.app)

Schedule = Annotated[
    str, typer.Argument(help="Name or id of the schedule.", autocompletion=completion.schedules)
]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the schedule.")]

_LISTED = (
    *("id", "name", "status", "action_type", "recurrence_type", "timezone", "next_run_at"),
    *("last_executed_at", "execution_count", "priority", "status_reason", "owner", "created_at"),
)


@app.command("list")
def list_schedules(
    status: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    search: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    limit: options.Limit = 1000,
) -> None:
    """List schedules, what is due soonest first.

    Example: pgfleet schedule list --status active
    """
    with open_database() as db:
        wanted = {"status": status, "name": contains(search)}
        rows = db.find(
            "schedule_list", wanted, columns=_LISTED, order=("next_run_at", "id"), limit=limit
        )
    output.show_rows(
        rows,
        ["id", "name", "status", "action_type", "recurrence_type", "next_run_at"],
        spare=("recurrence_type", "action_type"),
    )


@app.command()
def show(schedule: Schedule) -> None:
    """Show one schedule with the policies that hold for it.

    Example: pgfleet schedule show nightly
    """
    with open_database() as db:
        output.show_row(_read(db, names.schedule_id(db, schedule), SHOWN))


@app.command(changes=True)
@takes_a_schedule
def create(
    given: Given,
    name: Annotated[str | None, typer.Argument(help="Name of the schedule.")] = None,
) -> None:
    """Create a schedule from options, or from JSON; every wrong field is named at once.

    Example: pgfleet schedule create nightly --action clear_cache --group labs --daily 02:30
    """
    with open_database() as db:
        row = db.value("create_schedule", p_spec=json_value(given.spec(db, name)))
        db.touches("schedule", row["id"])
        shown = _read(db, row["id"], SHOWN) | {"warnings": row.get("warnings", [])}
    show_made(shown, "made")


@app.command(changes=True)
def pause(schedule: Schedule, reason: Reason = None) -> None:
    """Let a schedule rest; the ledger tells what was due meanwhile.

    Example: pgfleet schedule pause nightly --reason holidays
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        db.touches("schedule", found)
        row = db.row(
            "pause_schedule",
            *("id", "name", "status", "status_reason", "next_run_at"),
            p_schedule_id=found,
            p_reason=reason,
        )
    output.show_row(row)


@app.command(changes=True)
def resume(schedule: Schedule) -> None:
    """Let a paused schedule go on at its next due instant.

    Example: pgfleet schedule resume nightly
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        db.touches("schedule", found)
        row = db.row(
            "resume_schedule",
            *("id", "name", "status", "next_run_at"),
            p_schedule_id=found,
        )
    output.show_row(row)


@app.command(changes=True)
def cancel(
    schedule: Schedule,
    reason: Reason = None,
    yes: options.Yes = False,
) -> None:
    """End a schedule for good; what no device has started is cancelled.

    Example: pgfleet schedule cancel nightly --yes
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        db.commit()
        output.confirm(f"Cancel schedule {schedule} for good?", yes=yes)
        db.touches("schedule", found)
        row = db.row(
            "cancel_schedule",
            *("id", "name", "status", "status_reason"),
            p_schedule_id=found,
            p_reason=reason,
        )
    output.show_row(row)


@app.command(changes=True)
def run(
    schedule: Schedule,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key gives the same run.")
    ] = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Run a schedule now, besides its due instants.

    Example: pgfleet schedule run nightly --wait --timeout 60
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        db.touches("schedule", found)
        row = db.row(
            "run_schedule",
            *("id", "schedule_id", "scheduled_for", "trigger", "status", "reason", "targeted"),
            p_schedule_id=found,
            p_idempotency_key=key,
        )
        db.commit()
        if wait and not options.current().dry_run:
            row = follow_run(db, row["id"], timeout)
    output.show_row(row)
    if not wait:
        output.did(f"Follow it with: pgfleet run watch {row['id']}")
    elif row["status"] != "completed" and not options.current().dry_run:
        raise typer.Exit(1)


def _read(db: Database, schedule_id: int, columns: tuple[str, ...]) -> dict[str, Any]:
    rows = db.find("schedule_list", {"id": schedule_id}, columns=columns)
    return names.found(rows, "schedule", schedule_id)
