"""pgfleet command: one action on one device, or on each of many."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput

app = options.Noun("Commands: one action on one device.")

CommandId = Annotated[int, typer.Argument(help="Id of the command.")]

_FINAL = ("completed", "failed", "expired", "cancelled")
_COLUMNS = [
    *("id", "device_hostname", "command_type", "status", "reason", "attempt"),
    *("created_at", "executed_at"),
]
_SPARE = ["attempt", "executed_at", "reason"]
_TYPE = (
    *("name", "channel", "description", "payload_keys", "timeout_seconds", "rerun_safe"),
    *("destructive", "owner_id"),
)


@app.command(changes=True)
def send(
    device: Annotated[
        str,
        typer.Argument(
            help="Host name or id; left out where --group or --selector say who is meant.",
            autocompletion=completion.devices,
        ),
    ],
    command_type: Annotated[
        str | None,
        typer.Argument(
            help="What to do; see pgfleet command types.", autocompletion=completion.command_types
        ),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="To the devices of a group; repeatable.", autocompletion=completion.groups
        ),
    ] = None,
    selector: Annotated[
        str | None, typer.Option(help="To devices that JSON selects: tags, platform, …")
    ] = None,
    payload: Annotated[str, typer.Option(help="JSON object, @FILE, or - for stdin.")] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: sending it twice makes one command.")
    ] = None,
    priority: Annotated[int, typer.Option(help="-100 to 100; higher goes first.")] = 0,
    not_before: Annotated[str | None, typer.Option(help="Not before this time.")] = None,
    expires_after: Annotated[str | None, typer.Option(help="For example: 2 hours.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How many failures end it.")] = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Send one command to one device, or with --group or --selector to each of many.

    To many no device is named: pgfleet command send lock --group lab

    Example: pgfleet command send lab-01 broadcast_message --payload '{"message": "Hello"}' --wait
    """
    is_many = bool(group) or selector is not None
    devices = [device] if command_type or not is_many else []
    if command_type is None and not is_many:
        raise InvalidInput(
            "what to do is missing",
            reason="command_type_missing",
            hint="List what may be sent with: pgfleet command types",
        )
    told = {
        "p_command_type": command_type or device,
        "p_payload": json_value(inputs.json_object(payload, "--payload")),
        "p_idempotency_key": key,
        "p_priority": priority,
        "p_not_before": inputs.moment(not_before, "--not-before"),
        "p_expires_after": expires_after,
        "p_max_attempts": max_attempts,
    }
    if is_many:
        if wait:
            raise InvalidInput(
                "--wait is for one device",
                reason="wait_invalid",
                hint="See how far they are with: pgfleet command list",
            )
        _send_to_many(devices, group, selector, told)
        return
    with open_database() as db:
        row = db.row(
            "send_command",
            *("id", "device_hostname", "command_type", "status", "not_before", "expires_at"),
            p_device_id=names.device_id(db, device),
            **told,
        )
        db.touches("command", row["id"])
        db.commit()
        wait = wait and not options.current().dry_run
        if wait:
            row = _follow(db, row["id"], timeout)
    output.show_row(row)
    if wait and row["status"] != "completed":
        raise typer.Exit(1)


def _send_to_many(
    devices: list[str], groups: list[str] | None, selector: str | None, told: dict[str, Any]
) -> None:
    with open_database() as db:
        targets: dict[str, Any] = {
            "device_ids": names.device_ids(db, devices),
            "group_ids": names.group_ids(db, groups),
        }
        if selector is not None:
            targets["selector"] = inputs.json_object(selector, "--selector")
        answer = db.value("send_commands", p_targets=json_value(targets), **told)
        if options.current().dry_run:
            rows = db.find("command_list", {"sent_as": answer["sent_as"]}, columns=("id",))
            db.touches("command", *(row["id"] for row in rows))
        db.commit()
    output.show_row(answer)


@app.command("list")
def list_commands(
    device: Annotated[
        str | None,
        typer.Option(help="Only for this device.", autocompletion=completion.devices),
    ] = None,
    run: Annotated[int | None, typer.Option(help="Only of this run.")] = None,
    status: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: options.Limit = 50,
    watch: options.Watch = False,
) -> None:
    """List commands, the newest first.

    Example: pgfleet command list --device lab-01 --status pending
    """
    with open_database() as db:
        found = names.device_id(db, device) if device else None
        wanted = {"device_id": found, "run_id": run, "status": status}

        def read() -> list[dict[str, Any]]:
            rows = db.find("command_list", wanted, order=("-id",), limit=limit)
            db.commit()
            return rows

        output.show_or_watch(read, _COLUMNS, _SPARE, watch=watch)


