"""Runs of the dispatcher over a real database and the sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving, wait_until
from tests.helpers.simplemdm_account import push_to_many

from pgfleet_functions.database import make_pool
from pgfleet_functions.mdm.dispatch import MdmDispatcher
from pgfleet_local.sandboxes.simplemdm import create_sandbox


@pytest.fixture
def sandbox(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


def run(database: Any, dispatcher: MdmDispatcher, budget: float) -> dict[str, int]:
    """Let a dispatcher run once."""

    async def once() -> dict[str, int]:
        async with make_pool(database.url("fleet_worker")) as pool:
            return await dispatcher.run(pool, budget)

    return asyncio.run(once())


def pushed(sandbox: Sandbox, profile: int) -> list[float]:
    """Give the times at which a profile was assigned."""
    return [
        one["at"]
        for one in sandbox.history()
        if one["event"] == "assigned" and one["profile_id"] == profile
    ]


def test_an_account_that_may_call_seldom_does_not_hold_up_the_others(
    own_database: Any, sandbox: Sandbox
) -> None:
    slow, _ = push_to_many(own_database, sandbox, 80, {"rate_per_second": 1, "burst": 1})
    fast, _ = push_to_many(own_database, sandbox, 60, {"rate_per_second": 100, "burst": 20})
    began = time.time()
    run(own_database, MdmDispatcher(allow_private=True), 5)
    assert len(pushed(sandbox, fast)) == 60
    assert max(pushed(sandbox, fast)) - began < 4
    assert 3 <= len(pushed(sandbox, slow)) <= 15


def test_an_account_that_hangs_does_not_keep_another_from_being_served_at_once(
    own_database: Any, sandbox: Sandbox, free_port: Callable[[], int]
) -> None:
    app = create_sandbox({"full": FULL, "read_only": READ_ONLY})
    with serving(app, free_port()) as url:
        hanging = Sandbox(url)
        push_to_many(own_database, hanging, 60, {"rate_per_second": 500})
        hanging.faults(slow_seconds=4)
        dispatcher = MdmDispatcher(allow_private=True)

        async def serve() -> float:
            async with make_pool(own_database.url("fleet_worker")) as pool:
                first = asyncio.create_task(dispatcher.run(pool, 20))
                while len(hanging.requests()) < 30:
                    await asyncio.sleep(0.05)
                quick, _ = await asyncio.to_thread(
                    push_to_many, own_database, sandbox, 1, {"rate_per_second": 500}
                )
                began = time.time()
                await dispatcher.run(pool, 20)
                while not (found := pushed(sandbox, quick)):
                    await asyncio.sleep(0.02)
                first.cancel()
                return found[0] - began

        assert asyncio.run(serve()) < 2


def test_one_run_drains_what_waits(own_database: Any, sandbox: Sandbox) -> None:
    profile, owner = push_to_many(own_database, sandbox, 50, {"rate_per_second": 500})
    dispatcher = MdmDispatcher(allow_private=True)
    assert run(own_database, dispatcher, 20)["running"] == 50
    assert len(pushed(sandbox, profile)) == 50
    with own_database.connect() as conn:
        found = conn.execute(
            "select method, status, count(distinct command_id), count(*) from mdm_api_logs"
            " where owner_id = %s and method = 'POST' group by 1, 2",
            (owner,),
        ).fetchall()
    assert found == [("POST", 204, 50, 50)]


def test_devices_are_looked_at_a_page_at_a_time(own_database: Any, sandbox: Sandbox) -> None:
    _, owner = push_to_many(own_database, sandbox, 150, {"rate_per_second": 500})
    dispatcher = MdmDispatcher(allow_private=True)
    with own_database.connect(autocommit=True) as conn:
        query = "select count(*) from device_commands where owner_id = %s and status = 'completed'"

        def completed() -> int:
            run(own_database, dispatcher, 1)
            [(count,)] = conn.execute(query, (owner,)).fetchall()
            return int(count)

        wait_until(lambda: completed() == 150)
    looks = [one for one in sandbox.requests() if one["method"] == "GET"]
    assert len(looks) <= 15
