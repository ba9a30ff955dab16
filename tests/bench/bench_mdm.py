"""What an MDM has to do costs what is sent, not what waits; and desired state stays cheap."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Any

import psycopg
from bench_claims import BARE
from measure import make_owner, row, value
from psycopg.types.json import Jsonb

FEW = 1_000
WAITING = 100_000
DEVICES = 20_000
SENDS = 20
BATCH = 100
ROUNDS = 15


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure claims beside a long queue, and a minute of reconciling where nothing is missing."""
    connection.execute("select fleet.set_setting('ticker_enabled', 'false')")
    owner = make_owner(connection)
    slow, quick = (_account(connection, owner, name) for name in ("slow", "quick"))
    _devices(connection, owner, quick, "quick", SENDS)
    _devices(connection, owner, slow, "few", FEW)
    _queue(connection, "few", 1)
    connection.execute("vacuum analyze")
    few = _claim_seconds(connection, quick)
    _devices(connection, owner, slow, "slow", DEVICES)
    _queue(connection, "slow", WAITING // DEVICES)
    connection.execute("vacuum analyze")
    beside = _claim_seconds(connection, quick)
    behind = _claim_seconds(connection, slow)
    return [
        {
            "what": f"claim of {SENDS} commands beside {WAITING} of another MDM",
            "value": round(beside * 1000, 1),
            "unit": "ms",
            "baseline": f"{few * 1000:.1f} (beside {FEW})",
            "ratio": round(beside / few, 2),
            "goal": "ratio ≤ 1.5",
        },
        {
            "what": f"claim of {SENDS} commands out of {WAITING} of its own MDM",
            "value": round(behind * 1000, 1),
            "unit": "ms",
            "baseline": f"{few * 1000:.1f} (beside {FEW})",
            "ratio": round(behind / few, 2),
            "goal": "ratio ≤ 1.5",
        },
        _batches(connection, quick),
        _reconcile(connection),
    ]


def _account(connection: psycopg.Connection[Any], owner: str, name: str) -> int:
    settings = {"rate_per_second": 1000, "burst": 1000, "syncEnabled": False}
    spec = {"name": name, "integration_type": "simplemdm", "owner_id": owner, "settings": settings}
    query = "select id from create_integration(%s::jsonb, 'a-key-of-nobody')"
    return int(value(connection, query, json.dumps(spec)))


def _devices(
    connection: psycopg.Connection[Any], owner: str, account: int, name: str, count: int
) -> None:
    connection.execute(
        "with made as (insert into devices (owner_id, hostname, tags)"
        " select %(owner)s, %(name)s || '-' || n, array[%(name)s]"
        " from generate_series(1, %(count)s) as n returning id)"
        " insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select id, %(account)s, %(owner)s, id::text from made",
        {"owner": owner, "account": account, "name": name, "count": count},
    )


def _queue(connection: psycopg.Connection[Any], tag: str, each: int) -> None:
    """Let so many commands wait for each device of a tag."""
    for _ in range(each):
        spec = {"name": "news", "action_type": "mdm_refresh", "selector": {"tags": [tag]}}
        connection.execute("select create_schedule(%s::jsonb)", (json.dumps(spec),))
        while value(connection, "select fleet.expand_next(clock_timestamp()) ->> 'more'") == "true":
            pass


def _claim(
    connection: psycopg.Connection[Any], account: int, count: int
) -> tuple[list[dict[str, Any]], float]:
    """Let so many wait for one account, all others being busy; claim them, and time that."""
    connection.execute(
        "select send_command(device_id, 'mdm_refresh') from device_links"
        " where integration_id = %s order by device_id limit %s",
        (account, count),
    )
    connection.execute("update fleet.rate_limits set tokens = 1000")
    room = Jsonb({"all": count, "owner": count, "way": 0, "ways": {account: count}})
    started = time.monotonic()
    claim = value(connection, "select fleet.worker_claim_mdm(%s)", room)
    taken = time.monotonic() - started
    assert len(claim["sends"]) == count, claim
    return claim["sends"], taken


def _claim_seconds(connection: psycopg.Connection[Any], account: int) -> float:
    """Give the median of some claims of one account."""
    taken = []
    for _ in range(ROUNDS):
        taken.append(_claim(connection, account, SENDS)[1])
        connection.execute(
            "select fleet.worker_finish_mdm(c.id, c.attempt, 'completed') from device_commands as c"
            " where c.status = 'running'"
        )
    return median(taken)


def _batches(connection: psycopg.Connection[Any], account: int) -> dict[str, Any]:
    """Compare a function that takes and ends a hundred with the same calls on a bare queue."""
    connection.execute(BARE)
    owner = value(connection, "select owner_id from device_integrations where id = %s", account)
    _devices(connection, owner, account, "batch", BATCH - SENDS)
    ours, bare = [], []
    for _ in range(ROUNDS):
        sends, claiming = _claim(connection, account, BATCH)
        started = time.monotonic()
        for one in sends:
            connection.execute(
                "select fleet.worker_finish_mdm(%s, %s, 'completed')",
                (one["command_id"], one["attempt"]),
            )
        ours.append(claiming + time.monotonic() - started)
        connection.execute(
            "insert into bare_queue (device_id) select 1 from generate_series(1, %s)", (BATCH,)
        )
        started = time.monotonic()
        for number, _, attempt in connection.execute(
            "select * from bare_claim(1, %s)", (BATCH,)
        ).fetchall():
            connection.execute("select bare_finish(1, %s, %s)", (number, attempt))
        bare.append(time.monotonic() - started)
    return row(
        f"functions that claim {BATCH} for an MDM, and finish each when it was answered",
        *(round(BATCH / median(ours)), "commands/s", round(BATCH / median(bare)), "ratio ≥ 0.5"),
    )


def _reconcile(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Compare looking for drift where there is none with counting the pairs that are wanted."""
    connection.execute(
        "insert into device_profiles"
        " (device_id, profile_id, owner_id, is_installed, is_assigned, changed_at)"
        " select d.id, p.id, d.owner_id, true, true, now() from devices as d,"
        " unnest('{a,b,c}'::text[]) as p(id)"
    )
    for profile in ("a", "b", "c"):
        connection.execute("select assign_profile(%s, '{\"selector\": {}}')", (profile,))
    connection.execute("vacuum analyze")

    def seconds(query: str) -> float:
        taken = []
        for _ in range(5):
            started = time.monotonic()
            connection.execute(query)
            taken.append(time.monotonic() - started)
        return median(taken)

    looked = seconds("select fleet.reconcile_all(clock_timestamp())")
    counted = seconds(
        "select count(*) from devices as d, unnest('{a,b,c}'::text[]) as p(id)"
        " join device_profiles as x on x.profile_id = p.id where x.device_id = d.id"
    )
    return {
        "what": f"a minute of reconciling {DEVICES} devices with 3 profiles, nothing missing",
        "value": round(looked * 1000),
        "unit": "ms",
        "baseline": f"{counted * 1000:.0f} (join and count)",
        "ratio": round(looked / counted, 1),
        "goal": "no tick waits for it",
    }