@app.command()
def show(command: CommandId, watch: options.Watch = False) -> None:
    """Show one command with its result.

    Example: pgfleet command show 42 --json
    """
    with open_database() as db:
        if watch:
            output.watch_row(lambda: _read(db, command), lambda row: row["status"] in _FINAL)
            return
        row = _read(db, command)
    output.show_row(row)


@app.command()
def watch(command: CommandId, timeout: options.Timeout = None) -> None:
    """Follow a command until it is final; ends with 1 unless it completed.

    Example: pgfleet command watch 42 --timeout 60
    """
    with open_database() as db:
        row = _follow(db, command, timeout)
    output.show_row(row)
    if row["status"] != "completed":
        raise typer.Exit(1)


@app.command(changes=True)
def cancel(
    command: CommandId,
    reason: Annotated[str | None, typer.Option(help="Why; kept with the command.")] = None,
    yes: options.Yes = False,
) -> None:
    """Cancel a command that is not final yet.

    Example: pgfleet command cancel 42 --reason "wrong device" --yes
    """
    with open_database() as db:
        row = _read(db, command)
        output.confirm(f"Cancel command {command} on {row['device_hostname']}?", yes=yes)
        db.touches("command", command)
        row = db.row(
            "cancel_command",
            *("id", "device_hostname", "command_type", "status", "reason"),
            p_command_id=command,
            p_reason=reason,
        )
    output.show_row(row)


@app.command()
def types() -> None:
    """List what may be sent, with the keys that each payload needs.

    Example: pgfleet command types
    """
    with open_database() as db:
        rows = db.find("command_types", columns=_TYPE, order=("name",))
    output.show_rows(
        rows,
        ["name", "channel", "description", "payload_keys", "destructive", "owner_id"],
        spare=("owner_id", "destructive", "payload_keys", "channel"),
    )


@app.command("add-type", changes=True)
def add_type(
    name: Annotated[str, typer.Argument(help="Small letters with a hyphen: kiosk-reload.")],
    description: Annotated[str, typer.Option(help="What it does.")] = "",
    payload_keys: Annotated[
        str, typer.Option(help="JSON object, @FILE, or -: what its payload holds.")
    ] = "{}",
    timeout: Annotated[int, typer.Option(help="Seconds that a handler may run.")] = 60,
    rerun_safe: Annotated[
        bool, typer.Option("--rerun-safe", help="It may be done twice after a crash.")
    ] = False,
    destructive: Annotated[
        bool, typer.Option("--destructive", help="Sending it needs the permission destructive.")
    ] = False,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Add a command type of an owner's own, which its agents have a handler for.

    Example: pgfleet command add-type kiosk-reload --timeout 30 --rerun-safe
    """
    with open_database() as db:
        row = db.insert(
            "command_types",
            {
                "owner_id": names.owner_id(db, owner),
                "name": name,
                "description": description,
                "payload_keys": json_value(inputs.json_object(payload_keys, "--payload-keys")),
                "timeout_seconds": timeout,
                "rerun_safe": rerun_safe,
                "destructive": destructive,
            },
            *_TYPE,
        )
    output.show_row(row)


@app.command("remove-type", changes=True)
def remove_type(
    name: Annotated[str, typer.Argument(help="Its name.")],
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
    yes: options.Yes = False,
) -> None:
    """Remove a command type of an owner's own; what was sent stays.

    Example: pgfleet command remove-type kiosk-reload --yes
    """
    output.confirm(f"Remove command type {name}?", yes=yes)
    with open_database() as db:
        whose = {"name": name, "owner_id": names.owner_id(db, owner)}
        found = [kind for kind in db.find("command_types", whose) if kind["owner_id"] is not None]
        if len(found) > 1:
            raise InvalidInput(
                f"several owners have a command type {name}",
                reason="owner_ambiguous",
                hint="Say whose: --owner NAME.",
            )
        row = names.found(found, "command type", name)
        db.delete("command_types", row["id"], "id")
    output.show_row({key: row[key] for key in _TYPE})
    output.did("Removed.")


def _read(db: Database, command_id: int) -> dict[str, Any]:
    row = names.found(db.find("command_list", {"id": command_id}), "command", command_id)
    db.commit()
    return row


def _follow(db: Database, command_id: int, timeout: float | None) -> dict[str, Any]:
    """Look again until the command is final, telling each change."""

    def look() -> tuple[dict[str, Any], str, bool]:
        row = _read(db, command_id)
        return row, f"{row['status']}, attempt {row['attempt']}", row["status"] in _FINAL

    found: dict[str, Any] = output.follow(
        look,
        timeout=timeout,
        what=f"command {command_id}",
        goes_on=f"Look again: pgfleet command watch {command_id}. "
        f"End it: pgfleet command cancel {command_id}",
    )
    return found
