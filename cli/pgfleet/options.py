"""The options that every command shares, and the one way to add a noun with its verbs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_type_hints

import typer
from rich.markup import escape

_SHARED_PANEL = "With every command"

RootDatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        "-d",
        envvar="PGFLEET_DATABASE_URL",
        help="Where the database is; without it, the local stack that is running.",
        show_envvar=True,
    ),
]

# After the verb only what was typed counts: the environment must not win over `pgfleet -d …`.
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        "-d",
        help="Where the database is; else PGFLEET_DATABASE_URL, else the local stack.",
        rich_help_panel=_SHARED_PANEL,
    ),
]

_SHARED: dict[str, tuple[Any, Any]] = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_SHARED_PANEL)],
        False,
    ),
    "as_csv": (
        Annotated[bool, typer.Option("--csv", help="Print CSV.", rich_help_panel=_SHARED_PANEL)],
        False,
    ),
    "show_sql": (
        Annotated[
            bool,
            typer.Option(
                "--show-sql",
                help="Print, to stderr, the SQL that runs.",
                rich_help_panel=_SHARED_PANEL,
            ),
        ],
        False,
    ),
    "database_url": (DatabaseUrl, None),
}

# What fits in a terminal of 80 columns beside the margins of the help.
_EXAMPLE_WIDTH = 76

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
Limit = Annotated[int, typer.Option(min=1, help="How many rows to show at most.")]


@dataclass(frozen=True, slots=True)
class Options:
    """What the shared options were set to, and where to look for a database else."""

    database_url: str | None = None
    running_stack: Callable[[], str | None] = lambda: None
    as_json: bool = False
    as_csv: bool = False
    show_sql: bool = False


_current: ContextVar[Options] = ContextVar("pgfleet_options", default=Options())  # noqa: B039


def current() -> Options:
    """Give the options of the command that runs."""
    return _current.get()


@contextmanager
def using(options: Options) -> Iterator[None]:
    """Let the options hold inside the block."""
    token = _current.set(options)
    try:
        yield
    finally:
        _current.reset(token)


class Commands(typer.Typer):
    """A group of commands whose help is their docstring, to be read and copied as it is."""

    def __init__(self, help: str | None = None, *, panel: str | None = None) -> None:
        """Take what the group is about, and the panel of the help in which its commands stand."""
        super().__init__(
            help=help,
            no_args_is_help=True,
            rich_markup_mode="rich",
            pretty_exceptions_enable=False,
            add_completion=False,
        )
        self._panel = panel

    def command(  # type: ignore[override]
        self, name: str | None = None, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a command, under its own name unless another is given."""

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            text = _help_text(function)
            register = super(Commands, self).command(
                name, help=text, rich_help_panel=self._panel, **settings
            )
            register(self._prepared(function))
            return function

        return add

    def _prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function


class Noun(Commands):
    """A group of commands about one thing; each takes the shared options."""

    def _prepared(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _with_shared_options(function)


def _help_text(function: Callable[..., Any]) -> str:
    """Give a docstring as the help that is printed: prose flows, an example stays a command."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return escape(
        "\n\n".join(
            _example(text) if text.startswith("Example:") else " ".join(text.split())
            for text in paragraphs
        )
    )


def _example(text: str) -> str:
    """Break a long command before an option, so that the shell still takes it as one."""
    broken = []
    for line in text.splitlines():
        while len(line) > _EXAMPLE_WIDTH and (cut := line.rfind(" --", 20, _EXAMPLE_WIDTH)) > 0:
            broken.append(line[:cut] + " \\")
            line = f"    {line[cut + 1 :]}"
        broken.append(line)
    return "\n".join(broken)


def _with_shared_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that Typer sees the shared options after its own."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(**given: Any) -> Any:
        shared = {name: given.pop(name) for name in _SHARED}
        if shared["as_json"] and shared["as_csv"]:
            raise typer.BadParameter("choose one of --json and --csv")
        if shared["database_url"] is None:
            shared["database_url"] = current().database_url
        with using(replace(current(), **shared)):
            return function(**given)

    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
    ]
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _SHARED.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *extra])  # type: ignore[attr-defined]
    run.__annotations__ = {**hints, **{name: kind for name, (kind, _) in _SHARED.items()}}
    return run
