"""pgfleet template: schedules with parameters, kept in versions."""

from __future__ import annotations

import json
from typing import Annotated, Any, LiteralString

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.schedule.document import read_document

app = options.Noun("Templates: schedules with parameters.")

Template = Annotated[str, typer.Argument(help="Name of the template.")]
Version = Annotated[int | None, typer.Option("--version", help="The latest without it.")]

_LIST: LiteralString = """
select
  t.id, t.name, t.version, t.description,
  array(select jsonb_object_keys(t.parameters) order by 1) as parameters,
  o.name as owner, t.created_at
from public.schedule_templates as t
join public.owners as o on o.id = t.owner_id
where %(versions)s or not exists (
  select 1
  from public.schedule_templates as n
  where n.owner_id = t.owner_id and lower(n.name) = lower(t.name) and n.version > t.version
)
order by lower(t.name), t.version desc
limit %(limit)s
"""


@app.command("list")
def list_templates(
    versions: Annotated[bool, typer.Option("--versions", help="Old versions, too.")] = False,
    limit: options.Limit = 1000,
) -> None:
    """List templates with the names of their parameters.

    Example: pgfleet template list --versions
    """
    with open_database() as db:
        rows = db.rows(_LIST, {"versions": versions, "limit": limit})
    output.show_rows(rows, ["id", "name", "version", "parameters", "description"])


@app.command()
def show(template: Template, version: Version = None) -> None:
    """Show a template with what it makes and takes.

    Example: pgfleet template show lock-up
    """
    with open_database() as db:
        rows = db.rows(
            """
            select t.id, t.name, t.version, t.description, t.spec, t.parameters, t.created_at
            from public.schedule_templates as t
            where lower(t.name) = lower(%(name)s)
              and (%(version)s::integer is null or t.version = %(version)s)
            order by t.version desc
            limit 1
            """,
            {"name": template, "version": version},
        )
    output.show_row(names.found(rows, "template", template))


@app.command()
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
        row = db.row(
            "select public.create_template(%(template)s) as template",
            {"template": json_value(content)},
        )["template"]
    output.show_row(row)


@app.command()
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
        kinds = _kinds(
            db.rows(
                """
                select t.parameters
                from public.schedule_templates as t
                where lower(t.name) = lower(%(name)s)
                order by t.version desc
                limit 1
                """,
                {"name": template},
            )
        )
        row = db.row(
            """
            select public.instantiate_template(%(name)s, %(values)s, %(version)s) as schedule
            """,
            {
                "name": template,
                "values": json_value(_values(param or [], kinds)),
                "version": version,
            },
        )["schedule"]
    output.show_row(row)
    for warning in row.get("warnings", []):
        output.say(f"Warning: {warning}")


@app.command()
def delete(template: Template, yes: options.Yes = False, dry_run: options.DryRun = False) -> None:
    """Delete all versions of a template; schedules made from it stay.

    Example: pgfleet template delete lock-up --yes
    """
    with open_database() as db:
        rows = db.rows(
            """
            select min(t.name) as name, count(*) as versions
            from public.schedule_templates as t
            where lower(t.name) = lower(%(name)s)
            having count(*) > 0
            """,
            {"name": template},
        )
        row = names.found(rows, "template", template)
        if not dry_run:
            db.commit()
            output.confirm(f"Delete template {row['name']}?", yes=yes)
            db.row("select public.delete_template(%(name)s)", {"name": template})
    output.show_row(row)
    output.say("Would be deleted." if dry_run else "Deleted.")


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
