"""pgfleet schedule export and apply: schedules as a document."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pgfleet import inputs, names, options, output
from pgfleet.database import json_value, open_database
from pgfleet.errors import InvalidInput
from pgfleet.nouns.schedule.document import read_document, write_document
from pgfleet.nouns.schedule.filter import Where, schedule_filter
from pgfleet.statements import among

app = options.Noun("Schedules as documents.", panel="Many at once")

Owner = Annotated[str | None, typer.Option(help="Name or id of the owner.")]


class Format(StrEnum):
    """How a document is written."""

    YAML = "yaml"
    JSON = "json"


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, not to stdout.")
    ] = None,
    form: Annotated[
        Format | None, typer.Option("--format", help="yaml or json; else by the name of the file.")
    ] = None,
    where: Where = None,
    owner: Owner = None,
) -> None:
    """Write schedules, with their groups, calendars and templates, as a document without ids.

    Example: pgfleet schedule export -o schedules.yaml
    """
    with open_database() as db:
        document = db.exact(
            "export_schedules",
            p_filter=json_value(schedule_filter(db, where)),
            p_owner_id=names.owner_id(db, owner),
        )
    named = file is not None and file.suffix == ".json"
    as_json = form is Format.JSON or (form is None and (named or options.current().as_json))
    text = write_document(document, as_json=as_json)
    if file is None:
        output.show_text(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"--output: cannot write {file}: {error}", reason="file_unwritable"
        ) from error
    output.say(f"Wrote {len(document['schedules'])} schedules to {file}.")


@app.command(changes=True)
def apply(
    file: Annotated[str, typer.Argument(help="A document as YAML or JSON; - for stdin.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Cancel the schedules that it does not name.")
    ] = False,
    owner: Owner = None,
    yes: options.Yes = False,
) -> None:
    """Bring schedules to what a document says, by name; once more changes nothing.

    Example: pgfleet schedule apply schedules.yaml --dry-run
    """
    document = read_document(inputs.read_source(file, "FILE"), file)
    with open_database() as db:
        given = {
            "p_document": json_value(document),
            "p_prune": prune,
            "p_owner_id": names.owner_id(db, owner),
        }
        plan = db.value("apply_document", **given, p_dry_run=True)
        db.commit()
        rows = _rows(plan)
        output.show_rows(rows, ["do", "kind", "name", "what"])
        if not rows:
            output.say(_summary(plan))
            return
        output.confirm(f"Apply {file}: {_summary(plan).rstrip('.')}?", yes=yes)
        called = [row["name"] for row in rows if row["kind"] == "schedule"]
        plan = db.value("apply_document", **given, p_dry_run=False)
        known = db.find("schedule_list", {"name": among(called)}, columns=("id",))
        db.touches("schedule", *(row["id"] for row in known))
        is_trial = options.current().dry_run
    output.say(_summary(plan) if is_trial else f"Applied: {_summary(plan)}")


def _rows(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "do": action,
            "kind": item["kind"],
            "name": item["name"],
            "what": "; ".join(
                f"{key}: {output.as_text(change['from'])} → {output.as_text(change['to'])}"
                for key, change in sorted(item.get("changes", {}).items())
            ),
            "changes": item.get("changes"),
        }
        for action in ("create", "change", "remove")
        for item in plan[action]
    ]


def _summary(plan: dict[str, Any]) -> str:
    return (
        f"{len(plan['create'])} to create, {len(plan['change'])} to change, "
        f"{len(plan['remove'])} to remove, {plan['unchanged']} unchanged."
    )
