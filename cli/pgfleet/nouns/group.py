"""pgfleet group: named sets of devices, listed or selected."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import completion, inputs, names, options, output
from pgfleet.database import Database, json_value, open_database

app = options.Noun("Device groups and who is in them.")

Group = Annotated[
    str, typer.Argument(help="Name or id of the group.", autocompletion=completion.groups)
]
Devices = Annotated[
    list[str], typer.Argument(help="Host names or ids.", autocompletion=completion.devices)
]


@app.command("list")
def list_groups(limit: options.Limit = 1000) -> None:
    """List groups with how many devices each has now.

    Example: pgfleet group list --json
    """
    with open_database() as db:
        rows = db.find("group_list", order=("name", "id"), limit=limit)
    output.show_rows(rows, ["id", "name", "kind", "devices", "description"], spare=("kind",))


@app.command()
def show(group: Group) -> None:
    """Show one group.

    Example: pgfleet group show classroom
    """
    with open_database() as db:
        output.show_row(_read(db, names.group_id(db, group)))


@app.command(changes=True)
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
        members = names.device_ids(db, device)
        owner_id = names.owner_id(db, owner)
        if members and owner_id is None:
            # Whose the first is; of another's, adding it says so.
            found = db.find("device_list", {"id": members[0]}, columns=("owner_id",))
            owner_id = found[0]["owner_id"]
        made = db.insert(
            "device_groups",
            {
                "name": name,
                "description": description,
                "selector": None if wanted is None else json_value(wanted),
                "owner_id": owner_id,
            },
            "id",
        )
        if members:
            db.value("add_to_group", p_group_id=made["id"], p_device_ids=members)
        db.touches("group", made["id"])
        row = _read(db, made["id"])
    output.show_row(row)


@app.command(changes=True)
def add(group: Group, device: Devices) -> None:
    """Add devices to a group; who is in it already stays.

    Example: pgfleet group add classroom lab-01 lab-02
    """
    with open_database() as db:
        found = names.group_id(db, group)
        members = names.device_ids(db, device)
        db.touches("device", *members)
        added = db.value("add_to_group", p_group_id=found, p_device_ids=members)
        row = _read(db, found)
    output.show_row(row)
    output.did(f"Added {added} of {len(device)}.")


@app.command(changes=True)
def remove(group: Group, device: Devices) -> None:
    """Take devices out of a group.

    Example: pgfleet group remove classroom lab-01
    """
    with open_database() as db:
        found = names.group_id(db, group)
        members = names.device_ids(db, device)
        db.touches("device", *members)
        removed = db.value("remove_from_group", p_group_id=found, p_device_ids=members)
        row = _read(db, found)
    output.show_row(row)
    output.did(f"Removed {removed} of {len(device)}.")


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


@app.command(changes=True)
def delete(
    group: Group,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Pause the schedules that name it, with the reason.")
    ] = False,
    yes: options.Yes = False,
) -> None:
    """Delete a group; its devices stay.

    One that active schedules name is kept, unless they are to be paused.

    Example: pgfleet group delete classroom --cascade --yes
    """
    with open_database() as db:
        found = names.group_id(db, group)
        row = _read(db, found)
        db.commit()
        also = " and pause the schedules that name it" if cascade else ""
        output.confirm(f"Delete group {row['name']}{also}?", yes=yes)
        db.touches("group", found)
        gone = db.value("delete_group", p_group_id=found, p_cascade=cascade)
    output.show_row(row)
    output.did("Deleted.")
    if gone["paused"]:
        output.say(f"Paused: {', '.join(gone['paused'])}.")


def _read(db: Database, group_id: int) -> dict[str, Any]:
    return names.found(db.find("group_list", {"id": group_id}), "group", group_id)
