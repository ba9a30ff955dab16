"""A served fleet whose Golioth is the sandbox, over real HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from pgfleet.schema import telemetry
from pgfleet_local.sandboxes.golioth import create_sandbox

KEY = "golioth-key-77a1"
SERVICE_KEY = "service-key-of-the-tests"
_NUMBERS = count(1)


@dataclass
class Cloud:
    """The sandbox and the integration with it, and what the tests do with both."""

    site: Any
    url: str
    integration: int
    devices: list[str]
    webhook: dict[str, Any]
    # Where the points are, if they are not in the same database.
    telemetry_url: str = ""

    def control(self, path: str, body: Any = None) -> Any:
        """Move the world behind the sandbox."""
        answer = httpx.post(f"{self.url}/control/{path}", json=body or {}, timeout=120)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def report(self, points: list[tuple[str, datetime, Any]], push: bool = False) -> Any:
        """Let devices report points [(device, time, data)]."""
        listed = [[device, at.isoformat(), data, "/sensor"] for device, at, data in points]
        return self.control("report", {"points": listed, "push": push})

    def call(self, **headers: str) -> httpx.Response:
        """Call auto-sync-cron as the job of a person does, and wait until all is done."""
        return httpx.post(
            f"{self.site.url}/functions/v1/auto-sync-cron",
            json={"time": "now", "source": "pg_cron"},
            headers={"Authorization": f"Bearer {SERVICE_KEY}", "Prefer": "wait=60"} | headers,
            timeout=90,
        )

    def pull(self) -> dict[str, Any]:
        """Make the pull due, let it be done, and give its row in the log."""
        self.site.value(
            "update fleet.golioth_syncs set slot_at = null, held_until = null"
            " where integration_id = %s returning 1",
            self.integration,
        )
        answer = self.call()
        assert answer.status_code == 200, answer.text
        return self.last("sync_import")

    def last(self, activity: str) -> dict[str, Any]:
        """Give the last row in the log of a kind."""
        row: dict[str, Any] = self.site.value(
            "select to_jsonb(a) from integration_activity_log as a where integration_id = %s"
            " and activity_type = %s order by id desc limit 1",
            self.integration,
            activity,
        )
        return row

    def change(self, **settings: Any) -> None:
        """Change settings of the integration."""
        self.site.value("select change_sync(%s, %s)", self.integration, json.dumps(settings))

    def requests(self) -> list[dict[str, Any]]:
        """Give the calls that the sandbox has had."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/control/requests").json()["requests"]
        return found

    def points(self) -> list[tuple[str, str, Any, bool]]:
        """Give the points that are stored: device in the cloud, time, data, provisional."""
        if self.telemetry_url:
            return self._points_elsewhere()
        with self.site.connect() as conn:
            return conn.execute(
                "select l.external_id, h.recorded_at, h.data, h.is_provisional"
                " from device_telemetry_history as h"
                " join device_links as l on l.device_id = h.device_id"
                " where l.integration_id = %s order by 1, 2",
                (self.integration,),
            ).fetchall()

    def _points_elsewhere(self) -> list[tuple[str, str, Any, bool]]:
        with self.site.connect() as conn:
            query = "select device_id, external_id from device_links where integration_id = %s"
            names = dict(conn.execute(query, (self.integration,)).fetchall())
        with psycopg.connect(self.telemetry_url) as conn:
            rows = conn.execute(
                "select device_id, at, data, is_provisional from telemetry.points"
                " where device_id = any (%s)",
                (list(names),),
            ).fetchall()
        return sorted(((names[row[0]], *row[1:]) for row in rows), key=lambda row: row[:2])


@contextmanager
def connected(
    site: Any, url: str, devices: int = 3, telemetry_url: str = "", **settings: Any
) -> Iterator[Cloud]:
    """Connect a new integration to the emptied sandbox, with so many devices."""
    httpx.post(f"{url}/control/reset")
    name = f"cloud-{next(_NUMBERS)}"
    given = {"base_url": url, "projectId": "acme-demo", "rate_per_second": 1000, "burst": 1000}
    owner = str(uuid4())
    site.value("insert into owners (id, name) values (%s, %s) returning 1", owner, name)
    spec = {"name": name, "integration_type": "golioth", "settings": given | settings}
    integration = site.value(
        "select id from create_integration(%s, %s)", json.dumps(spec | {"owner_id": owner}), KEY
    )
    webhook = site.value("select create_integration_webhook(%s)", integration)
    cloud = Cloud(site, url, integration, [], webhook, telemetry_url)
    made = cloud.control("devices", {"count": devices})
    cloud.devices = [one["id"] for one in made["data"]]
    cloud.control(
        "settings",
        {"webhook": {"url": f"{site.url}/functions/v1{webhook['path']}", "shape": "raw"}},
    )
    yield cloud
    site.value("select delete_integration(%s)", integration)


@pytest.fixture(scope="module", autouse=True)
def short_pauses() -> Iterator[None]:
    """Let a call that failed be made again soon."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pgfleet_functions.golioth.client.FIRST_PAUSE_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def sandbox(free_port: Callable[[], int], serving: Any) -> Iterator[str]:
    """Serve the sandbox."""
    with serving(create_sandbox(KEY), free_port()) as url:
        yield url


@pytest.fixture(scope="module")
def telemetry_url(clone: Any) -> Iterator[str]:
    """Name a second database for the points where PGFLEET_TEST_TELEMETRY=own asks for it."""
    if os.environ.get("PGFLEET_TEST_TELEMETRY") != "own":
        yield ""
        return
    with clone(None) as made:
        telemetry.prepare(made.url("supabase_admin"))
        yield made.url("supabase_admin")


@pytest.fixture(scope="module")
def golioth_site(
    database: Any, free_port: Callable[[], int], serving_site: Any, telemetry_url: str
) -> Iterator[Any]:
    """Serve the functions, which may call this machine."""
    with serving_site(
        database,
        free_port(),
        service_role_key=SERVICE_KEY,
        allow_private_addresses=True,
        telemetry_url=telemetry_url or None,
    ) as site:
        yield site


@pytest.fixture
def cloud(golioth_site: Any, sandbox: str, telemetry_url: str) -> Iterator[Cloud]:
    """Connect a new integration with three devices."""
    with connected(golioth_site, sandbox, telemetry_url=telemetry_url) as made:
        yield made


@pytest.fixture(scope="session")
def connect() -> Any:
    """Give the context manager that connects an integration."""
    return connected


@pytest.fixture(scope="session")
def ago() -> Callable[[float], datetime]:
    """Give a function that gives the time so many seconds ago."""
    return lambda seconds: datetime.now(UTC) - timedelta(seconds=seconds)
