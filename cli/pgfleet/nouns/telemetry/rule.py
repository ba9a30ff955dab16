"""pgfleet telemetry rule: what follows when a number crosses a border, or a device is silent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import json_value, open_database

app = options.Noun("Rules: what follows from what devices measure.")

_COLUMNS = (
    *("id", "name", "condition", "clear_at", "cooldown", "group_id", "selector", "action"),
    *("action_type", "payload", "priority", "is_enabled", "owner_id"),
)


@app.command(changes=True)
def add(
    condition: Annotated[str, typer.Argument(help="battery < 15, or: missing for 30 minutes.")],
    action: Annotated[str, typer.Argument(help="What the device gets: a command type.")],
    name: Annotated[str, typer.Option(help="What you call it.")] = "",
    clear_at: Annotated[
        float | None, typer.Option(help="How far it has to come back before it can act again.")
    ] = None,
    cooldown: Annotated[str | None, typer.Option(help="Pause after it acted: 1 hour.")] = None,
    payload: Annotated[str, typer.Option(help="JSON object, @FILE, or -.")] = "{}",
    group: Annotated[str | None, typer.Option(help="Only for devices of this group.")] = None,
    selector: Annotated[
        str | None, typer.Option(help="Only for devices that this JSON selector matches.")
    ] = None,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="Make a schedule that is due now, not a command.")
    ] = False,
    priority: Annotated[int, typer.Option(help="-100 to 100; higher goes first.")] = 0,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Say what follows when a measured value meets a condition.

    Example: pgfleet telemetry rule add "battery < 15" buzz --clear-at 20 --cooldown "6 hours"
    """
    matches = inputs.json_object(selector, "--selector")
    with open_database() as db:
        row = db.insert(
            "telemetry_rules",
            {
                "owner_id": names.owner_id(db, owner),
                "name": name,
                "condition": condition,
                "clear_at": clear_at,
                "cooldown": cooldown,
                "group_id": names.group_id(db, group) if group else None,
                "selector": None if matches is None else json_value(matches),
                "action": "schedule" if schedule else "command",
                "action_type": action,
                "payload": json_value(inputs.json_object(payload, "--payload")),
                "priority": priority,
            },
            *_COLUMNS,
        )
    output.show_row(row)


@app.command("list")
def list_rules(limit: options.Limit = 1000) -> None:
    """List the rules, with for how many devices each is met and when it last acted.

    Example: pgfleet telemetry rule list
    """
    with open_database() as db:
        rows = db.find("telemetry_rule_list", order=("id",), limit=limit)
    output.show_rows(
        rows,
        [
            *("id", "name", "condition", "action_type", "group_name", "met_for", "is_enabled"),
            *("last_acted_at", "last_error"),
        ],
        spare=("last_error", "group_name", "name"),
    )


@app.command(changes=True)
def pause(
    rule: Annotated[int, typer.Argument(help="Id of the rule, as list shows it.")],
    resume: Annotated[bool, typer.Option("--resume", help="Let it act again.")] = False,
) -> None:
    """Let a rule do nothing until it is resumed.

    Example: pgfleet telemetry rule pause 3
    """
    with open_database() as db:
        row = db.row("enable_telemetry_rule", p_id=rule, p_is_enabled=resume)
    output.show_row(_shown(row))


@app.command(changes=True)
def remove(
    rule: Annotated[int, typer.Argument(help="Id of the rule, as list shows it.")],
    yes: options.Yes = False,
) -> None:
    """Remove a rule; what it did stays.

    Example: pgfleet telemetry rule remove 3 --yes
    """
    output.confirm(f"Remove rule {rule}?", yes=yes)
    with open_database() as db:
        rows = db.delete("telemetry_rules", rule, *_COLUMNS)
    output.show_row(_shown(names.found(rows, "telemetry rule", rule)))
    output.did("Removed.")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("id", "name", "condition", "action_type", "is_enabled")}
