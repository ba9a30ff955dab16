"""Schedules as documents: give one, apply one."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00"


def export(fleet: Fleet, **wanted: Any) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value("select export_schedules(%s)", Jsonb(wanted))
    return answer


def apply(fleet: Fleet, document: Row, *, dry_run: bool = False, prune: bool = False) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value(
            "select apply_document(%s, %s, %s)", Jsonb(document), dry_run, prune
        )
    return answer


def document(*schedules: Row, **more: Any) -> Row:
    return {"version": 1, "schedules": list(schedules), **more}


def lock(name: str, **more: Any) -> Row:
    return {
        "name": name,
        "action_type": "lock",
        "recurrence_type": "daily",
        "recurrence_config": {"time": "06:30"},
        "start_time": LATER,
        "selector": {},
        **more,
    }
