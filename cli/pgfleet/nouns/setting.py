"""pgfleet setting: what the engine can be told."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pgfleet import options, output
from pgfleet.database import json_value, open_database

app = options.Noun("Settings of the engine.")


@app.command("list")
def list_settings() -> None:
    """List every setting with its value, its default and what it means.

    Example: pgfleet setting list
    """
    with open_database() as db:
        rows = db.find("setting_list", order=("name",))
    output.show_rows(rows, ["name", "value", "default_value", "description"])


@app.command("set", changes=True)
def set_setting(
    name: Annotated[str, typer.Argument(help="Which setting.")],
    value: Annotated[str, typer.Argument(help="JSON, or plain text.")],
) -> None:
    """Change one setting; it holds from the next tick.

    Example: pgfleet setting set doorbell_rate 500
    """
    with open_database() as db:
        held = db.value("fleet.set_setting", p_name=name, p_value=json_value(_json_or_text(value)))
    output.show_row({"name": name, "value": held})


def _json_or_text(value: str) -> Any:
    """Read JSON where it is some; an address or a uuid needs no quotes."""
    try:
        return json.loads(value)
    except ValueError:
        return value
