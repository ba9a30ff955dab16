"""Claims, leases and reports when answers get lost, against the whole platform."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.spans import collected, of_trace, parent_of

from pgfleet.agent import state
from pgfleet.agent.client import Command, DeviceClient
from pgfleet.agent.enroll import enroll
from pgfleet.agent.handlers.interface import HandlerContext, HandlerFailed
from pgfleet.agent.journal import Journal, Outcome
from pgfleet.agent.settings import AgentSettings, Timing
from pgfleet.agent.worker import Worker

LEASE_SECONDS = 2
DONE = Outcome("completed", {"from": "the journal"})


class LossyTransport(httpx.AsyncHTTPTransport):
    """A network that loses some requests, and some answers to what the server has done."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: dict[str, int] = {}
        self.calls: list[str] = []
        self.block: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        function = request.url.path.rpartition("/")[2]
        self.calls.append(function)
        if function in self.block:
            raise httpx.ConnectError("no route", request=request)
        response = await super().handle_async_request(request)
        if self.lose.get(function, 0) > 0:
            self.lose[function] -= 1
            await response.aclose()
            raise httpx.ReadError("the answer was lost", request=request)
        return response


class Handlers:
    """Count entries, and do what the test asks for."""

    def __init__(self) -> None:
        self.entered: list[int] = []
        self.act: Callable[[], Awaitable[Any]] | None = None

    def find(self, command_type: str) -> Any:
        async def handle(context: HandlerContext, payload: dict[str, Any]) -> Any:
            self.entered.append(context.command_id)
            return await self.act() if self.act else {"from": "the handler"}

        return handle


class Bench:
    """One enrolled device whose worker the test drives."""

    def __init__(self, fleet: Any, folder: Path) -> None:
        self.fleet = fleet
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self.transport = LossyTransport()
        self.handlers = Handlers()
        self.settings = AgentSettings(
            url=fleet.settings.api_url,
            anon_key=fleet.settings.anon_key,
            state_dir=folder / "device",
            hostname=self.name,
            code=fleet.code(),
            timing=Timing(retry=0.05, retry_limit=0.2),
        )
        state.prepare(self.settings.state_dir)
        self.journal_path = self.settings.state_dir / state.JOURNAL
        self.client: DeviceClient
        self.journal: Journal

    def send(self, command_type: str = "buzz", **more: Any) -> int:
        return int(self.fleet.send(self.name, command_type, **more))

    @asynccontextmanager
    async def open(self) -> Any:
        async with httpx.AsyncClient(transport=self.transport, timeout=30) as http:
            self.client = DeviceClient(await enroll(self.settings, http), self.settings, http)
            self.journal = Journal(self.journal_path)
            try:
                yield self
            finally:
                self.journal.close()

    @asynccontextmanager
    async def working(self, drain: float = 10) -> Any:
        """Run a worker that is rung all the time."""
        worker = Worker(self.client, self.journal, self.handlers, self.settings)

        async def ring() -> None:
            while True:
                worker.ring("test")
                await asyncio.sleep(0.2)

        running, ringing = asyncio.create_task(worker.run()), asyncio.create_task(ring())
        try:
            yield worker
        finally:
            ringing.cancel()
            with suppress(asyncio.CancelledError):
                await ringing
            await worker.drain(drain)
            await running

    async def wait(self, command_id: int, *statuses: str) -> dict[str, Any]:
        row: dict[str, Any] = await asyncio.to_thread(self.fleet.wait_status, command_id, *statuses)
        return row

    def device_id(self) -> int:
        return int(self.fleet.device_id(self.name))

    def ended_of(self, schedule_id: int) -> dict[str, Any]:
        """Wait for the command of a schedule's run, as people see it."""
        query = (
            "select to_jsonb(c) from command_list as c"
            " where schedule_id = %s and status = 'completed'"
        )
        row: dict[str, Any] = self.fleet.wait_for(lambda: self.fleet.value(query, schedule_id))
        return row

    async def settled(self) -> None:
        """Wait until the journal has nothing open."""
        async with asyncio.timeout(20):
            while self.journal.open_entries():
                await asyncio.sleep(0.02)

    async def claim_one(self) -> Command:
        """Take a command as an earlier process did."""
        (command,) = await self.client.claim(1, self.journal.id)
        return command


@pytest.fixture
def bench(fleet: Any, tmp_path: Path) -> Iterator[Bench]:
    with fleet.setting("lease_seconds", LEASE_SECONDS), fleet.setting("retry_backoff_seconds", 0):
        yield Bench(fleet, tmp_path)


