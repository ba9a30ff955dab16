"""pgfleet group: named sets of devices, listed or selected."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database

app = options.Noun("Device groups and who is in them.")

Group = Annotated[str, typer.Argument(help="Name or id of the group.")]
Devices = Annotated[list[str], typer.Argument(help="Host names or ids.")]


@app.command("list")
def list_groups(limit: options.Limit = 1000) -> None:
    """List groups with how many devices each has now.

    Example: pgfleet group list --json
    """
    with open_database() as db:
        rows = db.find("group_list", order=("name", "id"), limit=limit)
    output.show_rows(rows, ["id", "name", "kind", "devices", "description"])


@app.command()
def show(group: Group) -> None:
    """Show one group.

    Example: pgfleet group show classroom
    """
    with open_database() as db:
        output.show_row(_read(db, names.group_id(db, group)))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name, unique within its owner.")],
    device: Annotated[list[str] | None, typer.Option(help="A member; repeatable.")] = None,
    selector: Annotated[
        str | None, typer.Option(help="JSON that selects the members: tags, platform, …")
    ] = None,
    description: Annotated[str, typer.Option(help="What the group is for.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Create a group of listed devices, or of all that a selector matches.

    Example: pgfleet group create classroom --selector '{"tags": ["school-7"]}'
    """
    wanted = inputs.json_object(selector, "--selector")
    with open_database() as db:
        made = db.insert(
            "device_groups",
            {
                "name": name,
                "description": description,
                "selector": None if wanted is None else json_value(wanted),
                "owner_id": names.owner_id(db, owner),
            },
            "id",
        )
        members = names.device_ids(db, device)
        if members:
            db.value("add_to_group", p_group_id=made["id"], p_device_ids=members)
        row = _read(db, made["id"])
    output.show_row(row)


@app.command()
def add(group: Group, device: Devices) -> None:
    """Add devices to a group; who is in it already stays.

    Example: pgfleet group add classroom lab-01 lab-02
    """
    with open_database() as db:
        found = names.group_id(db, group)
        members = names.device_ids(db, device)
        added = db.value("add_to_group", p_group_id=found, p_device_ids=members)
        row = _read(db, found)
    output.show_row(row)
    output.say(f"Added {added} of {len(device)}.")


@app.command()
def remove(group: Group, device: Devices) -> None:
    """Take devices out of a group.

    Example: pgfleet group remove classroom lab-01
    """
    with open_database() as db:
        found = names.group_id(db, group)
        members = names.device_ids(db, device)
        removed = db.value("remove_from_group", p_group_id=found, p_device_ids=members)
        row = _read(db, found)
    output.show_row(row)
    output.say(f"Removed {removed} of {len(device)}.")


@app.command()
def devices(group: Group) -> None:
    """List the devices that are in a group at this moment.

    Example: pgfleet group devices classroom --csv
    """
    with open_database() as db:
        columns = ("id", "hostname", "platform", "tags", "last_seen")
        rows = db.call("group_devices", *columns, p_group_id=names.group_id(db, group))
    rows.sort(key=lambda row: row["hostname"].lower())
    output.show_rows(rows)


@app.command()
def delete(group: Group, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Delete a group; its devices stay.

    Example: pgfleet group delete classroom --yes
    """
    with open_database() as db:
        found = names.group_id(db, group)
        row = _read(db, found)
        if not dry_run:
            db.commit()
            output.confirm(f"Delete group {row['name']}?", yes=yes)
            db.delete("device_groups", found, "id")
    output.show_row(row)
    output.say("Would be deleted." if dry_run else "Deleted.")


def _read(db: Database, group_id: int) -> dict[str, Any]:
    return names.found(db.find("group_list", {"id": group_id}), "group", group_id)
