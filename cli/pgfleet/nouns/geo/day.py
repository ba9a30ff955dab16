"""pgfleet geo day: one day of a device as a row of boxes for each geo schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from pgfleet import names, options, output
from pgfleet.database import open_database
from pgfleet.errors import InvalidInput

if TYPE_CHECKING:
    from rich.table import Table

app = options.Noun("One day of a device.")

_COLUMNS = ("name", "starts_at", "ends_at", "apps", "state", "reason")
_DAY = timedelta(days=1)
# What is drawn: where apps are blocked, where only that device is not, where they are no more.
_BLOCKED, _SPARED, _NOTHING = "█", "░", "·"


@app.command()
def day(
    device: Annotated[str, typer.Argument(help="Host name or id of the device.")],
    date_: Annotated[
        str | None, typer.Option("--date", help="Of this date, such as 2027-01-11; else today.")
    ] = None,
) -> None:
    """Draw one day of a device on its own wall: which apps are blocked when.

    Example: pgfleet geo day pc-1 --date 2027-01-11
    """
    asked = _date(date_)
    with open_database() as db:
        number = names.device_id(db, device)
        [found] = db.find("device_list", {"id": number}, columns=("hostname", "timezone"))
        zone = _zone(found["timezone"])
        midnight = datetime.combine(asked or datetime.now(zone).date(), time(), zone)
        answer = db.value("explain_geo", p_device_id=number, p_at=midnight.isoformat())
    rows = [row for row in answer["actions"] if row["state"] != "released"]
    output.show_drawing(rows, _COLUMNS, lambda: drawn(rows, midnight, output.console().width))
    output.say(f"{found['hostname']}, {midnight:%A, %Y-%m-%d}, {zone.key}.")


def boxes(starts: datetime, ends: datetime, mark: str, count: int) -> str:
    """Draw a span of a day, in hours since midnight on the wall, as so many boxes."""
    length = _DAY / count
    midnight = datetime.combine(starts.date(), time())
    slots = (midnight + nr * length for nr in range(count))
    return "".join(mark if slot < ends and slot + length > starts else _NOTHING for slot in slots)


def drawn(rows: Sequence[Any], midnight: datetime, width: int) -> Table:
    """Draw actions as they lie in the day that begins at a midnight."""
    from rich.table import Table

    count = 48 if width >= 100 else 24
    step = count // 8
    hours = "".join(f"{3 * nr:02}".ljust(step) for nr in range(8))
    table = Table(box=None, header_style="", pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column(hours, no_wrap=True, min_width=count)
    table.add_column("apps", overflow="ellipsis", no_wrap=True)
    for row in rows:
        # As its wall shows them, within this day.
        starts, ends = (
            datetime.fromisoformat(row[key]).astimezone(midnight.tzinfo).replace(tzinfo=None)
            for key in ("starts_at", "ends_at")
        )
        first = midnight.replace(tzinfo=None)
        mark = _SPARED if row["status"] in ("skipped", "failed") else _BLOCKED
        bar = boxes(max(starts, first), min(ends, first + _DAY), mark, count)
        what = ", ".join(row["apps"]) or "by a profile"
        where = "" if row["side"] == "anywhere" else f" ({row['side']})"
        table.add_row(output.one_line(row["name"]), bar, output.one_line(what + where))
    return table


def _date(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f'--date: "{text}" is not a date', reason="time_invalid", hint="Example: 2027-01-11"
        ) from None


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # The server may know more of them than this machine.
        return ZoneInfo("UTC")
