"""pgfleet owner: from one database to another, while its devices go on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, open_database
from pgfleet.errors import Conflict, InvalidInput
from pgfleet.nouns.owner.sealed import Opener, Sealer, new_private_key, public_key

app = options.Noun("Owners that move.")

Owner = Annotated[str, typer.Argument(help="Name or id of the owner.")]

_BATCH = 500


@app.command("arrival-key")
def arrival_key() -> None:
    """Print the key to which owners that come to this database are sealed.

    Example: pgfleet owner arrival-key
    """
    with options.quietly(), open_database() as db:
        kept = db.value("fleet.keep_move_key", p_candidate=new_private_key())
    output.show_row({"key": public_key(kept)})


@app.command(changes=True)
def export(
    owner: Owner,
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    key: Annotated[str, typer.Option(help="What pgfleet owner arrival-key said over there.")],
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for calls that are under way.")
    ] = 120,
) -> None:
    """Hold an owner still and write all that it has into a file for another database.

    From then on its people only look, and its devices and other systems wait. It goes on there,
    after pgfleet owner import; or here, after pgfleet owner stay.

    Example: pgfleet owner export "School 7" school.pgfleet --key pgfleet-move-…
    """
    with open_database() as db:
        found = str(names.owner_id(db, owner))
        state = db.value("fleet.begin_move", p_owner_id=found)
        db.commit()
        end = time.monotonic() + patience
        while state["under_way"]:
            if time.monotonic() > end:
                raise Conflict(
                    f"{state['under_way']} calls or transactions are still under way",
                    reason="owner_busy",
                    hint="Export it again in a minute; it stays still meanwhile.",
                )
            time.sleep(0.5)
            state = db.value("fleet.begin_move", p_owner_id=found)
            db.commit()
        db.snapshot()
        rows = 0 if options.current().dry_run else _write(db, found, file, key)
    output.show_row({"owner_id": found, "file": str(file), "rows": rows})
    output.say("It is held still. Bring the file over: pgfleet owner import, with -d for there.")


@app.command("import", changes=True)
def take(file: Annotated[Path, typer.Argument(help="What pgfleet owner export wrote.")]) -> None:
    """Let an owner that was exported go on in this database.

    All of it or nothing: what breaks in the middle is tried again.

    Example: pgfleet owner import school.pgfleet
    """
    try:
        opened = file.open(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read: {error.strerror}", reason="file_unreadable"
        ) from error
    with opened, open_database() as db:
        with options.quietly():
            kept = db.value("fleet.keep_move_key", p_candidate=new_private_key())
        sealed = Opener(opened, kept)
        parts = (json.loads(part) for part in sealed.parts())
        head = next(parts, None) or {}
        found = db.value("fleet.check_arrival", p_head=json.dumps(head))
        db.commit()
        with options.quietly():
            wanted, read = _take(db, str(found), parts)
        if wanted != read:
            raise InvalidInput(
                f"the file ends too early: {read} rows of {wanted}",
                reason="owner_file_unfit",
                hint="Copy it once more, or export it again.",
            )
        counts = db.value("fleet.arrive", p_owner_id=found, p_head=json.dumps(head))
    output.show_row({"owner_id": found, "name": head["name"], "rows": sum(counts.values())})
    output.say("It goes on here. Tell its devices, over there: pgfleet owner moved-to")


@app.command("moved-to", changes=True)
def moved_to(
    owner: Owner,
    url: Annotated[str, typer.Argument(help="Address of the platform where it is now.")],
    anon_key: Annotated[str, typer.Option(help="The anon or publishable key of that platform.")],
    functions_url: Annotated[
        str | None, typer.Option(help="Address of its functions; else <url>/functions/v1.")
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Tell the devices of an owner that was exported where they find it, for good.

    Example: pgfleet owner moved-to "School 7" https://two.example.com --anon-key KEY --yes
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        db.commit()
        output.confirm(f"Send all devices of {owner} to {url}?", yes=yes)
        answer = db.value(
            "fleet.finish_move",
            p_owner_id=found,
            p_url=url,
            p_anon_key=anon_key,
            p_functions_url=functions_url,
        )
    output.show_row(answer)


@app.command(changes=True)
def stay(owner: Owner) -> None:
    """Let an owner that was exported go on here after all; do not import it elsewhere then.

    Example: pgfleet owner stay "School 7"
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        was_held = db.value("fleet.give_up_move", p_owner_id=found)
    output.show_row({"owner_id": found, "was_held": was_held})


@app.command(changes=True)
def purge(owner: Owner, yes: options.Yes = False) -> None:
    """Delete what is left here of an owner that lives elsewhere; devices still hear where.

    Wait until its devices have followed: pgfleet device list shows them over there.

    Example: pgfleet owner purge "School 7" --yes
    """
    with open_database() as db:
        found = names.owner_id(db, owner)
        db.commit()
        output.confirm(f"Delete all that is left here of {owner}?", yes=yes)
        devices, more = 0, True
        while more:
            gone = db.value("fleet.purge_owner", p_owner_id=found)
            db.commit()
            devices, more = devices + gone["devices"], gone["more"]
    output.show_row({"owner_id": found, "devices": devices})


def _write(db: Database, owner: str, path: Path, key: str) -> int:
    """Write the file and give how many rows are in it; a file that is not whole is no file."""
    head = db.value("fleet.departing_owner", p_owner_id=owner)
    half = path.with_name(path.name + ".half")
    total = 0
    try:
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            sealer = Sealer(file, key, {"owner_id": owner})
            sealer.add(json.dumps(head))
            for table in head["tables"]:
                rows = (
                    str(row["line"])
                    for row in db.stream(
                        "fleet.departing_rows", "line", p_owner_id=owner, p_table=table
                    )
                )
                while batch := list(islice(rows, _BATCH)):
                    sealer.add(f'{{"table": "{table}", "rows": {json.dumps(_list(batch))}}}')
                    total += len(batch)
            sealer.add(json.dumps({"total": total}))
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
    return total


def _list(rows: list[str]) -> str:
    """Put rows together as they are: no number of them is read and written anew."""
    return f"[{','.join(rows)}]"


def _take(db: Database, owner: str, parts: Iterator[dict[str, Any]]) -> tuple[int | None, int]:
    """Put all rows aside; give how many there should be, None where the end is missing."""
    read = 0
    for number, part in enumerate(parts):
        if "total" in part:
            return int(part["total"]), read
        read += db.value(
            "fleet.take_arriving",
            p_owner_id=owner,
            p_table=part["table"],
            p_batch=number,
            p_rows=part["rows"],
        )
        db.commit()
    return None, read
