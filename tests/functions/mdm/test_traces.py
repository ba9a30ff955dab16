"""A run's commands are one trace: below the run what the function does, below that its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.mdm_dispatch import dispatch, dispatching
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving
from tests.helpers.simplemdm_account import push_to_many
from tests.helpers.spans import collected, id_of, of_trace, parent_of

from pgfleet_functions.database import make_pool
from pgfleet_functions.ended_runs import tell_ended
from pgfleet_functions.tracing import span
from pgfleet_local.sandboxes.simplemdm import create_sandbox


@pytest.fixture
def sandbox(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


def test_what_is_done_for_a_run_is_one_trace(own_database: Any, sandbox: Sandbox) -> None:
    push_to_many(own_database, sandbox, 3, {"rate_per_second": 500})
    with own_database.connect() as conn:
        conn.execute("update device_commands set trace_id = %s", ("0af7651916cd43dd" * 2,))
        conn.commit()
    with collected() as spans:
        assert dispatch(own_database, 30)["running"] == 3
        found = of_trace(spans, "0af7651916cd43dd" * 2)
    sends = [one for one in found if one.name == "mdm commands"]
    calls = [one for one in found if one.name.startswith("POST ")]
    assert len(sends) == len(calls) == 3
    # The first half of the trace is the id of the run's own span.
    assert {parent_of(one) for one in sends} == {"0af7651916cd43dd"}
    assert {parent_of(one) for one in calls} == {id_of(one) for one in sends}
    assert len({(one.attributes or {})["pgfleet.command"] for one in sends}) == 3


def test_the_run_itself_is_told_once_it_has_ended(own_database: Any) -> None:
    with own_database.connect() as conn:
        fleet = Fleet(conn)
        devices = fleet.devices(2)
        fleet.create(device_ids=devices, name="Traced")
        first, second = (fleet.claim(device)[0] for device in devices)
        fleet.finish(devices[0], first)
        fleet.finish(devices[1], second, "failed", reason="unsupported")
        fleet.tick()
        # As if it had ended a while ago: what ends at this moment may not be all yet.
        ended = fleet.row(
            "update schedule_runs set finished_at = finished_at - interval '9 seconds',"
            " started_at = started_at - interval '10 seconds' returning *"
        )
        fleet.value("select fleet.grant_worker()")
        conn.commit()

    async def tell() -> list[int]:
        pool = make_pool(own_database.url("fleet_worker"))
        async with pool:
            return [await tell_ended(pool), await tell_ended(pool)]

    with collected() as spans:
        assert asyncio.run(tell()) == [1, 0]
        with span("handle lock", first["trace_id"], command=first["command_id"]):
            pass
        run, handled = (
            next(one for one in spans.get_finished_spans() if one.name == name)
            for name in ("run", "handle lock")
        )
    # The devices, which know the trace alone, are below it.
    assert run.context is not None and f"{run.context.trace_id:032x}" == first["trace_id"]
    assert parent_of(run) is None and parent_of(handled) == id_of(run)
    assert run.start_time == int(ended["started_at"].timestamp() * 1_000_000) * 1000
    assert run.end_time == int(ended["finished_at"].timestamp() * 1_000_000) * 1000
    told = run.attributes or {}
    assert (told["pgfleet.run"], told["pgfleet.targeted"]) == (ended["id"], 2)
    assert (told["pgfleet.completed"], told["pgfleet.failed"]) == (1, 1)


def test_a_poke_is_linked_to_what_follows_from_it(own_database: Any, sandbox: Sandbox) -> None:
    push_to_many(own_database, sandbox, 1, {"rate_per_second": 500})

    async def poked() -> None:
        async with dispatching(own_database) as functions:
            with span("poke mdm-dispatch"):
                await functions.work(30)

    with collected() as spans:
        asyncio.run(poked())
        found = spans.get_finished_spans()
    (poke,) = [one for one in found if one.name == "poke mdm-dispatch"]
    sends = [one for one in found if one.name == "mdm commands"]
    assert sends and all(id_of(poke) == f"{one.links[0].context.span_id:016x}" for one in sends)


def test_what_broke_is_told_by_its_type_only() -> None:
    with collected() as spans:
        with pytest.raises(ValueError), span("broken", "ab" * 16):
            raise ValueError("the key k3y is refused")
        (one,) = spans.get_finished_spans()
    assert (one.attributes or {})["error.type"] == "ValueError"
    assert "k3y" not in one.to_json()
