"""What a command found: a table, a card, JSON or CSV, as was asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from pgfleet import options
from pgfleet.output import pages, safe, tables, values, words
from pgfleet.output.streams import is_terminal, say, styled, write
from pgfleet.output.tables import Row


def show_rows(
    rows: Sequence[Row], columns: Sequence[str] | None = None, *, spare: Sequence[str] = ()
) -> None:
    """Print a list; as a table it has these columns only, as JSON or CSV it has all.

    In a narrow window the `spare` columns go first, then those on the right.
    """
    chosen = options.current()
    columns = _with_owners(rows, columns)
    if chosen.as_json:
        write(values.as_json([dict(row) for row in rows], indent=2))
    elif chosen.as_csv:
        _print_csv(rows)
    elif not rows and is_terminal():
        say("Nothing found.")
    elif is_terminal():
        pages.show(drawn(rows, columns, spare))
    else:
        _print_lines(rows, columns)


def _with_owners(rows: Sequence[Row], columns: Sequence[str] | None) -> Sequence[str] | None:
    """Add whose the rows are where they are not all of one owner."""
    if columns is None or "owner" in columns or len({row.get("owner") for row in rows}) < 2:
        return columns
    return [*columns, "owner"]


def drawn(
    rows: Sequence[Row], columns: Sequence[str] | None = None, spare: Sequence[str] = ()
) -> str:
    """Give a table as it is drawn in this window."""
    console = tables.console()
    with console.capture() as captured:
        console.print(tables.table(rows, columns or list(rows[0]), spare, console.width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def show_drawing(rows: Sequence[Row], columns: Sequence[str], draw: Callable[[], Any]) -> None:
    """Print a drawing of the rows on a terminal, and the rows everywhere else."""
    chosen = options.current()
    if chosen.as_json or chosen.as_csv or not is_terminal():
        show_rows(rows, columns)
        return
    tables.console().print(draw())


def show_row(row: Row) -> None:
    """Print one thing with all that is known of it."""
    chosen = options.current()
    if chosen.as_json:
        write(values.as_json(dict(row), indent=2))
    elif chosen.as_csv:
        _print_csv([row])
    elif is_terminal():
        pages.show("\n".join(tables.card(row, tables.console().width)))
    else:
        for name, value in row.items():
            write(f"{name}\t{safe.one_line(values.as_text(value))}")


def show_made(row: Row, lines: Sequence[str]) -> None:
    """Print what was made in a few lines, and all of it as JSON or CSV."""
    chosen = options.current()
    if chosen.as_json or chosen.as_csv:
        show_row(row)
    else:
        write(safe.visible("\n".join(lines)))


def show_variables(found: Row) -> None:
    """Print names and values that are to be copied: on a terminal too, one whole line for each."""
    chosen = options.current()
    if chosen.as_json or chosen.as_csv or not is_terminal():
        show_row(found)
        return
    for name, value in found.items():
        # Written past rich, which would break a key at the edge of the window.
        write(f"{styled(name, 'bold')}={safe.one_line(values.as_text(value))}")


def show_text(text: str) -> None:
    """Print text that is itself the data, such as a script."""
    write((safe.visible(text) if is_terminal() else text).rstrip("\n"))


def show_sentence(text: str) -> None:
    """Print prose, on a terminal in lines that end between words."""
    if is_terminal():
        text = "\n".join(words.wrapped(safe.one_line(text), tables.console().width))
    write(text)


def _print_csv(rows: Sequence[Row]) -> None:
    if not rows:
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(values.in_csv(name) for name in rows[0])
    for row in rows:
        writer.writerow(values.in_csv(value) for value in row.values())
    write(text.getvalue().removesuffix("\n"))


def _print_lines(rows: Sequence[Row], columns: Sequence[str] | None) -> None:
    """Print for a pipe: tabs between the columns, nothing cut off."""
    if not rows:
        return
    names = columns or list(rows[0])
    write("\t".join(names))
    for row in rows:
        write("\t".join(safe.one_line(values.as_text(row[name])) for name in names))
