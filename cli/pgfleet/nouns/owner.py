"""pgfleet owner: whose devices and schedules these are."""

from __future__ import annotations

from typing import Annotated

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, json_value, open_database

app = options.Noun("Owners: whose devices and schedules these are.")

_OWNER = ("id", "name", "devices", "schedules", "members")


@app.command("list")
def list_owners(limit: options.Limit = 1000) -> None:
    """List owners with what each has.

    Example: pgfleet owner list
    """
    with open_database() as db:
        rows = db.find("owner_list", columns=_OWNER, order=("name", "id"), limit=limit)
        default = db.value("fleet.setting", p_name="default_owner")
    output.show_rows([row | {"is_default": str(row["id"]) == default} for row in rows])


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
        row = db.row("create_owner", "id", "name", "created_at", p_name=name)
        if default:
            _set_default(db, str(row["id"]))
    output.show_row(row)


@app.command("set-default")
def set_default(owner: Annotated[str, typer.Argument(help="Name or id.")]) -> None:
    """Choose the owner of what is made where nobody is signed in, as here.

    Example: pgfleet owner set-default "School 7"
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        _set_default(db, found)
    output.show_row({"default_owner": found})


def _set_default(db: Database, owner_id: str | None) -> None:
    db.value("fleet.set_setting", p_name="default_owner", p_value=json_value(owner_id))
