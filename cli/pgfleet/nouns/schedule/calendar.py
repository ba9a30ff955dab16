"""pgfleet schedule calendar: days and weeks on the terminal, and iCalendar files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

app = options.Noun("Schedules day by day.", panel="See")

_STATES = ("coming", "skipping", "running", "completed", "failed", "skipped")
_SKIPS = ("skipping", "skipped")
# The first that a line has gives it its colour: what failed before what is under way.
_COLOURS = (
    ("failed", "red"),
    ("running", "cyan"),
    ("coming", "blue"),
    ("completed", "green"),
    ("skipped", "yellow"),
    ("skipping", "yellow"),
)
_WIDE = 80
_LINES_OF_A_MONTH_DAY = 4
_LINES_OF_A_WEEK_DAY = 20


@app.command()
def calendar(
    month: Annotated[str | None, typer.Option(help="This month: 2026-03.")] = None,
    week: Annotated[
        bool, typer.Option("--week", help="One week, that of --day, instead of a month.")
    ] = False,
    day: Annotated[str | None, typer.Option(help="A day of the week: 2026-03-29.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="In which zone the days are; this machine's without it.")
    ] = None,
    ics: Annotated[bool, typer.Option("--ics", help="Give an iCalendar file instead.")] = False,
    to_file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the iCalendar file.")
    ] = None,
    schedule: Annotated[
        list[str] | None, typer.Option(help="With --ics: only this one; repeatable.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="With --ics: only what reaches this device.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="With --ics: what the calendar is called.")
    ] = None,
) -> None:
    """Show which schedules run on which days, or write it as iCalendar (90 days ahead).

    Example: pgfleet schedule calendar --month 2026-03
    """
    zone = timezone or _local_zone()
    asked = week or day is not None or month is not None
    first, end = _span(month, day, week or day is not None)
    with open_database() as db:
        if ics:
            span = (first, end) if asked else None
            _write_ics(_read_ics(db, schedule, device, name, span, zone), to_file)
            return
        rows = db.call("schedule_calendar", p_from=first, p_to=end, p_timezone=zone)
    output.show_drawing(
        rows,
        ["day", "first_local", "name", *_STATES],
        lambda: _drawn(rows, first, end, f"{first:%B %Y} ({zone})"),
    )


def _span(month: str | None, day: str | None, is_week: bool) -> tuple[date, date]:
    """Give the first day and the one after the last."""
    try:
        if is_week:
            chosen = date.fromisoformat(day) if day else datetime.now(UTC).astimezone().date()
            monday = chosen - timedelta(days=chosen.weekday())
            return monday, monday + timedelta(days=7)
        chosen = date.fromisoformat(f"{month}-01") if month else date.today().replace(day=1)
    except ValueError as error:
        raise InvalidInput(
            f"{day or month}: is not a {'day' if is_week else 'month'}",
            reason="time_invalid",
            hint="Write a month like 2026-03 and a day like 2026-03-29",
        ) from error
    return chosen, (chosen + timedelta(days=31)).replace(day=1)


def _local_zone() -> str:
    """Name the time zone of this machine, UTC where it has no name."""
    named = os.environ.get("TZ", "").lstrip(":")
    if "/" in named:
        return named
    parts = Path("/etc/localtime").resolve().parts
    return "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else "UTC"


def _read_ics(
    db: Database,
    schedules: list[str] | None,
    device: str | None,
    name: str | None,
    span: tuple[date, date] | None,
    zone: str,
) -> str:
    wanted: dict[str, Any] = {}
    if schedules:
        wanted["schedule_ids"] = [names.schedule_id(db, text) for text in schedules]
    if device:
        wanted["device_id"] = names.device_id(db, device)
    if name:
        wanted["name"] = name
    begin, end = (_midnight(db, day, zone) for day in span or (None, None))
    if begin is not None:
        # What is over is in no calendar of what is to come.
        begin = max(begin, datetime.now(UTC))
    text = db.value("calendar_ics", p_filter=json_value(wanted), p_from=begin, p_to=end)
    return str(text)


def _midnight(db: Database, day: date | None, zone: str) -> datetime | None:
    if day is None:
        return None
    found: datetime = db.value(
        "fleet.local_to_instant", p_local=datetime.combine(day, time.min), p_timezone=zone
    )
    return found


def _write_ics(text: str, to_file: Path | None) -> None:
    if to_file is None:
        output.show_text(text)
    else:
        try:
            to_file.expanduser().write_bytes(text.encode())
        except OSError as error:
            raise InvalidInput(
                f"--output: cannot write {to_file}: {error.strerror}", reason="file_unwritable"
            ) from error
        output.say(f"Wrote {text.count('BEGIN:VEVENT')} runs to {to_file}.")
    for line in text.replace("\r\n ", "").split("\r\n"):
        if line.startswith("X-WR-CALDESC:"):
            output.say(line.removeprefix("X-WR-CALDESC:").replace("\\,", ","))


def _drawn(rows: Sequence[output.Row], first: date, end: date, title: str) -> Table:
    """Draw weeks as lines of days, Monday first."""
    from rich.table import Table
    from rich.text import Text

    is_week = (end - first).days == 7
    most = _LINES_OF_A_WEEK_DAY if is_week else _LINES_OF_A_MONTH_DAY
    # Seven days in a narrow window: the times, and what there is room for of the names.
    room = 1 if output.console().width >= _WIDE else 0
    table = Table(title=title, show_lines=True, title_style="bold", padding=(0, room))
    monday = first - timedelta(days=first.weekday())
    for offset in range(7):
        table.add_column(f"{monday + timedelta(days=offset):%a}", ratio=1, overflow="ellipsis")
    days = [monday + timedelta(days=n) for n in range((end - monday).days)]
    cells = [
        _cell(d, [row for row in rows if row["day"] == d], most) if d >= first else Text("")
        for d in days
    ]
    for start in range(0, len(cells), 7):
        table.add_row(*cells[start : start + 7])
    return table


def _cell(day: date, rows: Sequence[output.Row], most: int) -> Text:
    from rich.text import Text

    cell = Text(no_wrap=True, overflow="ellipsis")
    runs, skips = (sum(counted(row) for row in rows) for counted in (_runs, _skips))
    today = day == datetime.now(UTC).astimezone().date()
    cell.append(f"{day.day}", style="bold reverse" if today else "bold")
    if rows:
        told = f"{runs} run{'' if runs == 1 else 's'}" + (f", {skips} skipped" if skips else "")
        cell.append(f"  {told}" if output.console().width > _WIDE else f" x{runs}", style="dim")
    for row in rows[:most]:
        count = _runs(row) or _skips(row)
        times = f" x{count}" if count > 1 else ""
        cell.append(f"\n{row['first_local'][15:20]} {row['name']}{times}", style=_colour(row))
    if len(rows) > most:
        cell.append(f"\n+{len(rows) - most} more", style="dim")
    return cell


def _runs(row: output.Row) -> int:
    return sum(int(row[state]) for state in _STATES if state not in _SKIPS)


def _skips(row: output.Row) -> int:
    return sum(int(row[state]) for state in _SKIPS)


def _colour(row: output.Row) -> str:
    return next((colour for state, colour in _COLOURS if row[state]), "")
