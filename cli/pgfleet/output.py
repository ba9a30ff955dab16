"""Data to stdout, talk to stderr: the only module that prints."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import typer

from pgfleet import options
from pgfleet.errors import FleetError, InvalidInput

Row = Mapping[str, Any]


class Progress(Protocol):
    """What a caller may pass to hear how far something long has got."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Take the name of the step and how many of its parts are done."""


def silent(step: str, done: int, total: int) -> None:
    """Be told of progress and say nothing."""


_COLOURS = {
    "completed": "green",
    "active": "green",
    "running": "cyan",
    "pending": "yellow",
    "paused": "yellow",
    "skipped": "yellow",
    "failed": "red",
    "expired": "red",
    "cancelled": "dim",
    "retired": "dim",
}


def show_rows(rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
    """Print a list; as a table it has these columns only, as JSON or CSV it has all."""
    chosen = options.current()
    if chosen.as_json:
        _print_json([dict(row) for row in rows])
    elif chosen.as_csv:
        _print_csv(rows)
    elif _is_terminal():
        _print_table(rows, columns)
    else:
        _print_lines(rows, columns)


def show_drawing(rows: Sequence[Row], columns: Sequence[str], draw: Callable[[], Any]) -> None:
    """Print a drawing of the rows on a terminal, and the rows everywhere else."""
    chosen = options.current()
    if chosen.as_json or chosen.as_csv or not _is_terminal():
        show_rows(rows, columns)
        return
    from rich.console import Console

    Console().print(draw())


def show_row(row: Row) -> None:
    """Print one thing with all that is known of it."""
    chosen = options.current()
    if chosen.as_json:
        _print_json(dict(row))
    elif chosen.as_csv:
        _print_csv([row])
    elif _is_terminal():
        _print_card(row)
    else:
        for name, value in row.items():
            typer.echo(f"{name}\t{_one_line(value)}")


def show_variables(values: Row) -> None:
    """Print names and values that are to be copied: on a terminal too, one whole line for each."""
    chosen = options.current()
    if chosen.as_json or chosen.as_csv or not _is_terminal():
        show_row(values)
        return
    for name, value in values.items():
        # Written past rich, which would break a key at the edge of the window.
        typer.echo(f"{typer.style(name, bold=True)}={_one_line(value)}")


def show_text(text: str) -> None:
    """Print text that is itself the data, such as a script."""
    typer.echo(text.rstrip("\n"))


def say(text: str) -> None:
    """Tell the person something that is not data."""
    typer.echo(text, err=True)


def show_error(error: FleetError) -> None:
    """Print what went wrong, and what to do next where that is known."""
    colour = _is_terminal(sys.stderr)
    typer.echo(f"{_styled('Error:', colour, 'red')} {error.message}", err=True)
    if error.reason and " " not in error.reason:
        say(f"Reason: {error.reason}")
    if error.hint:
        typer.echo(f"{_styled('Hint:', colour, 'cyan')} {error.hint}", err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; where nobody can answer, refuse."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(
            f"{question.rstrip('?').lower()}: not confirmed",
            reason="not_confirmed",
            hint="Pass --yes where nobody can be asked",
        )
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show a bar while something long runs, on a terminal only."""
    if not _is_terminal(sys.stderr):
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def advance(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        yield advance


def as_text(value: Any) -> str:
    """Write one value for a person: times in the local zone, JSON in one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().isoformat(sep=" ", timespec="seconds")
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict | list):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(value)


def _is_terminal(stream: Any = None) -> bool:
    return bool((stream or sys.stdout).isatty())


def _styled(text: str, colour: bool, name: str) -> str:
    if not colour or os.environ.get("NO_COLOR"):
        return text
    return typer.style(text, fg=name, bold=True)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def _print_csv(rows: Sequence[Row]) -> None:
    if not rows:
        return
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(_cell(value) for value in row.values())


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return "" if value is None else _plain(value)


def _one_line(value: Any) -> str:
    return " ".join(as_text(value).split())


def _print_lines(rows: Sequence[Row], columns: Sequence[str] | None) -> None:
    """Print for a pipe: tabs between the columns, nothing cut off."""
    if not rows:
        return
    names = columns or list(rows[0])
    typer.echo("\t".join(names))
    for row in rows:
        typer.echo("\t".join(_one_line(row[name]) for name in names))


def _print_table(rows: Sequence[Row], columns: Sequence[str] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        say("Nothing found.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = columns or list(rows[0])
    for name in names:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(as_text(row[n]), style=_style(n, row[n])) for n in names))
    Console().print(table)


def _print_card(row: Row) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in row.items():
        table.add_row(name.replace("_", " "), Text(as_text(value), style=_style(name, value)))
    Console().print(table)


def _style(name: str, value: Any) -> str:
    return _COLOURS.get(str(value), "") if name == "status" else ""
