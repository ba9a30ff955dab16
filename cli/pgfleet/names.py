"""People write a name or an id; the database tells the id."""

from __future__ import annotations

from typing import Any, overload

from pgfleet.database import Database
from pgfleet.errors import NotFound


def device_id(db: Database, text: str) -> int:
    """Find a device by host name, in any case, or by id."""
    return int(db.value("device_id", p_name=text))


def group_id(db: Database, text: str) -> int:
    """Find a group by name or id."""
    return int(db.value("group_id", p_name=text))


def schedule_id(db: Database, text: str) -> int:
    """Find a schedule by name or id."""
    return int(db.value("schedule_id", p_name=text))


@overload
def integration_id(db: Database, text: str) -> int: ...


@overload
def integration_id(db: Database, text: None) -> None: ...


def integration_id(db: Database, text: str | None) -> int | None:
    """Find an integration by name or id; none named means that there is only one, or any."""
    return None if text is None else int(db.value("integration_id", p_name=text))


def owner_id(db: Database, text: str | None) -> str | None:
    """Find an owner by name or uuid; none named means the database decides."""
    return None if text is None else str(db.value("owner_id", p_name=text))


def profile_id(db: Database, text: str, device_id: int | None = None) -> str:
    """Give the MDM's id of a profile: digits are that id, anything else is a name.

    With a device its MDM decides; without one the name must be of one profile only.
    """
    return str(db.value("profile_id", p_name=text, p_device_id=device_id))


def device_ids(db: Database, texts: list[str] | None) -> list[int]:
    """Find several devices."""
    return [device_id(db, text) for text in texts or []]


def group_ids(db: Database, texts: list[str] | None) -> list[int]:
    """Find several groups."""
    return [group_id(db, text) for text in texts or []]


def found(
    rows: list[dict[str, Any]], kind: str, text: object, *, noun: str | None = None
) -> dict[str, Any]:
    """Give the first row, or say that there is none."""
    if not rows:
        raise NotFound(
            f'{kind} "{text}" was not found',
            reason=f"{kind.replace(' ', '_')}_not_found",
            hint=f"List what there is with: pgfleet {noun or kind} list",
        )
    return rows[0]
