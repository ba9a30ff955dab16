"""pgfleet owner: whose devices and schedules these are."""

from __future__ import annotations

from typing import Annotated

import typer

from pgfleet import names, options, output
from pgfleet.database import open_database

app = options.Noun("Owners: whose devices and schedules these are.")


@app.command("list")
def list_owners(limit: options.Limit = 1000) -> None:
    """List owners with what each has.

    Example: pgfleet owner list
    """
    with open_database() as db:
        rows = db.rows(
            """
            select
              o.id, o.name,
              (select count(*) from public.devices as d where d.owner_id = o.id) as devices,
              (select count(*) from public.schedules as s where s.owner_id = o.id) as schedules,
              (select count(*) from public.owner_members as m where m.owner_id = o.id) as members,
              coalesce(fleet.setting('default_owner') #>> '{}' = o.id::text, false) as is_default
            from public.owners as o
            order by lower(o.name), o.id
            limit %(limit)s
            """,
            {"limit": limit},
        )
    output.show_rows(rows)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the fleet or team.")],
    default: Annotated[
        bool, typer.Option("--default", help="Use it wherever no owner is named.")
    ] = False,
) -> None:
    """Create an owner, to whom devices and schedules then belong.

    Example: pgfleet owner create "School 7" --default
    """
    with open_database() as db:
        row = db.row(
            "select o.id, o.name, o.created_at from public.create_owner(%(name)s) as o",
            {"name": name},
        )
        if default:
            db.row(_SET_DEFAULT, {"id": str(row["id"])})
    output.show_row(row)


@app.command("set-default")
def set_default(owner: Annotated[str, typer.Argument(help="Name or id.")]) -> None:
    """Choose the owner of what is made where nobody is signed in, as here.

    Example: pgfleet owner set-default "School 7"
    """
    with open_database() as db:
        row = db.row(_SET_DEFAULT, {"id": names.owner_id(db, owner)})
    output.show_row(row)


_SET_DEFAULT = """
select fleet.set_setting('default_owner', to_jsonb(%(id)s::text)) #>> '{}' as default_owner
"""
