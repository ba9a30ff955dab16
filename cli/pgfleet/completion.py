"""What the shell offers behind Tab: the names that the database knows.

It says nothing where it cannot: a person who presses Tab wants no error.
"""

from __future__ import annotations

import os
from typing import Any

import typer

from pgfleet import options
from pgfleet.errors import FleetError

_MOST = 100
_SECONDS = 2


def devices(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer host names, with the platform."""
    return _names(ctx, incomplete, "device_list", "hostname", "platform")


def groups(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer groups, with what they are for."""
    return _names(ctx, incomplete, "group_list", "name", "description")


def schedules(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer schedules, with their state."""
    return _names(ctx, incomplete, "schedule_list", "name", "status")


def profiles(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer the profiles that the MDMs have."""
    return _names(ctx, incomplete, "profile_list", "name", "integration")


def integrations(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer integrations, with the system that each is for."""
    return _names(ctx, incomplete, "integration_list", "name", "integration_type")


def command_types(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer what may be sent."""
    return _names(ctx, incomplete, "command_types", "name", "description")


def _names(
    ctx: typer.Context, incomplete: str, view: Any, name: Any, more: Any
) -> list[tuple[str, str]]:
    from pgfleet.database import open_database
    from pgfleet.statements import starting

    named = _database_url(ctx)
    chosen = options.Options(
        database_url=named, running_stack=ctx.find_root().obj or (lambda: None)
    )
    try:
        with options.using(chosen), open_database(timeout=_SECONDS) as db:
            rows = db.find(
                view, {name: starting(incomplete)}, columns=(name, more), order=(name,), limit=_MOST
            )
    except (FleetError, OSError):
        return []
    return [(row[name], _line(row[more])) for row in rows if row[name].isprintable()]


def _database_url(ctx: typer.Context) -> str | None:
    """Give what was typed before, else what the environment says."""
    at: Any = ctx
    while at is not None:
        if at.params.get("database_url"):
            return str(at.params["database_url"])
        at = at.parent
    return os.environ.get("PGFLEET_DATABASE_URL")


def _line(text: Any) -> str:
    """Keep what shells take for a sign of their own out of the explanation."""
    return "".join(c if c.isprintable() else " " for c in str(text or "")).replace(":", " ")
