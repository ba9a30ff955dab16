"""Pushes through everything that goes wrong at once: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.helpers.killed import Killed
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving, wait_until
from tests.helpers.simplemdm_account import push_to_many

from pgfleet_local.sandboxes.simplemdm import create_sandbox

KILL_SECONDS = 5.0
FAULTS = {"error_share": 0.05, "reset_share": 0.02}


def highest_rate(sandbox: Sandbox, seconds: float = 10) -> float:
    """Give the most requests a second over any so many seconds."""
    times = [one["at"] for one in sandbox.requests()]
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most / seconds


def run_chaos(
    database: Any,
    ports: Callable[[], int],
    *,
    count: int,
    rate: float,
    kills: int,
    limits: float,
) -> str:
    """Push to many devices while everything fails; give a line of what was measured."""
    app = create_sandbox({"full": FULL, "read_only": READ_ONLY})
    with serving(app, ports()) as url, database.connect(autocommit=True) as conn:
        sandbox = Sandbox(url)
        settings = {"rate_per_second": rate, "burst": 5}
        conn.execute("select fleet.set_setting('lease_seconds', '5')")
        profile, owner = push_to_many(database, sandbox, count, settings)
        sandbox.faults(rate_limit=rate, limit_share=limits, **FAULTS)
        environment = {
            **os.environ,
            "PGFLEET_FUNCTIONS_DATABASE_URL": database.url("fleet_worker"),
            "PGFLEET_ALLOW_PRIVATE_ADDRESSES": "on",
            "SUPABASE_JWT_SECRET": database.settings.jwt_secret,
        }
        functions = Killed(environment, ports(), KILL_SECONDS, kills)

        def statuses() -> dict[str, int]:
            query = "select status, count(*) from device_commands where owner_id = %s group by 1"
            return dict(conn.execute(query, (owner,)).fetchall())

        with functions.running():
            wait_until(lambda: statuses() == {"completed": count}, seconds=150 + count * 10 / rate)

        effects = Counter((one["event"], one["device_id"]) for one in sandbox.history())
        installed = sandbox.control("GET", "history")["installed"]
        assert {one["profile_id"] for one in installed} == {profile}
        assert len(installed) == count
        assert set(effects.values()) == {1} and len(effects) == 2 * count
        assert highest_rate(sandbox) <= rate * 1.05
        # Each call is in the log before it is made, and each attempt, also one that was killed.
        [(calls, unanswered)] = conn.execute(
            "select count(*) filter (where method is not null),"
            " count(*) filter (where method is not null and status is null)"
            " from mdm_api_logs where owner_id = %s",
            (owner,),
        ).fetchall()
        requests = sandbox.requests()
        assert 0 <= calls - len(requests) <= unanswered
        untold = conn.execute(
            "select c.id, a.n from device_commands as c"
            " cross join lateral generate_series(1, c.attempt) as a(n)"
            " where c.owner_id = %s and not exists (select from mdm_api_logs as l"
            " where l.command_id = c.id and l.attempt = a.n)",
            (owner,),
        ).fetchall()
        assert untold == []
        return (
            f"{count} pushes, {functions.kills} kills, {len(requests)} requests"
            f" ({Counter(one['status'] for one in requests)}), {calls} calls in the log,"
            f" {unanswered} without an answer, at most {highest_rate(sandbox):.1f}/s over 10 s"
        )


@pytest.mark.timeout(600)
def test_pushes_survive_faults_and_kills(own_database: Any, free_port: Callable[[], int]) -> None:
    print(run_chaos(own_database, free_port, count=50, rate=40, kills=1, limits=0.05))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_thousand_pushes_survive_faults_and_kills(
    own_database: Any, free_port: Callable[[], int]
) -> None:
    # A refusal says that it was too fast: with one in twenty at any pace, no pace would be left.
    print(run_chaos(own_database, free_port, count=2000, rate=20, kills=1000, limits=0.002))
