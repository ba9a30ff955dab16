"""pgfleet telemetry: what devices measured, drawn, listed and exported."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import open_database
from pgfleet.errors import InvalidInput, MissingExtra
from pgfleet.nouns.telemetry import rule
from pgfleet.output import safe
from pgfleet.schema import telemetry

app = options.Noun("Telemetry: what devices measured.")
app.add_typer(rule.app, name="rule")

Device = Annotated[str, typer.Argument(help="Host name or id of the device.")]
Since = Annotated[str, typer.Option(help="From when on: a time, or such as 6h or 7d ago.")]
Until = Annotated[str | None, typer.Option(help="Until when; now unless given.")]
Url = Annotated[
    str | None,
    typer.Option(
        "--telemetry-url",
        envvar="PGFLEET_TELEMETRY_URL",
        help="The database of telemetry, where it is not the same one.",
    ),
]

BARS = "▁▂▃▄▅▆▇█"
MOST = 10**300
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = ("recorded_at", "source", "path", "data")


@app.command()
def show(
    device: Device,
    field: Annotated[str | None, typer.Argument(help="Number to draw: battery, gps.lat.")] = None,
    since: Since = "24h",
    until: Until = None,
    limit: options.Limit = 1000,
    url: Url = None,
) -> None:
    """Draw what a device measured, or list it where there is no terminal.

    Example: pgfleet telemetry show pc-1 battery --since 7d
    """
    rows = _points(device, since, until, limit, url)
    drawn = _numbers(rows)
    chosen = [field] if field else sorted(drawn)[:4]
    missing = [one for one in chosen if one not in drawn]
    if field and rows and missing:
        raise InvalidInput(
            f"no point has a number {field}",
            reason="field_unknown",
            hint=f"There are {', '.join(sorted(drawn)) or 'no numbers at all'}.",
        )
    output.show_drawing(rows, _COLUMNS, lambda: _drawing({one: drawn[one] for one in chosen}))


@app.command()
def export(
    device: Device,
    file: Annotated[Path, typer.Argument(help="FILE.csv or FILE.parquet")],
    since: Since = "24h",
    until: Until = None,
    limit: options.Limit = 100_000,
    url: Url = None,
) -> None:
    """Write points to a file, each number of theirs a column.

    Example: pgfleet telemetry export pc-1 points.csv --since 7d
    """
    if file.suffix not in (".csv", ".parquet"):
        raise InvalidInput(
            f"{file} is neither a .csv nor a .parquet file",
            reason="option_invalid",
            hint="Example: pgfleet telemetry export pc-1 points.csv",
        )
    rows = [_flat(row) for row in _points(device, since, until, limit, url)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        (_write_csv if file.suffix == ".csv" else _write_parquet)(file, columns, rows)
    except OSError as error:
        raise InvalidInput(
            f"cannot write {file}: {error.strerror}", reason="file_unwritable"
        ) from error
    output.say(f"{len(rows)} points are in {file}.")


@app.command()
def gaps(
    device: Device,
    longer_than: Annotated[str, typer.Option(help="Such as 30m, 2h or 1d.")] = "30m",
    since: Since = "24h",
    until: Until = None,
    url: Url = None,
) -> None:
    """List when a device was silent for long.

    Example: pgfleet telemetry gaps pc-1 --longer-than 2h --since 7d
    """
    start, end, pause = _moment(since), _end(until), _duration(longer_than)
    with open_database() as db:
        number = names.device_id(db, device)
        if url is None:
            rows = db.call(
                "telemetry_gaps", p_device_id=number, p_longer_than=pause, p_from=start, p_to=end
            )
        else:
            rows = telemetry.gaps(url, number, start, end, pause)
    output.show_rows(rows, ["gap_from", "gap_to", "lasted", "stream"])


@app.command()
def hours(
    device: Device,
    field: Annotated[str | None, typer.Argument(help="Number, such as battery; else all.")] = None,
    since: Since = "7d",
    until: Until = None,
    url: Url = None,
) -> None:
    """List the numbers of a device by the hour.

    Example: pgfleet telemetry hours pc-1 battery
    """
    start, end = _moment(since), _end(until)
    with open_database() as db:
        number = names.device_id(db, device)
        if url is None:
            rows = db.call(
                "telemetry_hours", p_device_id=number, p_field=field, p_from=start, p_to=end
            )
        else:
            rows = telemetry.hours(url, number, field, start, end)
    output.show_rows(rows)


@app.command()
def latest(limit: options.Limit = 100) -> None:
    """List the latest point of each device.

    Example: pgfleet telemetry latest --json
    """
    with open_database() as db:
        rows = db.find("device_telemetry_latest", order=("device_id", "stream"), limit=limit)
    output.show_rows(rows, ["device_id", "recorded_at", "source", "data"])


@app.command()
def prepare(
    url: Annotated[
        str,
        typer.Option("--telemetry-url", envvar="PGFLEET_TELEMETRY_URL", help="Where it is to be."),
    ],
) -> None:
    """Make the tables of telemetry in a database of their own, or bring them up to date.

    Example: pgfleet telemetry prepare --telemetry-url postgresql://fleet@db2.example.com/telemetry
    """
    for name in telemetry.prepare(url):
        output.say(name)
    output.say("Set PGFLEET_TELEMETRY_URL where the functions run.")


def _points(
    device: str, since: str, until: str | None, limit: int, url: str | None
) -> list[dict[str, Any]]:
    """Make the device out in the core, and read its points where they are."""
    start, end = _moment(since), _end(until)
    with open_database() as db:
        number = names.device_id(db, device)
        if url is not None:
            return telemetry.points(url, number, start, end, limit)
        return db.call(
            "telemetry_points", p_device_id=number, p_from=start, p_to=end, p_limit=limit
        )


def _numbers(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[datetime, float]]]:
    """Give each number of the points over time, the oldest first."""
    found: dict[str, list[tuple[datetime, float]]] = {}
    for row in reversed(rows):
        for name, value in _leaves(row["data"]):
            # What no double holds is no measurement, as for the figures of an hour.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and abs(value) < MOST:
                found.setdefault(name, []).append((row["recorded_at"], float(value)))
    return found


def _leaves(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(data, dict):
        yield prefix or "value", data
        return
    for name, value in data.items():
        yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Draw values as a line of blocks, at most so many of them."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    means = [
        sum(part) / len(part)
        for part in (values[n : n + size] for n in range(0, len(values), size))
    ]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((one - low) * scale)] for one in means)


def _drawing(fields: dict[str, list[tuple[datetime, float]]]) -> Any:
    """Draw a line for each field, and a plot where there is one only."""
    from rich.console import Group
    from rich.text import Text

    lines: list[Any] = []
    for name, points in fields.items():
        values = [value for _, value in points]
        span = f"{min(values):g} … {max(values):g}, now {values[-1]:g}"
        lines.append(Text(f"{safe.one_line(name):20} {sparkline(values)}  {span}"))
    if len(fields) == 1:
        ((name, points),) = fields.items()
        lines.append(Text.from_ansi(_plot(name, points)))
    return Group(*(lines or [Text("There is nothing to draw.")]))


def _plot(name: str, points: list[tuple[datetime, float]]) -> str:
    plotext = _module("plotext", "admin", "the plot")
    plotext.clear_figure()
    plotext.plot_size(100, 20)
    plotext.theme("clear")
    begin = points[0][0]
    hours_since = [(at - begin).total_seconds() / 3600 for at, _ in points]
    plotext.plot(hours_since, [value for _, value in points])
    plotext.title(safe.one_line(name))
    plotext.xlabel(f"hours since {begin:%Y-%m-%d %H:%M}")
    return str(plotext.build())


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    known = {name: row[name] for name in ("recorded_at", "received_at", "source", "path")}
    return known | {f"data.{name}": value for name, value in _leaves(row["data"])}


def _write_csv(file: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        # What devices wrote: no spreadsheet computes it.
        writer = csv.writer(stream)
        writer.writerow([safe.csv_cell(name) for name in columns])
        for row in rows:
            cells = [_cell(row.get(name)) for name in columns]
            writer.writerow([safe.csv_cell(one) if isinstance(one, str) else one for one in cells])


def _write_parquet(file: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    arrow, parquet = (
        _module(name, "parquet", "a Parquet file") for name in ("pyarrow", "pyarrow.parquet")
    )
    table: dict[str, list[Any]] = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        # A column has one kind of values; where devices do not agree on it, it is text.
        numbers = kinds <= {int, float}
        is_long = any(isinstance(value, int) and abs(value) >= 2**63 for value in values)
        same = (len(kinds) <= 1 or numbers) and not is_long
        table[name] = values if same and not kinds & {list, dict} else [_text(v) for v in values]
        if same and kinds == {int, float}:
            table[name] = [None if value is None else float(value) for value in values]
    parquet.write_table(arrow.table(table), file)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _text(value: Any) -> str | None:
    return None if value is None else str(_cell(value))


def _module(name: str, extra: str, needed_for: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(extra, needed_for) from error


def _duration(text: str) -> timedelta:
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not number.isdecimal() or len(number) > 5:
        raise InvalidInput(
            f"{text} is no duration", reason="duration_invalid", hint="Examples: 30m, 6h, 7d"
        )
    return timedelta(**{unit: int(number)})


def _moment(text: str) -> datetime:
    """Read a time, or how long ago it is."""
    if text[-1:] in _UNITS and text[:-1].isdecimal():
        return datetime.now(UTC) - _duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(
            f"{text} is no time",
            reason="time_invalid",
            hint="Examples: 7d, 2026-02-01, 2026-02-01T06:00:00Z",
        ) from error
    return found if found.tzinfo else found.astimezone()


def _end(text: str | None) -> datetime:
    return datetime.now(UTC) if text is None else _moment(text)
