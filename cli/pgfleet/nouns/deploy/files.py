"""pgfleet file: files that can be sent to devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database, open_database
from pgfleet.nouns.deploy import s3, storage
from pgfleet.statements import contains

app = options.Noun("Files to be sent to devices.")

FileId = Annotated[int, typer.Argument(help="Id of the file.")]


@app.command(changes=True)
def add(
    path: Annotated[Path, typer.Argument(help="The file.")],
    name: Annotated[
        str | None, typer.Option(help="Its name on devices; its own by default.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Upload a file; its hash is computed while it is read, and checked by every device.

    Example: pgfleet file add app.conf --description "Configuration of the app"
    """
    where = storage.access()
    with open_database() as db:
        row = added(db, where, path, name, description, names.owner_id(db, owner))
    output.show_row(row)


@app.command("list")
def list_files(
    name: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    limit: options.Limit = 100,
) -> None:
    """List files, the newest first.

    Example: pgfleet file list --name conf
    """
    with open_database() as db:
        rows = db.find("file_list", {"name": contains(name)}, order=("-id",), limit=limit)
    output.show_rows(rows, ["id", "name", "size_bytes", "sha256", "packages", "created_at"])


@app.command()
def show(file: FileId) -> None:
    """Show one file.

    Example: pgfleet file show 10 --json
    """
    with open_database() as db:
        output.show_row(_read(db, file))


@app.command(changes=True)
def delete(file: FileId, yes: options.Yes = False) -> None:
    """Delete a file that no schedule and no package needs; its bytes stay in the storage.

    Example: pgfleet file delete 10 --yes
    """
    with open_database() as db:
        row = _read(db, file)
        db.commit()
        output.confirm(f"Delete file {row['name']}?", yes=yes)
        db.delete("deployment_files", file, "id")
    output.show_row(row)
    output.did("Deleted.")


def added(
    db: Database,
    where: storage.Access | s3.Door,
    path: Path,
    name: str | None,
    description: str,
    owner: str | None,
) -> dict[str, Any]:
    """Write a file down and upload it: both, or neither."""
    with output.progress(path.name) as advance:
        size, sha256 = storage.measure(path, advance)
        made = db.insert(
            "deployment_files",
            {
                "name": name or path.name,
                "size_bytes": size,
                "sha256": sha256,
                "description": description,
                "owner_id": owner,
            },
            *("id", "storage_path"),
        )
        if not options.current().dry_run:
            storage.upload(where, made["storage_path"], path, size, advance)
    return _read(db, made["id"])


def _read(db: Database, file_id: int) -> dict[str, Any]:
    return names.found(db.find("file_list", {"id": file_id}), "file", file_id)
