"""Everything that goes wrong between a cloud and us, at once: each point is there exactly once."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.helpers.killed import Killed
from tests.helpers.sandbox import serving, wait_until

from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.sandboxes.golioth import create_sandbox

KEY = "golioth-key"
BATCH = 2000
OVERLAP = 20
FAULTS = {"error_share": 0.02, "limit_share": 0.02, "reset_share": 0.01, "retry_after": False}


def prepare(database: Any) -> None:
    """Give the functions their login."""
    with database.connect("supabase_admin", autocommit=True) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    with database.connect(autocommit=True) as conn:
        conn.execute("select fleet.grant_worker()")


def run_chaos(
    database: Any, ports: Callable[[], int], *, devices: int, points: int, kills: int
) -> str:
    """Report points while the webhook loses and doubles, the API fails and pullers are killed."""
    prepare(database)
    port, chance = ports(), random.Random(5)
    app = create_sandbox(KEY)
    with serving(app, ports()) as url, database.connect(autocommit=True) as conn:

        def control(path: str, body: Any) -> Any:
            return httpx.post(f"{url}/control/{path}", json=body, timeout=600).json()

        def value(query: str, *parameters: Any) -> Any:
            return conn.execute(query.encode(), parameters or None).fetchone()[0]

        made = control("devices", {"count": devices})["data"]
        owner = uuid4()
        conn.execute("insert into owners (id, name) values (%s, 'soak')", (owner,))
        spec = {
            "name": "soak",
            "integration_type": "golioth",
            "owner_id": str(owner),
            "settings": {
                "base_url": url,
                "projectId": "acme-demo",
                "rate_per_second": 1000,
                "burst": 1000,
                # Points are in the stream at once here: little has to be read again.
                "overlapSeconds": OVERLAP,
            },
        }
        integration = value("select id from create_integration(%s, %s)", json.dumps(spec), KEY)
        webhook = value("select create_integration_webhook(%s)", integration)
        push_to = f"http://127.0.0.1:{port}{webhook['path']}"
        control("settings", {"webhook": {"url": push_to, "shape": "raw"}})
        functions = Killed(
            {
                **os.environ,
                "PGFLEET_FUNCTIONS_DATABASE_URL": database.url("fleet_worker"),
                "PGFLEET_ALLOW_PRIVATE_ADDRESSES": "on",
                "SUPABASE_JWT_SECRET": database.settings.jwt_secret,
            },
            port,
        )

        def due(_: int = 0) -> None:
            conn.execute(
                "update fleet.golioth_syncs set asked_at = clock_timestamp(),"
                # A lease of two minutes is long for a test; what holds it is dead or done.
                " held_until = least(held_until, clock_timestamp() + interval '3 seconds')"
            )

        listed: list[list[Any]] = []
        rounds = range(0, points, BATCH)
        strikes = set(chance.sample(rounds, kills))
        with functions.running():
            control("faults", FAULTS | {"drop_share": 0.1, "double_share": 0.05})
            for first in rounds:
                now = datetime.now(UTC)
                batch = [
                    [
                        chance.choice(made)["id"],
                        (now - timedelta(microseconds=BATCH - n)).isoformat(),
                        {"n": first + n, "t": n % 40 / 2},
                        "/sensor",
                    ]
                    for n in range(min(BATCH, points - first))
                ]
                listed += batch
                if first in strikes:
                    threading.Timer(chance.uniform(0, 3), functions.strike).start()
                control("report", {"points": batch, "push": True})
                due()
            wait_until(lambda: functions.kills == kills, 60)
            control("faults", dict.fromkeys(("error_share", "limit_share", "reset_share"), 0.0))

            def done() -> bool:
                due()
                time.sleep(0.5)
                count: int = value("select count(*) from telemetry.points")
                waiting = value("select count(*) from fleet.webhook_inbox where status = 'waiting'")
                return count >= points and waiting == 0

            wait_until(done, 600)
            wait_until(
                lambda: value(
                    "select asked_at is null and started_at is null from fleet.golioth_syncs"
                ),
                300,
            )

        stored = conn.execute(
            "select l.external_id, p.at, p.data from telemetry.points as p"
            " join device_links as l on l.device_id = p.device_id"
        ).fetchall()
        wanted = {(one[0], datetime.fromisoformat(one[1]), one[2]["n"]) for one in listed}
        assert len(stored) == points
        assert {(device, at, data["n"]) for device, at, data in stored} == wanted
        logged = value(
            "select sum((counts ->> 'stored')::bigint) from integration_activity_log"
            " where integration_id = %s",
            integration,
        )
        assert logged == points
        behind = value(
            "select count(*) from fleet.sync_cursors as c where c.last_at is distinct from ("
            " select max(p.at) from telemetry.points as p where p.device_id = c.device_id)"
        )
        assert behind == 0
        pushed = control("settings", {})["pushed"]
        return f"{points} points of {devices} devices, {functions.kills} kills, pushed {pushed}"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_point_is_stored_exactly_once(
    own_database: Any, free_port: Callable[[], int]
) -> None:
    print(run_chaos(own_database, free_port, devices=1000, points=100_000, kills=20))
