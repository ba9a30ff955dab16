"""pgfleet schedule, seeing: preview, diff, explain, describe, conflicts, simulate."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.schedule.spec import Given, takes_a_schedule

app = options.Noun("What schedules will do, and why they did what they did.", panel="See")

Schedule = Annotated[
    str, typer.Argument(help="Name or id of the schedule.", autocompletion=completion.schedules)
]
Count = Annotated[int, typer.Option(min=1, max=1000, help="How many.")]
From = Annotated[
    str | None, typer.Option("--from", help="Look from this instant on; now without it.")
]
To = Annotated[str | None, typer.Option("--to", help="Look until before this instant.")]

_COLUMNS = ["due_at", "local_time", "zones", "would", "reason", "detail", "dst_note", "devices"]
_SPARE = ["detail", "zones", "due_at", "dst_note", "reason"]


@app.command()
def upcoming(schedule: Schedule, count: Count = 10, since: From = None) -> None:
    """List the next runs of a schedule: local time, what would be skipped, clock changes.

    Example: pgfleet schedule upcoming nightly --count 5
    """
    with open_database() as db:
        rows = db.call(
            "upcoming_runs",
            p_schedule_id=names.schedule_id(db, schedule),
            p_count=count,
            p_from=inputs.moment(since, "--from"),
        )
    output.show_rows(rows, _COLUMNS, spare=_SPARE)


@app.command()
@takes_a_schedule
def preview(
    given: Given,
    name: Annotated[str | None, typer.Argument(help="Name of the schedule.")] = None,
    count: Count = 10,
    since: From = None,
) -> None:
    """Show the next runs of a schedule before it is created; takes the options of create.

    Example: pgfleet schedule preview --action clear_cache --group labs --daily 02:30
    """
    with open_database() as db:
        spec = {"name": "preview"} | given.spec(db, name)
        rows = db.call(
            "preview_schedule",
            p_spec=json_value(spec),
            p_count=count,
            p_from=inputs.moment(since, "--from"),
        )
    output.show_rows(rows, _COLUMNS, spare=_SPARE)
    if not rows:
        output.say("It has no due instants of its own.")


@app.command()
@takes_a_schedule
def diff(given: Given, schedule: Schedule, count: Count = 20, since: From = None) -> None:
    """Show the coming runs before and after an edit, without making it.

    Example: pgfleet schedule diff nightly --daily 03:00
    """
    with open_database() as db:
        rows = db.call(
            "diff_schedule",
            p_schedule_id=names.schedule_id(db, schedule),
            p_changes=json_value(given.spec(db)),
            p_count=count,
            p_from=inputs.moment(since, "--from"),
        )
    output.show_rows(
        rows,
        ["change", "due_at", "local_time", "would_before", "would_after", "devices_after"],
    )


@app.command()
def explain(
    schedule: Schedule,
    at: Annotated[
        str,
        typer.Argument(help="The instant; without an offset, local to the schedule."),
    ],
    device: Annotated[str | None, typer.Option(help="Name or id of one device.")] = None,
) -> None:
    """Say whether a schedule ran at an instant, and if not, exactly why.

    Example: pgfleet schedule explain nightly 2026-03-29T02:30 --device lab-01
    """
    with open_database() as db:
        found = names.schedule_id(db, schedule)
        device_id = names.device_id(db, device) if device else None
        answer = db.value(
            "explain_schedule",
            p_schedule_id=found,
            p_at=_moment(db, found, device_id, at),
            p_device_id=device_id,
        )
    first = ("verdict", "reason", "detail", "local_time")
    output.show_row({key: answer.get(key) for key in first} | answer)


@app.command()
def describe(schedule: Schedule) -> None:
    """Say in plain English what a schedule does.

    Example: pgfleet schedule describe nightly
    """
    with open_database() as db:
        text = db.value("describe_schedule", p_schedule_id=names.schedule_id(db, schedule))
    if options.current().as_json or options.current().as_csv:
        output.show_row({"description": text})
    else:
        output.show_sentence(text)


@app.command()
def conflicts(
    schedule: Annotated[
        str | None, typer.Argument(help="Name or id; all schedules without it.")
    ] = None,
    within: Annotated[
        str, typer.Option(help="How close together counts as the same time: 5 minutes.")
    ] = "0 seconds",
    since: From = None,
    until: To = None,
) -> None:
    """Find schedules that touch the same devices at the same time; a week ahead without --to.

    Example: pgfleet schedule conflicts nightly --within "5 minutes"
    """
    with open_database() as db:
        rows = db.call(
            "schedule_conflicts",
            p_schedule_id=names.schedule_id(db, schedule) if schedule else None,
            p_from=inputs.moment(since, "--from"),
            p_to=inputs.moment(until, "--to"),
            p_within=within,
        )
    output.show_rows(
        rows,
        ["schedule", "other_schedule", "times", "devices", "first_at", "example_hostnames"],
    )


@app.command()
def simulate(since: From = None, until: To = None, limit: options.Limit = 1000) -> None:
    """Show what the whole fleet would do, a day ahead without --to; nothing is done.

    Example: pgfleet schedule simulate --from 2026-03-29T00:00Z --to 2026-03-30T00:00Z
    """
    with open_database() as db:
        rows = db.call(
            "simulate_fleet",
            p_from=inputs.moment(since, "--from"),
            p_to=inputs.moment(until, "--to"),
            p_limit=limit,
        )
    output.show_rows(rows, ["due_at", "name", "action_type", "would", "reason", "devices"])
    if len(rows) == limit:
        output.say(f"These are the first {limit}; see more with --limit.")
    output.say("Overlap cannot be known in advance: nobody knows how long devices will take.")


def _moment(db: Database, schedule_id: int, device_id: int | None, text: str) -> Any:
    """Read the instant; without an offset it is local to the schedule, or to the device."""
    zone = db.find("schedule_list", {"id": schedule_id}, columns=("timezone",))[0]["timezone"]
    if zone == "device":
        own = db.find("device_list", {"id": device_id or 0}, columns=("timezone",))
        zone = (own[0]["timezone"] if own else None) or "UTC"
    said = inputs.moment(text, "AT", zone=zone)
    if said is None or datetime.fromisoformat(said).tzinfo is not None:
        return said
    return db.value("fleet.local_to_instant", p_local=said, p_timezone=zone)
