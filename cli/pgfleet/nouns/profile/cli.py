"""pgfleet profile: upload, install and remove configuration profiles."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.profile import catalogue

app = options.Noun("Profiles: install, remove, for good or for a time.")
app.add_typer(catalogue.app)

Profile = Annotated[
    str,
    typer.Argument(
        help="Name of the profile, or the MDM's id of it.", autocompletion=completion.profiles
    ),
]
Device = Annotated[str, typer.Argument(help="Host name or id.", autocompletion=completion.devices)]
Install = Annotated[int, typer.Argument(help="Id of the install; see pgfleet profile list.")]
At = Annotated[str | None, typer.Option(help="At this time instead of now.")]

_TEMPORARY = (
    *("install_id", "profile_id", "profile_name", "hostname", "state", "install_time"),
    *("installed_at", "scheduled_removal_time", "removed_at", "duration_minutes", "reason"),
    *("device_id", "install_schedule_id", "remove_schedule_id"),
)
_SCHEDULES = (
    *("id", "action_type", "profile_id", "profile_name", "hostname", "state", "start_time"),
    *("last_executed_at", "command_status", "reason", "install_id", "device_id", "command_id"),
    *("ui_initiated", "created_at"),
)
_ASSIGNMENT = (
    *("id", "profile_id", "description", "device_ids", "group_ids", "selector", "created_at"),
)
_DRIFT = ("hostname", "profile_id", "action_type", "state", "device_id")


@app.command(changes=True)
def install(
    profile: Profile,
    device: Device,
    duration: Annotated[
        str | None, typer.Option("--for", help="For a time only, such as: 30 minutes.")
    ] = None,
    at: At = None,
) -> None:
    """Install a profile on a device, for good or for a time.

    Example: pgfleet profile install 12345 ipad-7 --for "30 minutes"
    """
    with open_database() as db:
        device_id = names.device_id(db, device)
        row = db.row(
            "install_profile",
            *("id", "profile_id", "device_id", "duration", "install_schedule_id"),
            *("remove_schedule_id", "failure"),
            p_profile_id=names.profile_id(db, profile, device_id),
            p_device_id=device_id,
            p_duration=duration,
            p_at=inputs.moment(at, "--at"),
        )
        db.touches("device", device_id)
    row = {"install_id": row.pop("id")} | row
    output.show_row(row)


@app.command(changes=True)
def remove(profile: Profile, device: Device, at: At = None) -> None:
    """Remove a profile from a device.

    Example: pgfleet profile remove 12345 ipad-7
    """
    with open_database() as db:
        device_id = names.device_id(db, device)
        found = names.profile_id(db, profile, device_id)
        row = db.row(
            "remove_profile",
            *("id", "profile_id", "device_id", "start_time", "status"),
            p_profile_id=found,
            p_device_id=device_id,
            p_at=inputs.moment(at, "--at"),
        )
        db.touches("device", device_id)
    row = {"schedule_id": row.pop("id")} | row
    output.show_row(row)


@app.command(changes=True)
def extend(
    install: Install,
    by: Annotated[str, typer.Argument(help="How much longer, such as: 1 hour.")],
) -> None:
    """Let a temporary profile stay longer.

    Example: pgfleet profile extend 7 "1 hour"
    """
    with open_database() as db:
        db.touches("install", install)
        db.row("extend_profile", "id", p_install_id=install, p_by=by)
        row = _temporary(db, {"install_id": install})[0]
    output.show_row(row)


@app.command(changes=True)
def end(install: Install) -> None:
    """End a temporary profile early.

    Example: pgfleet profile end 7
    """
    with open_database() as db:
        db.touches("install", install)
        db.row("end_profile", "id", p_install_id=install)
        row = _temporary(db, {"install_id": install})[0]
    output.show_row(row)


@app.command("list")
def list_profiles(
    device: Annotated[str | None, typer.Option(help="Only of this device.")] = None,
    profile: Annotated[str | None, typer.Option(help="Only of this profile.")] = None,
    temporary: Annotated[
        bool, typer.Option("--temporary", help="Pairs: what was installed for a time.")
    ] = False,
    limit: options.Limit = 50,
) -> None:
    """List what installs and removes profiles, the newest first.

    Example: pgfleet profile list --temporary
    """
    with open_database() as db:
        device_id = names.device_id(db, device) if device else None
        wanted = {
            "device_id": device_id,
            "profile_id": names.profile_id(db, profile, device_id) if profile else None,
        }
        if temporary:
            rows = _temporary(db, wanted, limit)
        else:
            order = ("-created_at", "-id")
            rows = db.find(
                "profile_schedules", wanted, columns=_SCHEDULES, order=order, limit=limit
            )
    if temporary:
        columns = ["install_id", "profile_id", "profile_name", "hostname", "state", "installed_at"]
        columns += ["scheduled_removal_time", "removed_at", "duration_minutes"]
    else:
        columns = ["id", "action_type", "profile_id", "profile_name", "hostname", "state"]
        columns += ["start_time", "last_executed_at", "install_id"]
    output.show_rows(rows, columns, spare=("install_id", "profile_id", "duration_minutes"))


@app.command(changes=True)
def assign(
    profile: Profile,
    device: Annotated[list[str] | None, typer.Option(help="A device; repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group; repeatable.")] = None,
    selector: Annotated[str | None, typer.Option(help="JSON object, @FILE, or -.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Say that a profile belongs on devices; what is missing is pushed, also later.

    Example: pgfleet profile assign 12345 --group lab
    """
    wanted = inputs.json_object(selector, "--selector")
    with open_database() as db:
        targets: dict[str, Any] = {
            "device_ids": names.device_ids(db, device),
            "group_ids": names.group_ids(db, group),
        }
        if wanted is not None:
            targets["selector"] = wanted
        row = db.row(
            "assign_profile",
            p_profile_id=names.profile_id(db, profile),
            p_targets=json_value(targets),
            p_description=description,
            p_owner_id=names.owner_id(db, owner),
        )
        db.touches("assignment", row["id"])
    output.show_row(row)


