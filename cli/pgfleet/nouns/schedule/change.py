"""pgfleet schedule update, duplicate and delete."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import json_value, open_database
from pgfleet.nouns.schedule.spec import Given, takes_a_schedule

app = options.Noun("Change schedules.")

Schedule = Annotated[str, typer.Argument(help="Name or id of the schedule.")]
NewName = Annotated[str | None, typer.Option("--name", help="Its new name.")]


@app.command()
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
        row = db.row(
            "select public.update_schedule(%(id)s, %(changes)s) as schedule",
            {"id": found, "changes": json_value(changes)},
        )["schedule"]
    _show(row)


@app.command()
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
        row = db.row(
            "select public.duplicate_schedule(%(id)s, %(changes)s) as schedule",
            {"id": found, "changes": json_value(changes)},
        )["schedule"]
    _show(row)


@app.command()
def delete(schedule: Schedule, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Delete a schedule with its history; to keep that, cancel it instead.

    Example: pgfleet schedule delete nightly --yes
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        row = db.row(
            """
            select
              s.id, s.name, s.status,
              (select count(*) from public.schedule_runs as r where r.schedule_id = s.id) as runs,
              (select count(*) from public.device_commands as c where c.schedule_id = s.id)
                as commands
            from public.schedules as s
            where s.id = %(id)s
            """,
            {"id": found},
        )
        if not dry_run:
            db.commit()
            question = f"Delete schedule {row['name']} with its {row['runs']} runs?"
            output.confirm(question, yes=yes)
            db.row("select id from public.delete_schedule(%(id)s)", {"id": found})
    output.show_row(row)
    output.say("Would be deleted." if dry_run else "Deleted.")


def _show(row: dict[str, Any]) -> None:
    output.show_row(row)
    for warning in row.get("warnings", []):
        output.say(f"Warning: {warning}")
