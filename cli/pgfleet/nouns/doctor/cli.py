"""pgfleet doctor: every check of the platform, and of the place where the command is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from pgfleet import options, output
from pgfleet.database import Database, database_url, open_database
from pgfleet.nouns.doctor import here
from pgfleet.spoken import as_said_here

app = options.Noun("Is everything well, and what to do where it is not.")

_COLUMNS = ["area", "name", "state", "found", "hint", "can_be_repaired"]
_GOOD = "ok"
# What cannot be known from here is told, and no fault.
_FAULTS = {"broken": ("failed", "red"), "warning": ("pending", "yellow")}


@app.command("doctor", changes=True)
def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend first what can be mended safely at any time.")
    ] = False,
) -> None:
    """Check everything, and say what to do about what is not well; ends with 1 where it is broken.

    Example: pgfleet doctor
    """
    with open_database() as db:
        found = _look(db)
        if fix:
            mended = [row for row in found if row["can_be_repaired"]]
            for row in mended:
                _mend(db, row)
            found = _look(db) if mended else found
            for row in mended:
                output.did(f"Mended: {row['name']}.")
    if output.is_terminal() and not (options.current().as_json or options.current().as_csv):
        output.write("\n".join(_screen(found)))
    else:
        output.show_rows([{name: row[name] for name in _COLUMNS} for row in found], _COLUMNS)
    if any(row["state"] == "broken" for row in found):
        raise typer.Exit(1)


def _look(db: Database) -> list[dict[str, Any]]:
    """Give all checks, those of the database and those of this place."""
    rows = db.call("fleet_checkup")
    clock = here.clock(lambda: db.value("fleet_status")["now"])
    (address,) = db.find("setting_list", {"name": "functions_url"}, columns=["value"])
    db.commit()
    url = address["value"]
    rows += [
        clock,
        here.schema(database_url()),
        here.functions(url),
        here.certificate(url),
        here.private_files(),
    ]
    for row in rows:
        row["hint"] = as_said_here(row["hint"]) if row["hint"] else None
    return rows


def _mend(db: Database, row: dict[str, Any]) -> None:
    if row["area"] != here.AREA:
        db.value("fleet_repair", p_name=row["name"])
        db.commit()
    elif not options.current().dry_run:
        here.close_files()


def _screen(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Give the lines of one screen: what is broken, then what may break, then what is unknown."""
    for state, (sign, colour) in _FAULTS.items():
        for row in found:
            if row["state"] == state:
                yield output.styled(f"{output.sign(sign)} {row['name']}", colour) + f" ({state})"
                yield from _indented("  ", row["found"])
                yield from _indented("    ", row["hint"])
    unknown = [row for row in found if row["state"] == "unknown"]
    for row in unknown:
        yield from _indented("", f"{row['name']}: {row['found']}. {row['hint']}.")
    if any(row["state"] != _GOOD for row in found):
        yield ""
    faults = sum(row["state"] in _FAULTS for row in found)
    well = sum(row["state"] == _GOOD for row in found)
    if faults:
        yield f"{faults} of {len(found)} checks found something; {well} are well."
    else:
        yield output.styled(f"{output.sign('completed')} All is well", "green") + (
            f": {well} of {len(found)} checks" + (", the rest is not known" if unknown else "")
        )


def _indented(indent: str, text: str) -> Iterator[str]:
    for line in output.wrapped(output.one_line(text), output.console().width - len(indent)):
        yield indent + line
