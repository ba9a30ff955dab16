"""pgfleet blocklist: websites and software that devices are to block."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import open_database

app = options.Noun("Blocklists: websites and software that devices block.")


class Kind(StrEnum):
    """What is blocked."""

    WEBSITE = "website"
    SOFTWARE = "software"


KindArgument = Annotated[Kind, typer.Argument(help="website or software.")]


@app.command(changes=True)
def add(
    kind: KindArgument,
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Domains, or names of programs.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="One a line; - for stdin, # for remarks.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Only for devices of this group.")] = None,
    note: Annotated[str, typer.Option(help="Why.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Add websites or software to what devices are to block.

    Example: pgfleet blocklist add website games.example.com --note "in lessons"
    """
    wanted = list(patterns or [])
    if file is not None:
        lines = (line.partition("#")[0].strip() for line in _lines(file))
        wanted += [line for line in lines if line]
    with open_database() as db:
        count = db.value(
            "block",
            p_kind=kind.value,
            p_patterns=wanted,
            p_group_id=names.group_id(db, group) if group else None,
            p_note=note,
            p_owner_id=names.owner_id(db, owner),
        )
    output.show_row({"kind": kind.value, "given": len(wanted), "new": count})


@app.command("list")
def list_entries(
    kind: Annotated[Kind | None, typer.Argument(help="website or software; else both.")] = None,
    limit: options.Limit = 1000,
) -> None:
    """List what devices are to block.

    Example: pgfleet blocklist list website
    """
    with open_database() as db:
        wanted = {"kind": kind.value if kind else None}
        rows = db.find("blocklist_list", wanted, order=("kind", "pattern", "id"), limit=limit)
    output.show_rows(rows, ["id", "kind", "pattern", "group_name", "note"], spare=("note",))


@app.command(changes=True)
def remove(
    entry: Annotated[int, typer.Argument(help="Id of the entry, as list shows it.")],
    yes: options.Yes = False,
) -> None:
    """Take an entry off; devices hear of it with their next look.

    Example: pgfleet blocklist remove 12 --yes
    """
    output.confirm(f"Remove entry {entry}?", yes=yes)
    with open_database() as db:
        rows = db.delete("blocklist_entries", entry, "id", "kind", "pattern")
    output.show_row(names.found(rows, "entry", entry))
    output.did("Removed.")


def _lines(file: str) -> list[str]:
    return inputs.read_source(file, "--file").splitlines()
