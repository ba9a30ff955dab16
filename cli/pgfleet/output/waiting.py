"""Waiting for something that goes on by itself, and looking on while it changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import typer

from pgfleet.errors import Unavailable
from pgfleet.output.show import drawn, show_rows
from pgfleet.output.streams import is_terminal, say
from pgfleet.output.tables import Row, card, console

_LOOK_SECONDS = 0.5
_REFRESH_SECONDS = 1.0
EXIT_INTERRUPTED = 130


def follow(
    look: Callable[[], tuple[Any, str, bool]],
    *,
    timeout: float | None,
    what: str,
    goes_on: str,
    reason: str = "wait_timeout",
) -> Any:
    """Look again until it is over, telling each change; `look` gives the thing, its word and that.

    Raises Unavailable when the time is over. After Ctrl-C the person hears what goes on, and how
    to stop that.
    """
    end = None if timeout is None else time.monotonic() + timeout
    told = None
    try:
        while True:
            found, word, is_over = look()
            if word != told:
                say(f"{what}: {word}")
                told = word
            if is_over:
                return found
            if end is not None and time.monotonic() > end:
                raise Unavailable(
                    f"{what}: still {told} after {timeout:g} s",
                    reason=reason,
                    hint=goes_on,
                )
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        say(f"No longer waiting; {what} goes on. {goes_on}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def look_on(
    read: Callable[[], Any], draw: Callable[[Any], str], is_over: Callable[[Any], bool]
) -> Any:
    """Draw again every second until Ctrl-C, or until it is over; gives what was read last."""
    from rich.live import Live
    from rich.text import Text

    if not is_terminal():
        raise Unavailable(
            "--watch: stdout is no terminal",
            reason="not_a_terminal",
            hint="Leave --watch out; to wait for the end there are pgfleet run watch and "
            "pgfleet command watch",
        )
    screen = console()
    try:
        with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                found = read()
                live.update(Text.from_ansi(draw(found)), refresh=True)
                if is_over(found):
                    return found
                time.sleep(_REFRESH_SECONDS)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def show_or_watch(
    read: Callable[[], list[dict[str, Any]]], columns: list[str], spare: list[str], *, watch: bool
) -> None:
    """Print a list, or look on at it until Ctrl-C."""
    if not watch:
        show_rows(read(), columns, spare=spare)
        return
    look_on(
        read,
        lambda rows: drawn(rows, columns, spare) if rows else "Nothing found.",
        lambda _: False,
    )


def watch_row(read: Callable[[], Row], is_over: Callable[[Row], bool]) -> Row:
    """Look on at one thing until it is over, or Ctrl-C."""
    found: Row = look_on(read, lambda row: "\n".join(card(row, console().width)), is_over)
    return found
