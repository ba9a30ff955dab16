"""What is woken claims, however often it is woken, and whatever goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from pgfleet_functions.dispatching import Claim, Dispatcher, Dispatchers, Ended, Piece
from pgfleet_functions.errors import FunctionError, Unavailable
from pgfleet_functions.shares import Bounds

BOUNDS = Bounds(total=8, owner=4, way=4)


class Queue:
    """Work that waits, and how it was claimed."""

    def __init__(self, work: Callable[[], Awaitable[None]] | None = None) -> None:
        self.waiting: list[tuple[str, int]] = []
        self.claims = 0
        self.done: list[str] = []
        self.failure: Exception | None = None
        self.work = work

    async def claim(self, left: Mapping[str, Any]) -> Claim:
        self.claims += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        rooms = dict(left["owners"])
        taken = []
        for owner, way in list(self.waiting):
            rooms.setdefault(owner, left["owner"])
            if len(taken) < left["all"] and rooms[owner] > 0:
                rooms[owner] -= 1
                self.waiting.remove((owner, way))
                taken.append(self.piece(owner, way))
        return Claim(taken)

    def piece(self, owner: str, way: int) -> Piece:
        async def work() -> Ended:
            if self.work is not None:
                await self.work()
            self.done.append(owner)
            return Ended({"done": 1})

        return Piece(owner, way, work)


def run(queue: Queue, test: Callable[[Dispatcher], Awaitable[Any]]) -> Any:
    async def working() -> Any:
        dispatcher = Dispatcher("test", queue.claim, BOUNDS)
        async with dispatcher.running():
            await dispatcher.idle()
            return await test(dispatcher)

    return asyncio.run(working())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_all_that_waits_is_done_though_not_at_once() -> None:
    queue = Queue()

    async def test(dispatcher: Dispatcher) -> int:
        queue.waiting = [("a", 1)] * 50 + [("b", 2)] * 50
        dispatcher.wake()
        await dispatcher.idle()
        return dispatcher.counts["done"]

    assert run(queue, test) == 100
    assert queue.waiting == []


def test_many_who_wake_it_make_few_claims_and_the_last_one_is_heard() -> None:
    queue = Queue()

    async def test(dispatcher: Dispatcher) -> int:
        before = queue.claims
        for _ in range(1000):
            dispatcher.wake()
            if queue.claims > before:
                await asyncio.sleep(0)
        queue.waiting = [("late", 1)]
        dispatcher.wake()
        await dispatcher.idle()
        return queue.claims - before

    assert run(queue, test) <= 4
    assert queue.done == ["late"]


def test_whoever_wakes_it_during_a_claim_is_heard_after_it() -> None:
    queue = Queue()

    async def test(dispatcher: Dispatcher) -> None:
        before = queue.claims
        dispatcher.wake()
        await until(lambda: queue.claims > before)
        # The claim has begun: what comes now, it has not seen.
        dispatcher.wake()
        await dispatcher.idle()
        assert queue.claims == before + 2

    run(queue, test)


def test_one_who_hangs_holds_up_nobody_else() -> None:
    hanging = asyncio.Event()
    queue = Queue()

    async def test(dispatcher: Dispatcher) -> None:
        queue.work = hanging.wait  # type: ignore[assignment]
        queue.waiting = [("bad", 1)] * 30
        dispatcher.wake()
        await until(lambda: len(queue.waiting) == 26)
        queue.work = None
        queue.waiting += [("good", 2)] * 10
        began = time.monotonic()
        dispatcher.wake()
        await until(lambda: queue.done == ["good"] * 10)
        assert time.monotonic() - began < 2
        hanging.set()
        await dispatcher.idle()

    run(queue, test)
    assert queue.done.count("bad") == 30


@pytest.mark.parametrize("failure", [Unavailable("the database is away"), RuntimeError("ours")])
def test_a_claim_that_fails_is_made_again_when_it_is_woken(failure: Exception) -> None:
    queue = Queue()

    async def test(dispatcher: Dispatcher) -> None:
        queue.failure, queue.waiting = failure, [("a", 1)]
        dispatcher.wake()
        await dispatcher.idle()
        assert queue.done == []
        queue.failure = None
        dispatcher.wake()
        await dispatcher.idle()
        assert queue.done == ["a"]

    run(queue, test)


def test_work_that_fails_gives_its_place_back() -> None:
    async def fail() -> None:
        raise RuntimeError("it trips us up")

    queue = Queue(fail)

    async def test(dispatcher: Dispatcher) -> None:
        queue.waiting = [("a", 1)] * 20
        dispatcher.wake()
        await dispatcher.idle()

    run(queue, test)
    assert queue.waiting == []


def test_a_claim_says_when_it_is_worth_to_come_back() -> None:
    times: list[float] = []

    async def claim(_: Mapping[str, Any]) -> Claim:
        times.append(time.monotonic())
        return Claim(wait={1: 0.2, 2: 60.0}.get(len(times)))

    async def working() -> None:
        dispatcher = Dispatcher("test", claim, BOUNDS)
        async with dispatcher.running():
            await dispatcher.idle()

    asyncio.run(working())
    # After a while by itself; a minute is for somebody else to say.
    assert len(times) == 2
    assert times[1] - times[0] >= 0.19


def test_what_is_under_way_at_the_end_comes_to_its_own() -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.3)

    queue = Queue(slowly)

    async def test(dispatcher: Dispatcher) -> None:
        queue.waiting = [("a", 1)] * 30
        dispatcher.wake()
        await until(lambda: len(queue.waiting) == 26)

    run(queue, test)
    assert queue.done == ["a"] * 4
    assert len(queue.waiting) == 26, "nothing is begun at the end"


def test_who_waits_learns_what_was_done_meanwhile_or_that_it_takes_longer() -> None:
    gate = asyncio.Event()
    queue = Queue()

    async def working() -> None:
        functions = Dispatchers([Dispatcher("test", queue.claim, BOUNDS)])
        async with functions.running():
            queue.waiting = [("a", 1)] * 3
            assert await functions.work(5) == {"done": 3}
            assert await functions.work(5) == {}
            queue.work, queue.waiting = gate.wait, [("a", 1)]  # type: ignore[assignment]
            assert await functions.work(0.2) is None
            gate.set()
            assert await functions.work(5) == {"done": 1}
            queue.failure = Unavailable("the database is away")
            with pytest.raises(FunctionError):
                await functions.work(5)

    asyncio.run(working())
