"""pgfleet demo: a small fleet at work, and a small school to try things on."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any

import typer

from pgfleet import options, output
from pgfleet.database import database_url, open_database
from pgfleet.demo import school
from pgfleet.demo.console import running_console
from pgfleet.demo.platform import ending_in_order, running_platform
from pgfleet.demo.scenario import Plan, Scenario
from pgfleet.demo.view import View
from pgfleet.nouns.console import tell_again
from pgfleet_local.settings import StackSettings

app = options.Noun("A fleet at work, and a school to try things on.")


@app.callback(invoke_without_command=True, no_args_is_help=False)
def demo(
    ctx: typer.Context,
    devices: Annotated[
        int, typer.Option("--devices", min=2, max=500, help="How many devices to simulate.")
    ] = 25,
    seconds: Annotated[
        float, typer.Option("--seconds", min=6, help="How long to keep the fleet busy.")
    ] = 24.0,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep all of it running afterwards, until Ctrl-C.")
    ] = False,
) -> None:
    """Bring up a platform, enrol devices, run schedules, kill the gateway, account for everything.

    Then installs a profile for two seconds on 20 iPads of a sandbox MDM, and tells when it came
    and went. The console shows the story while it plays, at the address that is printed. Ends with
    one line of JSON on stdout, and with 1 if a command was lost or handled twice. That is what it
    does without a verb.

    Example: pgfleet demo --devices 25
    """
    if ctx.invoked_subcommand is not None:
        return
    with ending_in_order(), View() as view:
        view.tell("starting a platform of its own: Postgres, gateway, functions")
        with running_platform() as platform, running_console(platform.db_url) as new_link:
            view.point(new_link())

            def conclude(report: dict[str, Any]) -> None:
                view.conclude(report)
                typer.echo(json.dumps(report))
                sys.stdout.flush()
                if stay:
                    _stay(view, new_link)

            plan = Plan(devices=devices, busy_seconds=seconds)
            report = Scenario(platform, plan, view.tell, view.show).play(conclude)
    if report["lost"] or report["duplicated"]:
        raise typer.Exit(1)


def _stay(view: View, new_link: Callable[[], str]) -> None:
    """Leave everything as it is until Ctrl-C; the fleet goes on, and the console shows it."""
    view.tell("the fleet and its console stay until Ctrl-C; Enter prints another link")
    view.point(new_link())
    tell_again(lambda: view.point(new_link()))
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    view.tell("ending devices and platform")


@app.command()
def seed() -> None:
    """Load a small school, the same that the documentation uses; loading it again changes nothing.

    It has the lab computers pc-0001 to pc-0003 in the group labs, six iPads in an MDM, holidays,
    two schedules, and the people ada, ben and eve, for whom pgfleet demo token makes tokens. On
    the local platform they have accounts, with a password that it prints.

    Example: pgfleet demo seed
    """
    with open_database() as db:
        is_new = school.load(db)
        rows = school.contents(db)
    is_local = database_url() == options.current().running_stack()
    if is_local:
        school.open_accounts(StackSettings.from_environment())
    output.show_rows(rows, ["what", "id", "name", "more"])
    if is_local:
        output.say(f"Its people sign in with the password {school.PASSWORD}")
    output.say("Loaded the demo school." if is_new else "The demo school was there already.")


@app.command()
def token(
    person: Annotated[str, typer.Argument(help=f"{', '.join(school.PEOPLE)}.")],
) -> None:
    """Print an access token of one of the demo school's people, for the local platform.

    Example: pgfleet demo token ada
    """
    output.show_text(school.token(person))
