"""Callers of the task API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import jwt

ME, STRANGER = UUID(int=301), UUID(int=302)


ADDRESSES = ["/schedule-api", "/schedule-api/api/schedule", "/api/schedule"]


def token(site: Any, user: UUID | str, role: str = "authenticated", **claims: Any) -> str:
    soon = int((datetime.now(UTC) + timedelta(minutes=10)).timestamp())
    known = {"sub": str(user), "role": role, "aud": "authenticated", "exp": soon}
    return jwt.encode({**known, **claims}, site.settings.jwt_secret)


class Api:
    """The API as one caller."""

    def __init__(self, site: Any, user: UUID, address: str = "/api/schedule") -> None:
        self.base = f"{site.url}/functions/v1{address}"
        self.headers = {"Authorization": f"Bearer {token(site, user)}"}

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        return httpx.request(method, self.base + path, json=body, headers=headers, **options)


def make(api: Api, devices: list[int], **more: Any) -> dict[str, Any]:
    answer = api(
        "POST",
        "/tasks",
        {
            "task_name": "Lock",
            "task_type": "lock",
            "recurrence_type": "daily",
            "recurrence_config": {"type": "daily", "time": "06:30"},
            "device_ids": devices,
            **more,
        },
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found
