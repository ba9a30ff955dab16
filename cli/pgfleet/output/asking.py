"""Questions to the person, and how far something long has got."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

from pgfleet import options
from pgfleet.errors import InvalidInput
from pgfleet.output import safe
from pgfleet.output.streams import is_terminal


class Progress(Protocol):
    """What a caller may pass to hear how far something long has got."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Take the name of the step and how many of its parts are done."""


def silent(step: str, done: int, total: int) -> None:
    """Be told of progress and say nothing."""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; where nobody can answer, refuse."""
    if yes or options.current().dry_run:
        return
    question = safe.one_line(question)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidInput(
            f"{question.rstrip('?').lower()}: not confirmed",
            reason="not_confirmed",
            hint="Pass --yes where nobody can be asked, or --dry-run to see what it would do",
        )
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show a bar while something long runs, on a terminal only."""
    if not is_terminal(sys.stderr):
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def advance(step: str, done: int, total: int) -> None:
            bar.update(task, description=safe.one_line(step), completed=done, total=total)

        yield advance
