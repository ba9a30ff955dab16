"""pgfleet status: one look at the whole fleet."""

from __future__ import annotations

from typing import Any

from pgfleet import options, output
from pgfleet.database import open_database

app = options.Noun("How the whole fleet is doing.")


@app.command("status")
def status() -> None:
    """Show how the fleet is doing: ticks, devices, schedules, runs and commands.

    Example: pgfleet status --json
    """
    with open_database() as db:
        found = db.value("fleet_status")
    output.show_row(found if options.current().as_json else _flat(found))


_SECTIONS = ("now", "engine", "devices", "schedules", "runs_last_day", "commands")
_ORDER = {name: number for number, name in enumerate(_SECTIONS)}


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """Give each number a line of its own, named by where it was."""
    flat: dict[str, Any] = {}
    # jsonb keeps its keys by length, which is no order for a person.
    for name, value in sorted(found.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))):
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return flat