def test_a_result_whose_answer_is_lost_is_reported_again(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            bench.transport.lose["finish_command"] = 3
            command_id = bench.send()
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
                await bench.settled()
            assert (row["status"], row["attempt"]) == ("completed", 1)
            assert bench.handlers.entered == [command_id]

    asyncio.run(story())


def test_commands_whose_claim_is_lost_come_again(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            bench.transport.lose["claim_commands"] = 1
            command_id = bench.send()
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
            assert (row["status"], row["attempt"]) == ("completed", 2)
            assert bench.handlers.entered == [command_id]

    asyncio.run(story())


@pytest.mark.parametrize("lost", [0, 1])
def test_a_queue_is_worked_off_with_one_call_a_command(bench: Bench, lost: int) -> None:
    async def story() -> None:
        bench.settings = replace(bench.settings, concurrency=1)
        async with bench.open():
            # A claim whose answer is lost comes again when its lease has run out.
            bench.transport.lose["work"] = lost
            sent = [bench.send() for _ in range(5)]
            async with bench.working():
                for command_id in sent:
                    row = await bench.wait(command_id, "completed", "failed")
                    assert row["status"] == "completed"
                await bench.settled()
            assert sorted(bench.handlers.entered) == sent
            calls = bench.transport.calls
            assert calls.count("work") >= 3
            assert calls.count("finish_command") + calls.count("work") <= len(sent) + 2 * lost

    asyncio.run(story())


def test_what_finished_before_a_crash_is_reported_and_not_run(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            command_id = bench.send()
            command = await bench.claim_one()
            bench.journal.started(command_id, command.attempt, "buzz", rerun_safe=False)
            bench.journal.finished(command_id, command.attempt, DONE)
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
                await bench.settled()
            assert (row["attempt"], row["result"]) == (1, DONE.result)
            assert bench.handlers.entered == []

    asyncio.run(story())


def test_a_result_of_an_older_lease_is_reported_under_the_new_one(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            command_id = bench.send()
            first = await bench.claim_one()
            bench.journal.started(command_id, first.attempt, "buzz", rerun_safe=False)
            bench.journal.finished(command_id, first.attempt, DONE)
            await bench.wait(command_id, "pending")
            second = await bench.claim_one()
            assert (first.attempt, second.attempt) == (1, 2)
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
                await bench.settled()
            assert (row["attempt"], row["result"]) == (3, DONE.result)
            assert bench.handlers.entered == []

    asyncio.run(story())


def test_a_failure_of_an_older_lease_is_tried_again(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            command_id = bench.send()
            first = await bench.claim_one()
            bench.journal.started(command_id, first.attempt, "buzz", rerun_safe=False)
            failed = Outcome("failed", None, "no sound", "error")
            bench.journal.finished(command_id, first.attempt, failed)
            # The report arrived, but its answer did not.
            await bench.client.finish(command_id, first.attempt, failed)
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
                await bench.settled()
            assert (row["status"], row["attempt"]) == ("completed", 2)
            assert bench.handlers.entered == [command_id]

    asyncio.run(story())


def test_work_goes_on_under_a_new_lease_when_extensions_are_lost(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            bench.handlers.act = lambda: asyncio.sleep(LEASE_SECONDS * 3, {"slow": True})
            command_id = bench.send()
            bench.transport.block.add("extend_command")
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
                await bench.settled()
            assert row["status"] == "completed"
            assert row["attempt"] > 1
            assert bench.handlers.entered == [command_id]

    asyncio.run(story())


def test_what_was_claimed_but_not_started_is_given_back(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            command_id = bench.send()
            worker = Worker(bench.client, bench.journal, bench.handlers, bench.settings)
            running = asyncio.create_task(worker.run())
            worker.ring("test")
            # The claim is under way when the stop comes.
            for _ in range(5):
                await asyncio.sleep(0)
            await worker.drain(10)
            await running
            row = bench.fleet.command(command_id)
            assert (row["status"], row["attempt"], row["lease_expires_at"]) == ("pending", 1, None)
            assert bench.handlers.entered == []
            assert bench.journal.open_entries() == []
            # It counts as no failure, and is there for whoever looks next.
            assert (await bench.claim_one()).command_id == command_id

    asyncio.run(story())


def test_a_failure_is_retried_when_it_is_due(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            failures = iter([HandlerFailed("first"), HandlerFailed("second")])

            async def act() -> dict[str, int]:
                for failure in failures:
                    raise failure
                return {"try": 3}

            bench.handlers.act = act
            command_id = bench.send()
            async with bench.working():
                row = await bench.wait(command_id, "completed", "failed")
            assert (row["status"], row["attempt"], row["result"]) == ("completed", 3, {"try": 3})

    asyncio.run(story())


def test_no_more_run_at_once_than_there_are_slots(bench: Bench) -> None:
    async def story() -> None:
        async with bench.open():
            now, most = 0, 0

            async def act() -> None:
                nonlocal now, most
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.05)
                now -= 1

            bench.handlers.act = act
            sent = [bench.send() for _ in range(12)]
            async with bench.working():
                for command_id in sent:
                    await bench.wait(command_id, "completed")
            assert most == bench.settings.concurrency
            assert sorted(bench.handlers.entered) == sent

    asyncio.run(story())


def test_what_a_handler_does_is_told_in_the_trace_of_its_run(bench: Bench) -> None:
    async def run() -> str:
        async with bench.open():
            made = bench.fleet.value(
                "select create_schedule(%s) -> 'id'",
                Jsonb({"name": "traced", "action_type": "buzz", "device_ids": [bench.device_id()]}),
            )
            bench.fleet.value("select id from run_schedule(%s)", made)
            async with bench.working():
                row = await asyncio.to_thread(bench.ended_of, made)
        return str(row["trace_id"])

    with collected() as spans:
        trace_id = asyncio.run(run())
        (handled,) = of_trace(spans, trace_id)
    assert handled.name == "handle buzz"
    assert parent_of(handled) == trace_id[:16]
