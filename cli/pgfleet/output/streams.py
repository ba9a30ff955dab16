"""Data to stdout, talk to stderr: the only module that writes to them."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from typing import Any

import typer

from pgfleet import options
from pgfleet.errors import FleetError
from pgfleet.output import safe, words


def write(text: str) -> None:
    """Write data to stdout, one line or several; what is in them has been made harmless."""
    typer.echo(text)


def say(text: str) -> None:
    """Tell the person something that is not data; beside printed SQL it is a comment."""
    _talk(safe.visible(text))


def did(text: str) -> None:
    """Tell the person what has been done; in a dry run nothing has."""
    if not options.current().dry_run:
        say(text)


def show_sql(text: str) -> None:
    """Print a statement so that it can be pasted back as it is."""
    typer.echo(safe.visible(text), err=True)


def warn(text: str) -> None:
    """Tell the person of something that is allowed and may not be meant."""
    _talk(f"{styled('Warning:', 'yellow', sys.stderr)} {safe.visible(text)}")


def show_error(error: FleetError) -> None:
    """Print what went wrong, and what to do next where that is known."""
    lines = [f"{styled('Error:', 'red', sys.stderr)} {safe.visible(error.message)}"]
    if error.reason and " " not in error.reason:
        lines.append(f"Reason: {safe.visible(error.reason)}")
    if error.hint:
        lines.append(f"{styled('Hint:', 'cyan', sys.stderr)} {safe.visible(error.hint)}")
    with options.using(replace(options.current(), show_sql=error.is_beside_sql)):
        _talk("\n".join(lines))


def is_terminal(stream: Any = None) -> bool:
    """Tell whether a person looks at a stream, at stdout unless another is named."""
    return bool((stream or sys.stdout).isatty())


def styled(text: str, colour: str, stream: Any = None) -> str:
    """Colour a word for a stream, where that shows colours and they are wanted."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    if colour == "dim":
        return typer.style(text, dim=True)
    return typer.style(text, fg=None if colour == "bold" else colour, bold=True)


def _talk(text: str) -> None:
    if is_terminal(sys.stderr):
        width = shutil.get_terminal_size().columns
        text = "\n".join(part for line in text.splitlines() for part in words.wrapped(line, width))
    if options.current().show_sql:
        text = "\n".join(f"-- {line}" for line in text.splitlines())
    typer.echo(text, err=True)
