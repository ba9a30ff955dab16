"""pgfleet command: one action on one device."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database

app = options.Noun("Commands: one action on one device.")

CommandId = Annotated[int, typer.Argument(help="Id of the command.")]

_FINAL = ("completed", "failed", "expired", "cancelled")
_LOOK_SECONDS = 0.5
_TYPE = (
    *("name", "channel", "description", "payload_keys", "timeout_seconds", "rerun_safe"),
    "destructive",
)


@app.command()
def send(
    device: Annotated[str, typer.Argument(help="Host name or id.")],
    command_type: Annotated[str, typer.Argument(help="What to do; see pgfleet command types.")],
    payload: Annotated[str, typer.Option(help="JSON object, @FILE, or - for stdin.")] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: sending it twice makes one command.")
    ] = None,
    priority: Annotated[int, typer.Option(help="-100 to 100; higher goes first.")] = 0,
    not_before: Annotated[str | None, typer.Option(help="Not before this time.")] = None,
    expires_after: Annotated[str | None, typer.Option(help="For example: 2 hours.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How many failures end it.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until it is final.")] = False,
) -> None:
    """Send one command to one device.

    Example: pgfleet command send lab-01 broadcast_message --payload '{"message": "Hello"}' --wait
    """
    wanted = inputs.json_object(payload, "--payload")
    with open_database() as db:
        row = db.row(
            "send_command",
            *("id", "device_hostname", "command_type", "status", "not_before", "expires_at"),
            p_device_id=names.device_id(db, device),
            p_command_type=command_type,
            p_payload=json_value(wanted),
            p_idempotency_key=key,
            p_priority=priority,
            p_not_before=not_before,
            p_expires_after=expires_after,
            p_max_attempts=max_attempts,
        )
        db.commit()
        if wait:
            row = _follow(db, row["id"])
    output.show_row(row)
    if wait and row["status"] != "completed":
        raise typer.Exit(1)


@app.command("list")
def list_commands(
    device: Annotated[str | None, typer.Option(help="Only for this device.")] = None,
    run: Annotated[int | None, typer.Option(help="Only of this run.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: options.Limit = 50,
) -> None:
    """List commands, the newest first.

    Example: pgfleet command list --device lab-01 --status pending
    """
    with open_database() as db:
        found = names.device_id(db, device) if device else None
        wanted = {"device_id": found, "run_id": run, "status": status}
        rows = db.find("command_list", wanted, order=("-id",), limit=limit)
    output.show_rows(
        rows,
        [
            *("id", "device_hostname", "command_type", "status", "reason", "attempt"),
            *("created_at", "executed_at"),
        ],
    )


@app.command()
def show(command: CommandId) -> None:
    """Show one command with its result.

    Example: pgfleet command show 42 --json
    """
    with open_database() as db:
        output.show_row(_read(db, command))


@app.command()
def watch(command: CommandId) -> None:
    """Follow a command until it is final; ends with 1 unless it completed.

    Example: pgfleet command watch 42
    """
    with open_database() as db:
        row = _follow(db, command)
    output.show_row(row)
    if row["status"] != "completed":
        raise typer.Exit(1)


@app.command()
def cancel(
    command: CommandId,
    reason: Annotated[str | None, typer.Option(help="Why; kept with the command.")] = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> None:
    """Cancel a command that is not final yet.

    Example: pgfleet command cancel 42 --reason "wrong device" --yes
    """
    with open_database() as db:
        row = _read(db, command)
        if not dry_run:
            db.commit()
            output.confirm(f"Cancel command {command} on {row['device_hostname']}?", yes=yes)
            row = db.row(
                "cancel_command",
                *("id", "device_hostname", "command_type", "status", "reason"),
                p_command_id=command,
                p_reason=reason,
            )
    output.show_row(row)
    if dry_run:
        output.say("Would be cancelled.")


@app.command()
def types() -> None:
    """List what may be sent, with the keys that each payload needs.

    Example: pgfleet command types
    """
    with open_database() as db:
        rows = db.find("command_types", columns=_TYPE, order=("name",))
    output.show_rows(rows, ["name", "channel", "description", "payload_keys", "destructive"])


def _read(db: Database, command_id: int) -> dict[str, Any]:
    return names.found(db.find("command_list", {"id": command_id}), "command", command_id)


def _follow(db: Database, command_id: int) -> dict[str, Any]:
    """Look again until the command is final, telling each change."""
    told = None
    while True:
        row = _read(db, command_id)
        db.commit()
        now = (row["status"], row["attempt"])
        if now != told:
            output.say(f"command {command_id}: {row['status']}, attempt {row['attempt']}")
            told = now
        if row["status"] in _FINAL:
            return row
        time.sleep(_LOOK_SECONDS)
