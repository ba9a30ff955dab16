"""pgfleet blackout: calendars of times in which nothing runs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from pgfleet_functions.calendars.ics import Reading

app = options.Noun("Blackout calendars: times in which nothing runs.")

Calendar = Annotated[str, typer.Argument(help="Name or id of the calendar.")]
Description = Annotated[str | None, typer.Option(help="What the calendar is for.")]
Owner = Annotated[str | None, typer.Option(help="Name or id of the owner.")]

SkipTransparent = Annotated[
    bool, typer.Option("--skip-transparent", help="Leave out events that leave people free.")
]

_PERIOD = ("starts_on", "ends_on", "starts_at", "ends_at", "summary")


@app.command("list")
def list_calendars(limit: options.Limit = 1000) -> None:
    """List blackout calendars with how many periods each has.

    Example: pgfleet blackout list
    """
    with open_database() as db:
        rows = db.find("blackout_list", order=("name", "id"), limit=limit)
    output.show_rows(
        rows, ["id", "name", "periods", "description", "url", "looked_at", "look_error"]
    )


@app.command()
def show(calendar: Calendar, limit: options.Limit = 1000) -> None:
    """List the periods of a calendar; ends_on is the day after the last.

    Example: pgfleet blackout show holidays
    """
    with open_database() as db:
        rows = db.find(
            "blackout_period_list",
            {"calendar_id": _calendar(db, calendar)["id"]},
            columns=_PERIOD,
            order=("begins_at", "id"),
            limit=limit,
        )
    output.show_rows(rows)


@app.command(changes=True)
def create(
    name: Annotated[str, typer.Argument(help="Name, unique within its owner.")],
    day: Annotated[
        list[str] | None,
        typer.Option(help="DATE or FIRST..LAST, with =SUMMARY if you like; repeatable."),
    ] = None,
    periods: Annotated[str | None, typer.Option(help="JSON list of periods, @FILE, or -.")] = None,
    description: Description = None,
    owner: Owner = None,
) -> None:
    """Create a calendar of days, or of times given as JSON.

    Example: pgfleet blackout create holidays --day 2026-12-21..2027-01-03=Winter
    """
    given = inputs.json_text(periods, "--periods")
    if given is not None and not isinstance(given, list):
        raise InvalidInput(
            "--periods: must be a JSON list",
            reason="json_invalid",
            hint='Example: --periods \'[{"starts_on": "2026-12-25"}]\'',
        )
    whole = [*(given or []), *(_days(text) for text in day or [])]
    with open_database() as db:
        row = db.value(
            "create_blackout_calendar",
            p_name=name,
            p_periods=json_value(whole),
            p_description=description,
            p_owner_id=names.owner_id(db, owner),
        )
    output.show_row(row)


@app.command("import", changes=True)
def import_calendar(
    name: Annotated[str, typer.Argument(help="Calendar to fill; made where there is none.")],
    file: Annotated[str, typer.Argument(help="An .ics file; - for stdin.")],
    timezone: Annotated[
        str | None, typer.Option(help="For events that say none, an IANA name.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with an event that cannot be read.")
    ] = False,
    skip_transparent: SkipTransparent = False,
    description: Description = None,
    owner: Owner = None,
) -> None:
    """Fill a calendar from an ICS file; what it held before is replaced.

    Events that repeat are taken from a year ago to five years ahead, cancelled ones are none. An
    event that cannot be read is named and left out.

    Example: pgfleet blackout import holidays holidays.ics
    """
    reading = _read_calendar(inputs.read_bytes(file, "FILE"), timezone, skip_transparent)
    if strict and reading.left_out:
        raise InvalidInput(
            "; ".join(f'event "{one.event}": {one.problem}' for one in reading.left_out[:20]),
            reason="ics_event_unreadable",
            hint="Mend these events, or leave out --strict to take the others",
        )
    with open_database() as db:
        row = db.value(
            "import_blackouts",
            p_name=name,
            p_periods=json_value(reading.periods),
            p_description=description,
            p_owner_id=names.owner_id(db, owner),
        )
    output.show_row(row)
    for one in reading.left_out[:20]:
        output.say(f'Left out: event "{one.event}": {one.problem}.')
    if len(reading.left_out) > 20:
        output.say(f"Left out: {len(reading.left_out) - 20} more.")
    if reading.cancelled:
        output.say(f"Left out: {reading.cancelled} that are cancelled.")
    if reading.transparent:
        output.say(f"Left out: {reading.transparent} that leave people free.")


@app.command(changes=True)
def subscribe(
    url: Annotated[str, typer.Argument(help="Address of an iCalendar file: https: or webcal:.")],
    name: Annotated[
        str | None, typer.Option(help="Calendar to fill; else that of the host. Made if missing.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="For events that say none, an IANA name.")
    ] = None,
    skip_transparent: SkipTransparent = False,
    owner: Owner = None,
) -> None:
    """Let a calendar follow one elsewhere: looked at daily, and replaced by what is there.

    The functions look, so they must run; `blackout list` says when they did and what went wrong.

    Example: pgfleet blackout subscribe https://example.com/holidays.ics --name holidays
    """
    with open_database() as db:
        made = db.value(
            "subscribe_blackouts",
            p_url=url,
            p_name=name,
            p_timezone=timezone,
            p_skip_transparent=skip_transparent,
            p_owner_id=names.owner_id(db, owner),
        )
        row = db.find("blackout_list", {"id": made["id"]})[0]
    output.show_row(row)


@app.command(changes=True)
def unsubscribe(calendar: Calendar) -> None:
    """Let a calendar follow no other any more; its periods stay.

    Example: pgfleet blackout unsubscribe holidays
    """
    with open_database() as db:
        found = _calendar(db, calendar)["id"]
        db.value("unsubscribe_blackouts", p_calendar_id=found)
        row = db.find("blackout_list", {"id": found})[0]
    output.show_row(row)


@app.command(changes=True)
def delete(calendar: Calendar, yes: options.Yes = False) -> None:
    """Delete a calendar that no schedule uses.

    Example: pgfleet blackout delete holidays --yes
    """
    with open_database() as db:
        row = _calendar(db, calendar)
        db.commit()
        output.confirm(f"Delete calendar {row['name']}?", yes=yes)
        db.row("delete_blackout_calendar", "id", p_calendar_id=row["id"])
    output.show_row(row)
    output.did("Deleted.")


def _calendar(db: Database, text: str) -> dict[str, Any]:
    """Find a calendar by name or id; a name wins over an id."""
    found = db.value("blackout_calendar_id", p_name=text)
    return db.find("blackout_list", {"id": found}, columns=("id", "name", "description"))[0]


def _read_calendar(data: bytes, timezone: str | None, skip_transparent: bool) -> Reading:
    try:
        from pgfleet_functions.calendars.ics import CalendarUnreadable, read_calendar
    except ModuleNotFoundError as error:
        raise MissingExtra("admin", "Reading ICS files") from error
    try:
        return read_calendar(
            data,
            timezone=timezone,
            today=datetime.now(tz=UTC).date(),
            skip_transparent=skip_transparent,
        )
    except CalendarUnreadable as error:
        raise InvalidInput(error.message, reason=error.reason, hint=error.hint) from error


def _days(text: str) -> dict[str, Any]:
    """Read FIRST..LAST=SUMMARY; the database knows whether these are dates."""
    days, _, summary = text.partition("=")
    first, dots, last = days.partition("..")
    period = {"starts_on": first, "summary": summary}
    if dots:
        period["ends_on"] = _day_after(last)
    return period


def _day_after(text: str) -> str:
    try:
        return (date.fromisoformat(text) + timedelta(days=1)).isoformat()
    except ValueError:
        return text
