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
from typer.core import TyperGroup

from pgfleet.errors import FleetError
from pgfleet.guesses import UsageError, close

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

RootReadDatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--read-database-url",
        envvar="PGFLEET_READ_DATABASE_URL",
        help="A replica of that database, which verbs that change nothing ask instead.",
        show_envvar=True,
    ),
]

RootAs = Annotated[
    str | None,
    typer.Option(
        "--as",
        envvar="PGFLEET_AS",
        help="Do it with the rights of this person: an e-mail address or id.",
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
    "utc": (
        Annotated[
            bool,
            typer.Option("--utc", help="Give exact times, in UTC.", rich_help_panel=_SHARED_PANEL),
        ],
        False,
    ),
    "database_url": (DatabaseUrl, None),
}

# What every verb takes that changes something in the database.
_CHANGING: dict[str, tuple[Any, Any]] = {
    "dry_run": (
        Annotated[
            bool,
            typer.Option(
                "--dry-run",
                help="Try it, say how many devices it would touch, and take it back.",
                rich_help_panel=_SHARED_PANEL,
            ),
        ],
        False,
    ),
}

# What fits in a terminal of 80 columns beside the margins of the help.
_EXAMPLE_WIDTH = 76

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it until it is over.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds after which the waiting ends, with 1.")
]
Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Look on while it changes, until Ctrl-C.")
]
Limit = Annotated[int, typer.Option(min=1, help="How many rows to show at most.")]


@dataclass(frozen=True, slots=True)
class Options:
    """What the shared options were set to, and where to look for a database else."""

    database_url: str | None = None
    read_database_url: str | None = None
    # Whether the verb may change something, and so has to ask the database itself.
    changes: bool = False
    acting_as: str | None = None
    running_stack: Callable[[], str | None] = lambda: None
    # The address of its API and its service key.
    running_api: Callable[[], tuple[str, str] | None] = lambda: None
    as_json: bool = False
    as_csv: bool = False
    show_sql: bool = False
    utc: bool = False
    dry_run: bool = False


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


@contextmanager
def quietly() -> Iterator[None]:
    """Print no SQL inside the block: it holds a secret."""
    with using(replace(current(), show_sql=False)):
        yield


class VerbGroup(TyperGroup):
    """The verbs of a noun; where there is none of a name, the error says which may be meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            error.meant = close(args[0], self.list_commands(ctx))
            raise


class Commands(typer.Typer):
    """A group of commands whose help is their docstring, to be read and copied as it is."""

    def __init__(self, help: str | None = None, *, panel: str | None = None) -> None:
        """Take what the group is about, and the panel of the help in which its commands stand."""
        super().__init__(
            cls=VerbGroup,
            help=help,
            no_args_is_help=True,
            rich_markup_mode="rich",
            pretty_exceptions_enable=False,
            add_completion=False,
        )
        self._panel = panel

    def command(  # type: ignore[override]
        self, name: str | None = None, *, changes: bool = False, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a command, under its own name unless another is given.

        One that changes something in the database can be tried with --dry-run.
        """

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            text = _help_text(function)
            register = super(Commands, self).command(
                name, help=text, rich_help_panel=self._panel, **settings
            )
            register(self._prepared(function, changes))
            return function

        return add

    def _prepared(self, function: Callable[..., Any], changes: bool) -> Callable[..., Any]:
        return function


class Noun(Commands):
    """A group of commands about one thing; each takes the shared options."""

    def _prepared(self, function: Callable[..., Any], changes: bool) -> Callable[..., Any]:
        return _with_options(function, _SHARED | _CHANGING if changes else _SHARED, changes)


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


def _with_options(
    function: Callable[..., Any], options: dict[str, tuple[Any, Any]], changes: bool
) -> Callable[..., Any]:
    """Wrap a command so that Typer sees the shared options after its own."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(**given: Any) -> Any:
        shared = {name: given.pop(name) for name in options}
        if shared["as_json"] and shared["as_csv"]:
            raise typer.BadParameter("choose one of --json and --csv")
        if shared["database_url"] is None:
            shared["database_url"] = current().database_url
        else:
            # Another database, of which no replica was named.
            shared["read_database_url"] = None
        with using(replace(current(), changes=changes, **shared)):
            try:
                return function(**given)
            except FleetError as error:
                error.is_beside_sql = shared["show_sql"]
                raise

    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
    ]
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *extra])  # type: ignore[attr-defined]
    run.__annotations__ = {**hints, **{name: kind for name, (kind, _) in options.items()}}
    return run
