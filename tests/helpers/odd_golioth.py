"""A Golioth that answers what no sender should send, and an integration with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SERVICE_KEY = "service-key-of-the-tests"


@dataclass
class OddCloud:
    """A Golioth whose records are written as they are: devices and points are texts of JSON."""

    devices: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    says_total: bool = True
    # Whatever page is asked for, this many points are said to be there, and the first page comes.
    endless: int = 0
    is_broken: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        """Give it as an app."""
        routes = [
            Route("/v1/projects/odd/devices", self._list_devices),
            Route("/v1/projects/odd/stream", self._list_points, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def _list_devices(self, request: Request) -> Response:
        query = request.query_params
        shown = self.devices
        if "statePath" not in query:
            shown = [json.dumps({"id": one[7:31], "name": one[7:31]}) for one in self.devices]
        return self._page(shown, int(query["page"]), int(query["perPage"]))

    async def _list_points(self, request: Request) -> Response:
        asked = await request.json()
        self.asked.append(asked)
        if self.is_broken:
            return Response("by no means", media_type="application/json")
        if asked["start"] == asked["end"]:
            return self._page([], 0, 1)
        return self._page(self.points, asked["page"], asked["perPage"])

    def _page(self, records: list[str], page: int, size: int) -> Response:
        total = self.endless if self.endless and records is self.points else len(records)
        page = 0 if total == self.endless else page
        shown = ",".join(records[page * size : (page + 1) * size])
        counted = f', "total": "{total}"' if self.says_total else ""
        return Response(f'{{"list": [{shown}]{counted}}}', media_type="application/json")


def device(number: int, state: str = "null") -> str:
    """Give a device as the list has it."""
    return f'{{"id":"{number:024x}","name":"odd-{uuid4().hex[:8]}","data":{state}}}'


def point(number: int, data: str, seconds: float = 30, at: str | None = None) -> str:
    """Give a point as the stream has it."""
    told = at or (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    return f'{{"deviceId":"{number:024x}","time":"{told}","data":{data}}}'


@dataclass
class Odd:
    """The odd cloud and the integration with it."""

    site: Any
    cloud: OddCloud
    integration: int
    owner: str

    def pull(self) -> dict[str, Any]:
        """Pull, and give the row of it in the log."""
        self.site.value(
            "update fleet.golioth_syncs set asked_at = now(), held_until = null"
            " where integration_id = %s returning 1",
            self.integration,
        )
        answer = httpx.post(
            f"{self.site.url}/functions/v1/auto-sync-cron",
            json={},
            headers={"Authorization": f"Bearer {SERVICE_KEY}", "Prefer": "wait=60"},
            timeout=90,
        )
        assert answer.status_code == 200, answer.text
        row: dict[str, Any] = self.site.value(
            "select to_jsonb(a) from integration_activity_log as a where integration_id = %s"
            " and activity_type = 'sync_import' order by id desc limit 1",
            self.integration,
        )
        return row

    def stored(self) -> list[Any]:
        """Give the data of the points that are stored, in the order of their times."""
        with self.site.connect() as conn:
            rows = conn.execute(
                "select data from device_telemetry_history where owner_id = %s"
                " order by recorded_at",
                (self.owner,),
            ).fetchall()
        return [row[0] for row in rows]


@contextmanager
def connected(site: Any, url: str, cloud: OddCloud, owner: str | None = None) -> Iterator[Odd]:
    """Connect an integration with a cloud that listens there."""
    if owner is None:
        owner = str(uuid4())
        site.value("insert into owners (id, name) values (%s, 'odd') returning 1", owner)
    spec = {
        "name": f"odd {uuid4()}",
        "integration_type": "golioth",
        "owner_id": owner,
        "settings": {
            "base_url": url,
            "projectId": "odd",
            "rate_per_second": 1000,
            "burst": 1000,
        },
    }
    made = site.value("select id from create_integration(%s, 'key')", json.dumps(spec))
    yield Odd(site, cloud, made, owner)
    site.value("select delete_integration(%s)", made)
