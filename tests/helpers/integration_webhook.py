"""What comes in on the secret address of an integration, and what was logged of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from tests.helpers.mdm import Mdm


def webhook(mdm: Mdm) -> str:
    token: str = mdm.fleet.value("select create_integration_webhook(%s) ->> 'token'", mdm.id)
    return token


def tell(mdm: Mdm, token: str, body: Any, now: datetime | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_take_integration_webhook(%s, %s, coalesce(%s, clock_timestamp()))",
        token,
        Jsonb(body),
        now,
    )
    return answer


def activity(mdm: Mdm) -> list[tuple[str, str]]:
    rows = mdm.fleet.rows("select activity_type, status from integration_activity_log order by id")
    return [(row["activity_type"], row["status"]) for row in rows]
