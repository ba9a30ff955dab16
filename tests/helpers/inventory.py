"""Pages of another system's devices, as its function hands them over."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.mdm import Mdm

Item = dict[str, Any]


def page(mdm: Mdm, *items: Any, now: datetime | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_sync_inventory(%s, %s, coalesce(%s, clock_timestamp()))",
        mdm.id,
        Jsonb(list(items)),
        now,
    )
    return answer


def end(mdm: Mdm, began: datetime, devices: int = 1, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_end_mdm_sync(%s, %s, %s)",
        mdm.id,
        began,
        Jsonb({"counts": {"devices": devices}, **more}),
    )
    return answer


def sync(mdm: Mdm, *items: Item) -> dict[str, Any]:
    began = mdm.now()
    answer = page(mdm, *items)
    answer["left"] += end(mdm, began, len(items))["left"]
    return answer


def links(mdm: Mdm) -> dict[str, int]:
    rows = mdm.fleet.rows("select * from device_links where integration_id = %s", mdm.id)
    return {row["external_id"]: row["device_id"] for row in rows}


def gone(mdm: Mdm) -> set[str]:
    rows = mdm.fleet.rows("select external_id from device_links where left_at is not null")
    return {row["external_id"] for row in rows}


def names(mdm: Mdm) -> list[str]:
    rows = mdm.fleet.rows("select hostname from devices order by hostname")
    return [row["hostname"] for row in rows]


def phone(number: int, **more: Any) -> Item:
    return {"external_id": str(number), "name": f"phone-{number}", **more}
