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
    ),
]

_SHARED: dict[str, tuple[Any, Any]] = {
    "as_json": (
        Annotated[bool, typer.Option("--json", help="Print JSON.")],
        False,
    ),
    "as_csv": (
        Annotated[bool, typer.Option("--csv", help="Print CSV.")],
        False,
    ),
    "show_sql": (
        Annotated[
            bool,
            typer.Option("--show-sql", help="Print, to stderr, the SQL that runs."),
        ],
        False,
    ),
    "database_url": (DatabaseUrl, None),
}

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


class Noun(typer.Typer):
    """A group of commands about one thing; each command takes the shared options."""

    def __init__(self, help: str) -> None:
        super().__init__(
            help=help,
            no_args_is_help=True,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            add_completion=False,
        )

    def command(  # type: ignore[override]
        self, name: str | None = None, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a command, under its own name unless another is given."""
        register = super().command(name, **settings)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_shared_options(function))
            return function

        return add


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
    # A mark that keeps the lines of a paragraph as they are: an example is to be copied.
    run.__doc__ = inspect.cleandoc(function.__doc__ or "").replace("Example:", "\b\nExample:")
    run.__annotations__ = {**hints, **{name: kind for name, (kind, _) in _SHARED.items()}}
    return run
