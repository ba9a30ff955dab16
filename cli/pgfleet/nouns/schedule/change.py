"""pgfleet schedule update, duplicate and delete."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import completion, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.schedule.made import SHOWN, show_made
from pgfleet.nouns.schedule.spec import Given, takes_a_schedule

app = options.Noun("Change schedules.")

Schedule = Annotated[
    str, typer.Argument(help="Name or id of the schedule.", autocompletion=completion.schedules)
]
NewName = Annotated[str | None, typer.Option("--name", help="Its new name.")]


@app.command(changes=True)
@takes_a_schedule
def update(
    given: Given,
    schedule: Schedule,
    name: NewName = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(help="Empty this: end_time, selector, after, profile_id; repeatable."),
    ] = None,
) -> None:
    """Change what is named of a schedule; the next run is computed anew, history stays.

    Example: pgfleet schedule update nightly --daily 03:00 --priority 5
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        changes = given.spec(db, name) | dict.fromkeys(clear or [])
        row = db.value("update_schedule", p_schedule_id=found, p_changes=json_value(changes))
        db.touches("schedule", found)
        row = _read(db, row)
    show_made(row, "changed")


@app.command(changes=True)
@takes_a_schedule
def duplicate(
    given: Given,
    schedule: Schedule,
    name: NewName = None,
    active: Annotated[bool, typer.Option("--active", help="Start it at once.")] = False,
) -> None:
    """Make a schedule like another; it is paused until it is resumed.

    Example: pgfleet schedule duplicate nightly --name 'nightly, office' --group office
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        changes = given.spec(db, name) | ({"status": "active"} if active else {})
        row = db.value("duplicate_schedule", p_schedule_id=found, p_changes=json_value(changes))
        db.touches("schedule", row["id"])
        row = _read(db, row)
    show_made(row, "made")


@app.command(changes=True)
def delete(schedule: Schedule, yes: options.Yes = False) -> None:
    """Delete a schedule with its history; to keep that, cancel it instead.

    Example: pgfleet schedule delete nightly --yes
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        columns = ("id", "name", "status", "runs", "commands")
        row = db.find("schedule_list", {"id": found}, columns=columns)[0]
        db.commit()
        output.confirm(f"Delete schedule {row['name']} with its {row['runs']} runs?", yes=yes)
        db.touches("schedule", found)
        db.row("delete_schedule", "id", p_schedule_id=found)
    output.show_row(row)
    output.did("Deleted.")


def _read(db: Database, made: dict[str, Any]) -> dict[str, Any]:
    """Read what was stored, beside the warnings that only the storing function gives."""
    rows = db.find("schedule_list", {"id": made["id"]}, columns=SHOWN)
    return rows[0] | {"warnings": made.get("warnings", [])}