@app.command(changes=True)
def unassign(
    assignment: Annotated[int, typer.Argument(help="Id; see pgfleet profile assignments.")],
) -> None:
    """Take an assignment back; the profile is removed where it had brought it.

    Example: pgfleet profile unassign 3
    """
    with open_database() as db:
        db.touches("assignment", assignment)
        row = db.value("unassign_profile", p_assignment_id=assignment)
    output.show_row(row)


@app.command()
def assignments(limit: options.Limit = 100) -> None:
    """List which profiles belong where.

    Example: pgfleet profile assignments
    """
    with open_database() as db:
        rows = db.find("profile_assignments", columns=_ASSIGNMENT, order=("id",), limit=limit)
    output.show_rows(rows, ["id", "profile_id", "device_ids", "group_ids", "selector"])


@app.command()
def drift(
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """List where devices differ from what is assigned.

    Example: pgfleet profile drift
    """
    with open_database() as db:
        rows = db.call("profile_drift", *_DRIFT, p_owner_id=names.owner_id(db, owner))
    output.show_rows(rows, ["hostname", "profile_id", "action_type", "state"])


@app.command(changes=True)
def reconcile(
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Mend the drift now instead of within a minute.

    Example: pgfleet profile reconcile
    """
    with open_database() as db:
        row = db.value("reconcile_profiles", p_owner_id=names.owner_id(db, owner))
    output.show_row(row)


def _temporary(
    db: Database, wanted: dict[str, Any], limit: int | None = None
) -> list[dict[str, Any]]:
    """Read what was installed for a time, the newest first.

    A step of its own: a view does not see what a function of the same statement has changed.
    """
    rows = db.find(
        "temporary_profiles", wanted, columns=_TEMPORARY, order=("-install_id",), limit=limit
    )
    return [row | {"duration_minutes": _rounded(row["duration_minutes"])} for row in rows]


def _rounded(minutes: Decimal | None) -> Decimal | None:
    return None if minutes is None else round(minutes, 2)
