"""Runs of the dispatcher over a real database and the sandbox."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.helpers.hostile import hostile
from tests.helpers.mdm_dispatch import dispatch, dispatching
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving
from tests.helpers.simplemdm_account import push_to_many

from pgfleet_local.sandboxes.simplemdm import create_sandbox


@pytest.fixture
def sandbox(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


def pushed(sandbox: Sandbox, profile: int) -> list[float]:
    """Give the times at which a profile was assigned."""
    return [
        one["at"]
        for one in sandbox.history()
        if one["event"] == "assigned" and one["profile_id"] == profile
    ]


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def test_an_account_that_may_call_seldom_does_not_hold_up_the_others(
    own_database: Any, sandbox: Sandbox
) -> None:
    slow, _ = push_to_many(own_database, sandbox, 80, {"rate_per_second": 1, "burst": 1})
    fast, _ = push_to_many(own_database, sandbox, 60, {"rate_per_second": 100, "burst": 20})

    async def serve() -> None:
        async with dispatching(own_database) as functions:
            functions.wake()
            await until(lambda: len(pushed(sandbox, fast)) == 60)

    began = time.time()
    asyncio.run(serve())
    assert len(pushed(sandbox, slow)) <= time.time() - began + 3
    assert max(pushed(sandbox, fast)) - began < 15


def test_an_account_that_hangs_does_not_keep_another_from_being_served_at_once(
    own_database: Any, sandbox: Sandbox, free_port: Callable[[], int]
) -> None:
    app = create_sandbox({"full": FULL, "read_only": READ_ONLY})
    with serving(app, free_port()) as url:
        hanging = Sandbox(url)
        push_to_many(own_database, hanging, 60, {"rate_per_second": 500})
        hanging.faults(slow_seconds=25)

        async def serve() -> float:
            async with dispatching(own_database) as functions:
                functions.wake()
                while len(hanging.requests()) < 4:
                    await asyncio.sleep(0.05)
                quick, _ = await asyncio.to_thread(
                    push_to_many, own_database, sandbox, 1, {"rate_per_second": 500}
                )
                began = time.time()
                functions.wake()
                while not (found := pushed(sandbox, quick)):
                    await asyncio.sleep(0.02)
                return found[0] - began

        assert asyncio.run(serve()) < 10


def test_one_run_drains_what_waits(own_database: Any, sandbox: Sandbox) -> None:
    profile, owner = push_to_many(own_database, sandbox, 50, {"rate_per_second": 500})
    assert dispatch(own_database, 20)["running"] == 50
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
    query = "select count(*) from device_commands where owner_id = %s and status = 'completed'"

    def completed() -> int:
        with own_database.connect() as conn:
            [(count,)] = conn.execute(query, (owner,)).fetchall()
        return int(count)

    async def serve() -> None:
        async with dispatching(own_database) as functions:
            while await asyncio.to_thread(completed) < 150:
                # As the ticks do.
                functions.wake()
                await asyncio.sleep(1)

    asyncio.run(asyncio.wait_for(serve(), 90))
    looks = [one for one in sandbox.requests() if one["method"] == "GET"]
    pushes = [one for one in sandbox.requests() if one["method"] == "POST"]
    assert len(pushes) == 150
    assert len(looks) <= 30


def test_owners_whose_servers_never_answer_hold_a_few_places_each(
    own_database: Any, sandbox: Sandbox
) -> None:
    async def never(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    with hostile(never) as server:
        for _ in range(6):
            push_to_many(
                own_database, sandbox, 20, {"base_url": server.url, "rate_per_second": 500}
            )

        async def serve() -> float:
            async with dispatching(own_database) as functions:
                functions.wake()
                while len(server.requests) < 24:
                    await asyncio.sleep(0.05)
                began = time.time()
                profile, _ = await asyncio.to_thread(
                    push_to_many, own_database, sandbox, 10, {"rate_per_second": 500}
                )
                functions.wake()
                while len(found := pushed(sandbox, profile)) < 10:
                    await asyncio.sleep(0.02)
                return max(found) - began

        # Their calls last twice as long.
        assert asyncio.run(serve()) < 15
    assert len(server.requests) == 24


def test_a_refusal_of_a_key_that_has_been_replaced_stops_nothing(
    own_database: Any, sandbox: Sandbox
) -> None:
    def replace_key(key: str) -> None:
        with own_database.connect(autocommit=True) as conn:
            conn.execute("select set_integration_secret(id, %s) from device_integrations", (key,))

    profile, _ = push_to_many(own_database, sandbox, 3, {"rate_per_second": 100})
    replace_key("one that is wrong")
    sandbox.faults(slow_seconds=2)

    async def serve() -> None:
        async with dispatching(own_database) as functions:
            functions.wake()
            await until(lambda: sandbox.requests())
            await asyncio.to_thread(replace_key, FULL)
            sandbox.faults(slow_seconds=0)

            def is_done() -> bool:
                # As the ticker does: what was refused waits for a moment.
                functions.wake()
                return len(pushed(sandbox, profile)) == 3

            await until(is_done)

    asyncio.run(serve())
    with own_database.connect() as conn:
        paused = conn.execute(
            "select count(*) from audit_log where table_name = 'device_integrations'"
            " and new ->> 'status' = 'paused'"
        ).fetchone()
    assert paused == (0,)
