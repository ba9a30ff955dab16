"""The rate of an account holds over all that call it, however many ask at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from pgfleet_functions.database import make_pool
from pgfleet_functions.mdm.calls import CallFailed, FailureKind
from pgfleet_functions.mdm.ratelimit import RateGate
from pgfleet_functions.setup import ensure_worker_role

RATE, BURST = 40, 5


@pytest.fixture
def integration(database: Any) -> Iterator[int]:
    owner = str(uuid4())
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    with database.connect() as conn:
        conn.execute("select fleet.grant_worker()")
        conn.execute("insert into owners (id, name) values (%s, 'rates')", (owner,))
        settings = {"rate_per_second": RATE, "burst": BURST}
        spec = {"name": "m", "integration_type": "simplemdm", "owner_id": owner}
        [(made,)] = conn.execute(
            "select id from create_integration(%s::jsonb, 'a-key-of-nobody')",
            (json.dumps({**spec, "settings": settings}),),
        ).fetchall()
    yield made


def grants(database: Any, integration: int, seconds: float, gates: int) -> list[list[float]]:
    """Let 200 callers at each of several gates ask for leave, and give when each got it."""

    async def ask(gate: RateGate, end: float, times: list[float], urgent: bool) -> None:
        try:
            await gate.enter(end, urgent=urgent)
        except CallFailed as failure:
            assert (failure.kind, failure.reached) == (FailureKind.RATE, False)
        else:
            times.append(time.monotonic())

    async def run() -> list[list[float]]:
        pools = [make_pool(database.url("fleet_worker")) for _ in range(gates)]
        for pool in pools:
            await pool.open(wait=True)
        got: list[list[float]] = [[], []]
        end = time.monotonic() + seconds
        try:
            each = [RateGate(pool, integration) for pool in pools]
            await asyncio.gather(
                *(ask(gate, end, got[n % 2], n % 2 == 0) for gate in each for n in range(200))
            )
        finally:
            for pool in pools:
                await pool.close()
        return got

    return asyncio.run(run())


def test_three_processes_share_one_rate_and_sends_go_before_looks(
    database: Any, integration: int
) -> None:
    sends, looks = grants(database, integration, 2.0, 3)
    most = BURST + RATE * 2
    assert most * 0.8 <= len(sends) + len(looks) <= most
    assert looks == [], "there are sends enough for all of the rate"


def test_who_waits_for_an_account_that_is_paused_is_sent_away(
    database: Any, integration: int
) -> None:
    with database.connect() as conn:
        conn.execute("select pause_integration(%s)", (integration,))

    async def run() -> None:
        async with make_pool(database.url("fleet_worker")) as pool:
            await RateGate(pool, integration).enter(time.monotonic() + 60, urgent=True)

    with pytest.raises(CallFailed) as raised:
        asyncio.run(run())
    assert (raised.value.kind, raised.value.reached) == (FailureKind.KEY, False)
