"""Choosing schedules on the command line: `--where status=active --where name=%lab%`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgfleet import names
from pgfleet.database import Database
from pgfleet.errors import InvalidInput

Where = Annotated[
    list[str] | None,
    typer.Option(
        help="KEY=VALUE, repeatable; id, status, name (% is anything), action, device, group."
    ),
]

_KEYS = {"id": "ids", "ids": "ids", "action": "action_type", "action_type": "action_type"}


def schedule_filter(db: Database, where: list[str] | None) -> dict[str, Any]:
    """Give the filter that bulk_schedules and export_schedules take.

    A key that is named twice finds what has either value.
    """
    found: dict[str, Any] = {}
    for said in where or []:
        key, equals, value = said.partition("=")
        if not equals or not value:
            raise InvalidInput(
                f"--where {said}: must be KEY=VALUE",
                reason="filter_invalid",
                hint="Example: --where status=active --where name=%lab%",
            )
        if key in ("device", "group"):
            find = names.device_id if key == "device" else names.group_id
            found[f"{key}_id"] = find(db, value)
        elif key == "owner":
            found["owner_id"] = names.owner_id(db, value)
        elif _KEYS.get(key) == "ids":
            found.setdefault("ids", []).extend(_ids(said, value))
        else:
            found.setdefault(_KEYS.get(key, key), []).append(value)
    return found


def _ids(said: str, value: str) -> list[int]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InvalidInput(
            f"--where {said}: ids are whole numbers",
            reason="filter_invalid",
            hint="Example: --where id=1,2,3",
        )
    return [int(part) for part in parts]
