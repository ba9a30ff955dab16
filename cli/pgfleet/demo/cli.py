"""pgfleet demo: a small fleet at work, on a platform of its own."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pgfleet import options
from pgfleet.demo.platform import running_platform
from pgfleet.demo.scenario import Plan, Scenario
from pgfleet.demo.view import View

app = options.Commands()


@app.command()
def demo(
    devices: Annotated[
        int, typer.Option("--devices", min=2, max=500, help="How many devices to simulate.")
    ] = 25,
    seconds: Annotated[
        float, typer.Option("--seconds", min=6, help="How long to keep the fleet busy.")
    ] = 24.0,
) -> None:
    """Bring up a platform, enrol devices, run schedules, kill the gateway, account for everything.

    Then installs a profile for two seconds on 20 iPads of a sandbox MDM, and tells when it came
    and went. Ends with one line of JSON on stdout, and with 1 if a command was lost or handled
    twice.

    Example: pgfleet demo --devices 25
    """
    with View() as view:
        view.tell("starting a platform of its own: Postgres, gateway, functions")
        with running_platform() as platform:
            plan = Plan(devices=devices, busy_seconds=seconds)
            report = Scenario(platform, plan, view.tell, view.show).play()
    view.conclude(report)
    typer.echo(json.dumps(report))
    if report["lost"] or report["duplicated"]:
        raise typer.Exit(1)
