"""Asking for another system to be read, and waiting for the functions to do it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from pgfleet import names, options, output
from pgfleet.database import Database
from pgfleet.errors import Unavailable

Wait = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Wait until it is read, or only ask for it.")
]
Timeout = Annotated[
    float, typer.Option(min=0, help="Seconds after which the waiting ends, with 1.")
]
DEFAULT_TIMEOUT = 60.0

_ROUNDING = timedelta(milliseconds=5)


def read_now(
    db: Database, integration_id: int, name: str, *, wait: bool, timeout: float
) -> dict[str, Any]:
    """Ask for it; unless nobody wants to wait, end when it is read, or with why it is not."""
    db.touches("integration", integration_id)
    asked = db.row("sync_integration", "id", "sync_requested_at", p_integration_id=integration_id)
    db.commit()
    look_later = f"See how it goes: pgfleet integration activity {name}"
    if not wait or options.current().dry_run:
        output.did(f"It is asked for. {look_later}")
        return _look(db, integration_id)

    def look() -> tuple[dict[str, Any], str, bool]:
        row = _look(db, integration_id)
        is_read = row["last_sync_at"] is not None and row["last_sync_at"] >= asked_at
        if not is_read:
            _refuse_if_failed(db, integration_id, name, asked_at)
        db.commit()
        return row, "read" if is_read else "asked for", is_read

    asked_at = asked["sync_requested_at"]
    found: dict[str, Any] = output.follow(
        look,
        timeout=timeout,
        what=f"integration {name}",
        goes_on=f"The functions read it: do they run (pgfleet functions run)? {look_later}",
    )
    return found


def _look(db: Database, integration_id: int) -> dict[str, Any]:
    rows = db.find("integration_list", {"id": integration_id})
    return names.found(rows, "integration", integration_id)


def _refuse_if_failed(db: Database, integration_id: int, name: str, asked_at: Any) -> None:
    """Raise what a sync that began after it was asked for has failed with."""
    wanted = {"integration_id": integration_id, "activity_type": "sync_import"}
    for row in db.find("integration_activity_list", wanted, order=("-id",), limit=1):
        began = row["created_at"] - timedelta(milliseconds=row["duration_ms"] or 0)
        if row["status"] == "failed" and began >= asked_at - _ROUNDING:
            raise Unavailable(
                f"integration {name} could not be read: {row['error']}",
                reason="sync_failed",
                hint=f"It is tried again. See: pgfleet integration calls {name}",
            )
