"""pgfleet group: named sets of devices, listed or selected."""

from __future__ import annotations

from typing import Annotated, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import json_value, open_database

app = options.Noun("Device groups and who is in them.")

Group = Annotated[str, typer.Argument(help="Name or id of the group.")]
Devices = Annotated[list[str], typer.Argument(help="Host names or ids.")]

_GROUPS: LiteralString = """
select
  g.id, g.name, g.description,
  case when g.selector is null then 'static' else 'dynamic' end as kind,
  g.selector,
  (select count(*) from public.group_devices(g.id)) as devices,
  o.name as owner, g.created_at, g.updated_at
from public.device_groups as g
join public.owners as o on o.id = g.owner_id
where %(id)s::bigint is null or g.id = %(id)s
order by lower(g.name), g.id
limit %(limit)s
"""


@app.command("list")
def list_groups(limit: options.Limit = 1000) -> None:
    """List groups with how many devices each has now.

    Example: pgfleet group list --json
    """
    with open_database() as db:
        rows = db.rows(_GROUPS, {"id": None, "limit": limit})
    output.show_rows(rows, ["id", "name", "kind", "devices", "description"])


@app.command()
def show(group: Group) -> None:
    """Show one group.

    Example: pgfleet group show classroom
    """
    with open_database() as db:
        output.show_row(db.row(_GROUPS, {"id": names.group_id(db, group), "limit": 1}))


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
        made = db.row(
            """
            insert into public.device_groups (name, description, selector, owner_id)
            values (%(name)s, %(description)s, %(selector)s, %(owner_id)s)
            returning id
            """,
            {
                "name": name,
                "description": description,
                "selector": None if wanted is None else json_value(wanted),
                "owner_id": names.owner_id(db, owner),
            },
        )
        members = names.device_ids(db, device)
        if members:
            db.rows(_ADD, {"id": made["id"], "device_ids": members})
        row = db.row(_GROUPS, {"id": made["id"], "limit": 1})
    output.show_row(row)


_ADD: LiteralString = """
insert into public.device_group_members (group_id, device_id)
select %(id)s, u.device_id
from unnest(%(device_ids)s::bigint[]) as u (device_id)
on conflict (group_id, device_id) do nothing
returning group_id, device_id
"""


@app.command()
def add(group: Group, device: Devices) -> None:
    """Add devices to a group; who is in it already stays.

    Example: pgfleet group add classroom lab-01 lab-02
    """
    with open_database() as db:
        found = names.group_id(db, group)
        added = db.rows(_ADD, {"id": found, "device_ids": names.device_ids(db, device)})
        row = db.row(_GROUPS, {"id": found, "limit": 1})
    output.show_row(row)
    output.say(f"Added {len(added)} of {len(device)}.")


@app.command()
def remove(group: Group, device: Devices) -> None:
    """Take devices out of a group.

    Example: pgfleet group remove classroom lab-01
    """
    with open_database() as db:
        found = names.group_id(db, group)
        removed = db.rows(
            """
            delete from public.device_group_members as m
            where m.group_id = %(id)s and m.device_id = any (%(device_ids)s::bigint[])
            returning m.device_id
            """,
            {"id": found, "device_ids": names.device_ids(db, device)},
        )
        row = db.row(_GROUPS, {"id": found, "limit": 1})
    output.show_row(row)
    output.say(f"Removed {len(removed)} of {len(device)}.")


@app.command()
def devices(group: Group) -> None:
    """List the devices that are in a group at this moment.

    Example: pgfleet group devices classroom --csv
    """
    with open_database() as db:
        rows = db.rows(
            """
            select d.id, d.hostname, d.platform, d.tags, d.last_seen
            from public.group_devices(%(id)s) as d
            order by lower(d.hostname)
            """,
            {"id": names.group_id(db, group)},
        )
    output.show_rows(rows)


@app.command()
def delete(group: Group, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Delete a group; its devices stay.

    Example: pgfleet group delete classroom --yes
    """
    with open_database() as db:
        found = names.group_id(db, group)
        row = db.row(_GROUPS, {"id": found, "limit": 1})
        if not dry_run:
            db.commit()
            output.confirm(f"Delete group {row['name']}?", yes=yes)
            db.rows(
                "delete from public.device_groups as g where g.id = %(id)s returning g.id",
                {"id": found},
            )
    output.show_row(row)
    output.say("Would be deleted." if dry_run else "Deleted.")
