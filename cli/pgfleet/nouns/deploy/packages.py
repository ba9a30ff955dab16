"""pgfleet package: software that can be installed on devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.nouns.deploy import storage
from pgfleet.nouns.deploy.files import added
from pgfleet.statements import contains

app = options.Noun("Packages: software to be installed.")

PackageId = Annotated[int, typer.Argument(help="Id of the package.")]


@app.command(changes=True)
def add(
    name: Annotated[str, typer.Argument(help="Name of the software.")],
    version: Annotated[str, typer.Argument(help="Its version.")],
    install: Annotated[
        str | None, typer.Option(help="Program and arguments; {file} is the installer.")
    ] = None,
    uninstall: Annotated[str | None, typer.Option(help="The same to take it off.")] = None,
    file: Annotated[Path | None, typer.Option(help="The installer, to be uploaded.")] = None,
    file_id: Annotated[int | None, typer.Option(help="An installer that is there already.")] = None,
    detect: Annotated[
        str | None, typer.Option(help="JSON that tells whether it is there: path, command.")
    ] = None,
    needs: Annotated[
        list[int] | None, typer.Option(help="Id of a package to install before; repeatable.")
    ] = None,
    platform: Annotated[str | None, typer.Option(help="Only for this platform.")] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds that its installer may run.")] = None,
    description: Annotated[str, typer.Option(help="What it is.")] = "",
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Add a package; commands run without a shell, {file} stands for the downloaded installer.

    Example: pgfleet package add tool 2.1 --file tool.sh --install "sh {file} --quiet"
    """
    rule = inputs.json_object(detect, "--detect")
    where = None if file is None else storage.access()
    with open_database() as db:
        owner_id = names.owner_id(db, owner)
        if file is not None and where is not None:
            file_id = added(db, where, file, None, description, owner_id)["id"]
        made = db.insert(
            "software_packages",
            {
                "name": name,
                "version": version,
                "platform": platform,
                "description": description,
                "file_id": file_id,
                "install_command": install,
                "uninstall_command": uninstall,
                "detection": None if rule is None else json_value(rule),
                "dependencies": needs,
                "timeout_seconds": timeout,
                "owner_id": owner_id,
            },
            "id",
        )
        row = _read(db, made["id"])
    output.show_row(row)


@app.command("list")
def list_packages(
    name: Annotated[str | None, typer.Option(help="Only with this in the name.")] = None,
    limit: options.Limit = 100,
) -> None:
    """List packages, the newest first.

    Example: pgfleet package list --name tool
    """
    with open_database() as db:
        rows = db.find("package_list", {"name": contains(name)}, order=("-id",), limit=limit)
    output.show_rows(rows, ["id", "name", "version", "platform", "file", "dependencies"])


@app.command()
def show(package: PackageId) -> None:
    """Show one package.

    Example: pgfleet package show 5 --json
    """
    with open_database() as db:
        output.show_row(_read(db, package))


@app.command(changes=True)
def delete(package: PackageId, yes: options.Yes = False) -> None:
    """Delete a package that no schedule and no other package needs.

    Example: pgfleet package delete 5 --yes
    """
    with open_database() as db:
        row = _read(db, package)
        db.commit()
        output.confirm(f"Delete package {row['name']} {row['version']}?", yes=yes)
        db.delete("software_packages", package, "id")
    output.show_row(row)
    output.did("Deleted.")


def _read(db: Database, package_id: int) -> dict[str, Any]:
    return names.found(db.find("package_list", {"id": package_id}), "package", package_id)
