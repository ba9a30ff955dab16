"""pgfleet template: schedules with parameters, kept in versions."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import Database, json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.schedule.document import read_document
from pgfleet.statements import same

app = options.Noun("Templates: schedules with parameters.")

Template = Annotated[str, typer.Argument(help="Name of the template.")]
Version = Annotated[int | None, typer.Option("--version", help="The latest without it.")]

_LISTED = ("id", "name", "version", "description", "parameter_names", "owner", "created_at")
_SHOWN = ("id", "name", "version", "description", "spec", "parameters", "created_at")


@app.command("list")
def list_templates(
    versions: Annotated[bool, typer.Option("--versions", help="Old versions, too.")] = False,
    limit: options.Limit = 1000,
) -> None:
    """List templates with the names of their parameters.

    Example: pgfleet template list --versions
    """
    with open_database() as db:
        rows = db.find(
            "template_list",
            {"is_latest": None if versions else True},
            columns=_LISTED,
            order=("name", "-version"),
            limit=limit,
        )
    for row in rows:
        row["parameters"] = row.pop("parameter_names")
    output.show_rows(rows, ["id", "name", "version", "parameters", "description"])


@app.command()
def show(template: Template, version: Version = None) -> None:
    """Show a template with what it makes and takes.

    Example: pgfleet template show lock-up
    """
    with open_database() as db:
        rows = _versions(db, template, version)
    output.show_row(names.found(rows, "template", template))


@app.command(changes=True)
def save(
    name: Template,
    file: Annotated[
        str,
        typer.Option("--file", "-f", help="spec and parameters as YAML or JSON; - for stdin."),
    ],
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Save a template; under a name that exists, as its next version.

    Example: pgfleet template save lock-up --file lock-up.yaml
    """
    content = read_document(inputs.read_source(file, "--file"), file) | {"name": name}
    if description is not None:
        content["description"] = description
    with open_database() as db:
        if owner is not None:
            content["owner_id"] = names.owner_id(db, owner)
        row = db.value("create_template", p_template=json_value(content))
    output.show_row(row)


@app.command(changes=True)
def use(
    template: Template,
    param: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE; JSON where it is JSON, else text. Repeatable."),
    ] = None,
    version: Version = None,
) -> None:
    """Create a schedule from a template.

    Example: pgfleet template use lock-up --param school=north --param 'days=[0, 1]'
    """
    with open_database() as db:
        kinds = _kinds(_versions(db, template, None)[:1])
        row = db.value(
            "instantiate_template",
            p_name=template,
            p_parameters=json_value(_values(param or [], kinds)),
            p_version=version,
        )
        db.touches("schedule", row["id"])
    output.show_row(row)
    for warning in row.get("warnings", []):
        output.warn(warning)


@app.command(changes=True)
def delete(template: Template, yes: options.Yes = False) -> None:
    """Delete all versions of a template; schedules made from it stay.

    Example: pgfleet template delete lock-up --yes
    """
    with open_database() as db:
        rows = _versions(db, template, None)
        first = names.found(rows, "template", template)
        row = {"name": first["name"], "versions": len(rows)}
        db.commit()
        output.confirm(f"Delete template {row['name']}?", yes=yes)
        db.value("delete_template", p_name=template)
    output.show_row(row)
    output.did("Deleted.")


def _versions(db: Database, name: str, version: int | None) -> list[dict[str, Any]]:
    """Read a template, its newest version first."""
    wanted = {"name": same(name), "version": version}
    return db.find("template_list", wanted, columns=_SHOWN, order=("-version",))


def _kinds(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {name: kind.get("type") for row in rows for name, kind in row["parameters"].items()}


def _values(said: list[str], kinds: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word in said:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidInput(
                f"--param {word}: must be NAME=VALUE",
                reason="parameters_invalid",
                hint="Example: --param school=north",
            )
        values[name] = _value(value, kinds.get(name))
    return values


def _value(text: str, kind: str | None) -> Any:
    """Read a value; what is to be text stays text, even where it looks like a number."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


@app.command("add-ready-made", changes=True)
def add_ready_made(
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
) -> None:
    """Add the templates that come with pgfleet: osquery, battery, blocklists.

    Example: pgfleet template add-ready-made
    """
    with open_database() as db:
        rows = db.call("add_ready_made_templates", p_owner_id=names.owner_id(db, owner))
    output.show_rows([{"name": row["add_ready_made_templates"]} for row in rows], ["name"])
