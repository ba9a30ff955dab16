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

from pgfleet_functions.database import Pool, make_pool
from pgfleet_functions.integrations.calls import CallFailed, FailureKind
from pgfleet_functions.integrations.rate import RateGate
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


def grants(database: Any, integration: int, seconds: float, processes: int) -> list[float]:
    """Let 100 callers in each of several processes ask for leave, and give when each got it."""

    async def ask(pool: Pool, times: list[float]) -> None:
        try:
            await RateGate(pool, integration, seconds=seconds).enter()
        except CallFailed as failure:
            assert (failure.kind, failure.reached) == (FailureKind.RATE, False)
        else:
            times.append(time.monotonic())

    async def run() -> list[float]:
        pools = [make_pool(database.url("fleet_worker")) for _ in range(processes)]
        for pool in pools:
            await pool.open(wait=True)
        got: list[float] = []
        try:
            await asyncio.gather(*(ask(pool, got) for pool in pools for _ in range(100)))
        finally:
            for pool in pools:
                await pool.close()
        return sorted(got)

    return asyncio.run(run())


def test_processes_share_one_rate(database: Any, integration: int) -> None:
    began = time.monotonic()
    times = grants(database, integration, 2.0, 3)

    # However slow the machine is: nobody is let through earlier than the rate allows.
    early = [at for n, at in enumerate(times) if n + 1 > BURST + 1 + RATE * (at - began)]
    assert early == []
    # And the rate is made use of.
    assert len(times) >= RATE * 2 * 0.8


def test_what_was_paid_for_already_is_let_through(database: Any, integration: int) -> None:
    slow = {"rate_per_second": 0.05, "burst": BURST}
    with database.connect() as conn:
        # Nothing comes into the bucket while the test runs.
        conn.execute(
            "update device_integrations set settings = %s::jsonb where id = %s",
            (json.dumps(slow), integration),
        )

    async def run() -> None:
        async with make_pool(database.url("fleet_worker")) as pool:
            gate = RateGate(pool, integration, seconds=0, prepaid=BURST * 2)
            for _ in range(BURST * 2):
                await gate.enter()
            # None of these was taken out of the bucket.
            for _ in range(BURST):
                await gate.enter()
            await gate.enter()

    with pytest.raises(CallFailed) as raised:
        asyncio.run(run())
    assert raised.value.retry_after and raised.value.retry_after <= 20


def test_who_waits_for_an_account_that_is_paused_is_sent_away(
    database: Any, integration: int
) -> None:
    with database.connect() as conn:
        conn.execute("select pause_integration(%s)", (integration,))

    async def run() -> None:
        async with make_pool(database.url("fleet_worker")) as pool:
            await RateGate(pool, integration, seconds=60).enter()

    with pytest.raises(CallFailed) as raised:
        asyncio.run(run())
    assert (raised.value.kind, raised.value.reached) == (FailureKind.KEY, False)
