"""The command `pgfleet`: nouns, each with its verbs, loaded when they are used."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pgfleet import __version__, ending, options
from pgfleet.errors import MissingExtra


@dataclass(frozen=True, slots=True)
class _Entry:
    panel: str
    name: str
    module: str
    extra: str
    help: str


_WATCH, _PLAN, _FLEET, _MDM, _OPERATE = "Watch", "Plan", "Fleet", "MDM", "Operate"
_DEVICE = "On a device"

# A device installs the agent and nothing else, so no noun may be imported for another.
_ENTRIES = (
    _Entry(_WATCH, "status", "nouns.status", "admin", "How the whole fleet is doing."),
    _Entry(_WATCH, "console", "nouns.console", "console", "The console: the fleet in a browser."),
    _Entry(_WATCH, "run", "nouns.run", "admin", "Runs: what became of each due instant."),
    _Entry(_WATCH, "command", "nouns.command", "admin", "Commands: one action on one device."),
    _Entry(
        _WATCH, "telemetry", "nouns.telemetry.cli", "admin", "Telemetry: what devices measured."
    ),
    _Entry(
        _WATCH,
        "doctor",
        "nouns.doctor.cli",
        "admin",
        "Is everything well, and what to do where it is not.",
    ),
    _Entry(_PLAN, "schedule", "nouns.schedule.cli", "admin", "Schedules: when, what and who."),
    _Entry(_PLAN, "template", "nouns.template", "admin", "Templates: schedules with parameters."),
    _Entry(
        _PLAN,
        "blackout",
        "nouns.blackout.cli",
        "admin",
        "Blackout calendars: times in which nothing runs.",
    ),
    _Entry(
        _PLAN, "geo", "nouns.geo.cli", "admin", "Geo schedules: when and where apps are blocked."
    ),
    _Entry(
        _PLAN,
        "deploy",
        "nouns.deploy.cli",
        "admin",
        "Deployments and rollouts: what is on its way, and how far it got.",
    ),
    _Entry(_PLAN, "feed", "nouns.feed", "admin", "Calendar feeds, for calendar programs."),
    _Entry(_FLEET, "device", "nouns.device", "admin", "Devices: list, enrol, tag, retire."),
    _Entry(_FLEET, "group", "nouns.group", "admin", "Device groups and who is in them."),
    _Entry(
        _FLEET, "package", "nouns.deploy.packages", "admin", "Packages: software to be installed."
    ),
    _Entry(_FLEET, "file", "nouns.deploy.files", "admin", "Files to be sent to devices."),
    _Entry(
        _FLEET,
        "blocklist",
        "nouns.blocklist",
        "admin",
        "Blocklists: websites and software that devices block.",
    ),
    _Entry(
        _FLEET,
        "location",
        "nouns.location",
        "admin",
        "Locations: places, who is there, and what follows.",
    ),
    _Entry(
        _FLEET,
        "owner",
        "nouns.owner.cli",
        "admin",
        "Owners: whose devices and schedules these are.",
    ),
    _Entry(
        _MDM,
        "profile",
        "nouns.profile.cli",
        "admin",
        "Profiles: install, remove, for good or for a time.",
    ),
    _Entry(
        _MDM,
        "integration",
        "nouns.integration.cli",
        "admin",
        "Integrations: connections to an MDM and other systems.",
    ),
    _Entry(
        _MDM,
        "sync",
        "nouns.sync",
        "admin",
        "Sync: pull what devices report to Golioth, and be pushed it.",
    ),
    _Entry(_OPERATE, "db", "nouns.db", "admin", "The schema: migrate, check, bundle."),
    _Entry(_OPERATE, "functions", "nouns.functions", "functions", "The HTTP functions."),
    _Entry(_OPERATE, "setting", "nouns.setting", "admin", "Settings of the engine."),
    _Entry(
        _OPERATE,
        "stack",
        "nouns.stack",
        "local",
        "The local platform: up, down, status, env, user.",
    ),
    _Entry(
        _OPERATE,
        "webhook",
        "nouns.webhook",
        "admin",
        "Webhooks and e-mail: be told of runs that fail.",
    ),
    _Entry(_OPERATE, "audit", "nouns.audit", "admin", "The audit log: who changed what."),
    _Entry(
        _OPERATE, "demo", "demo.cli", "local", "A fleet at work, and a school to try things on."
    ),
    _Entry(_DEVICE, "agent", "agent.cli", "agent", "The device side: enrol, run, inspect."),
)
_NOUNS = {entry.name: entry for entry in _ENTRIES}


class NounGroup(options.VerbGroup):
    """Finds a noun by importing its module, and prints the errors of all of them."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the nouns that this installation has."""
        return [name for name, entry in _NOUNS.items() if _is_there(entry)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load one noun; one whose extra is missing says so when it is used."""
        entry = _NOUNS.get(cmd_name)
        if entry is None or not _is_there(entry):
            return None
        if self._is_listing:
            return TyperCommand(entry.name, help=entry.help, rich_help_panel=entry.panel)
        try:
            module = importlib.import_module(_module(entry))
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("pgfleet"):
                raise
            return typer.main.get_command(_not_installed(cmd_name, entry))
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print what there is without loading it: it takes what all of them take together."""
        self._is_listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._is_listing = False

    def invoke(self, ctx: Any) -> Any:
        """Run the command; where nobody reads what it prints, it ends."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise typer.Exit(ending.NOT_READ) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the program to its end; what went wrong is told to the person."""
        run = functools.partial(
            super().main, args, prog_name, complete_var, False, windows_expand_args, **extra
        )
        if not standalone_mode:
            return run()
        sys.exit(ending.run(run))


def _module(entry: _Entry) -> str:
    return f"pgfleet.{entry.module}"


def _is_there(entry: _Entry) -> bool:
    package, _, _ = _module(entry).rpartition(".")
    return find_spec(package) is not None and find_spec(_module(entry)) is not None


def _not_installed(name: str, entry: _Entry) -> typer.Typer:
    stand_in = typer.Typer(rich_markup_mode=None, add_completion=False)

    @stand_in.command(
        help=entry.help,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )
    def refuse() -> None:
        raise MissingExtra(entry.extra, f"pgfleet {name}")

    return stand_in


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pgfleet {__version__}")
        raise typer.Exit()


def _running_stack() -> str | None:
    """Give the address of the local stack's database, if its server is up."""
    settings = _running_settings()
    return None if settings is None else str(settings.db_url)


def _running_api() -> tuple[str, str] | None:
    """Give the address and the service key of the local stack's API, if its server is up."""
    settings = _running_settings()
    return None if settings is None else (settings.api_url, settings.service_role_key)


def _running_settings() -> Any:
    try:
        from pgfleet_local.settings import StackSettings, default_data_dir
    except ModuleNotFoundError:
        return None
    named = os.environ.get("PGFLEET_LOCAL_DATA_DIR")
    folder = Path(named).expanduser() if named else default_data_dir()
    # Reading the settings would make the folder, so look whether a server is there first.
    if not (folder / "postgres" / "postmaster.pid").exists():
        return None
    return StackSettings.from_environment()


app = typer.Typer(
    cls=NounGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    # What completes names finds the database by it, before any option has been read.
    context_settings={"help_option_names": ["-h", "--help"], "obj": _running_stack},
)


def _belongs(ctx: typer.Context) -> bool:
    """Tell whether the replica that was named is one of the database that was named.

    The environment's is not of a database that is typed.
    """
    names = ("database_url", "read_database_url")
    sources = [ctx.get_parameter_source(name) for name in names]
    main_is_typed, replica_is_typed = (
        source is not None and source.name == "COMMANDLINE" for source in sources
    )
    return replica_is_typed or not main_is_typed


@app.callback()
def main(
    ctx: typer.Context,
    database_url: options.RootDatabaseUrl = None,
    read_database_url: options.RootReadDatabaseUrl = None,
    acting_as: options.RootAs = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Schedule, command and watch a fleet of devices from Postgres.

    Example: pgfleet command send lab-01 lock
    """
    given = replace(
        options.current(),
        database_url=database_url,
        read_database_url=read_database_url if _belongs(ctx) else None,
        acting_as=acting_as,
        running_stack=_running_stack,
        running_api=_running_api,
    )
    ctx.with_resource(options.using(given))
