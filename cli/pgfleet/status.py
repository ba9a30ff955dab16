"""pgfleet status: one look at the whole fleet."""

from __future__ import annotations

from pgfleet import options, output
from pgfleet.database import open_database

app = options.Noun("Show how the whole fleet is doing.")


@app.command("status")
def status() -> None:
    """Show how the fleet is doing: ticks, devices, schedules, runs and commands.

    Example: pgfleet status --json
    """
    with open_database() as db:
        found = db.row("select public.fleet_status() as status")["status"]
    output.show_row(found)
