"""Work that waits in the database: claimed when somebody says so, and done side by side.

A poke, a notification or a clock only says "look". Whoever says it is not kept waiting: a
dispatcher claims what is due, as much as its shares let it, and claims again for as long
as something is left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pgfleet_functions.errors import FunctionError
from pgfleet_functions.shares import Bounds, Shares
from pgfleet_functions.subject import about
from pgfleet_functions.tracing import here, span

log = logging.getLogger(__name__)

# Between two claims, however often somebody says that there is work.
SHORTEST_WAIT_SECONDS = 0.01
# Whatever is further off is for the next poke.
LONGEST_WAIT_SECONDS = 2.5
# What is under way when the process ends has so long to come to its end.
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a piece of work ended: what to count, and whether the other side let the time pass."""

    counts: Mapping[str, int] = field(default_factory=dict)
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that was claimed: whose it is, the endpoint or integration, and the work."""

    owner: str
    way: int
    work: Callable[[], Coroutine[Any, Any, Ended]]
    # What the log says of it beside the owner.
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought, and after how many seconds more could be claimed; None: not soon."""

    pieces: Sequence[Piece] = ()
    wait: float | None = None


# Takes what may be begun (`Shares.left`). Raises `FunctionError` where the database is away.
Claiming = Callable[[Mapping[str, Any]], Awaitable[Claim]]


class Dispatcher:
    """Does one kind of work: one claim at a time, however often it is woken meanwhile."""

    def __init__(self, name: str, claiming: Claiming, bounds: Bounds) -> None:
        self.name = name
        # How many ended in which way since the start.
        self.counts: Counter[str] = Counter()
        # Why the last claim failed.
        self.failure: FunctionError | None = None
        self._claiming = claiming
        self._shares = Shares(bounds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        # The span of the poke that came last.
        self._woken_by: tuple[Any, ...] = ()
        self._is_waiting = False
        self._idle = asyncio.Event()

    def wake(self) -> None:
        """Look for work; a look that is under way is followed by another one."""
        self._idle.clear()
        self._woken.set()
        self._woken_by = here() or self._woken_by

    async def idle(self) -> None:
        """Wait until nothing is under way and nothing was left to be claimed."""
        await self._idle.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while the block lasts, and let what is under way at its end come to its own."""
        claiming = asyncio.create_task(self._claim_for_ever(), name=f"claim {self.name}")
        try:
            yield
        finally:
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            if self._tasks:
                # Half a call would be left to its lease, and done again.
                await asyncio.wait(self._tasks, timeout=GRACE_SECONDS)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _claim_for_ever(self) -> None:
        while True:
            wait = await self._claim()
            claimed_at = time.monotonic()
            if wait is not None and wait <= LONGEST_WAIT_SECONDS:
                # Not wait_for: before Python 3.12 that forgets a cancel that comes with a wake.
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(wait, SHORTEST_WAIT_SECONDS)):
                        await self._woken.wait()
            else:
                await self._wait_to_be_woken()
            await asyncio.sleep(claimed_at + SHORTEST_WAIT_SECONDS - time.monotonic())
            self._woken.clear()

    async def _wait_to_be_woken(self) -> None:
        self._is_waiting = True
        self._note_idle()
        try:
            await self._woken.wait()
        finally:
            self._is_waiting = False

    def _note_idle(self) -> None:
        if self._is_waiting and not self._tasks and not self._woken.is_set():
            self._idle.set()

    async def _claim(self) -> float | None:
        """Claim once and begin; tell after how many seconds more could be claimed."""
        left = self._shares.left()
        if left["all"] <= 0:
            return None
        try:
            claim = await self._claiming(left)
        except FunctionError as error:
            # The database may be away; its words are for the log, the work waits in its table.
            self.failure = error
            log.warning("%s: %s", self.name, error.message)
            return None
        except Exception:
            log.exception("%s: nothing could be claimed", self.name)
            return None
        self.failure = None
        for piece in claim.pieces:
            self._shares.take(piece.owner, piece.way)
            task = asyncio.create_task(self._do(piece), name=self.name)
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return claim.wait

    async def _do(self, piece: Piece) -> None:
        ended = Ended()
        try:
            with (
                about(owner=piece.owner, **piece.about),
                span(self.name, links=self._woken_by, **_for_span(piece)),
            ):
                ended = await piece.work()
        except Exception:
            # One that trips us up must not stop the others.
            log.exception("%s: work is left to its lease", self.name)
        finally:
            was_tight = self._shares.is_tight
            self._shares.give_back(piece.owner, piece.way, is_slow=ended.is_slow)
            self.counts.update(ended.counts)
            if was_tight:
                self.wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._note_idle()


def _for_span(piece: Piece) -> dict[str, Any]:
    told = {name: value for name, value in piece.about.items() if name != "trace"}
    return {"trace_id": piece.about.get("trace"), "owner": piece.owner, **told}


class Dispatchers:
    """The kinds of work that one function does when it is poked."""

    def __init__(self, dispatchers: Sequence[Dispatcher]) -> None:
        self._all = dispatchers

    def wake(self) -> None:
        """Look for work of each kind."""
        for dispatcher in self._all:
            dispatcher.wake()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while the block lasts."""
        async with AsyncExitStack() as stack:
            for dispatcher in self._all:
                await stack.enter_async_context(dispatcher.running())
            yield

    async def work(self, seconds: float) -> dict[str, int] | None:
        """Look for work and wait until all is done; tell how many ended in which way meanwhile.

        None where that takes longer. Raises `FunctionError` where the database is away.
        """
        before = self._counts()
        self.wake()
        try:
            async with asyncio.timeout(seconds):
                for dispatcher in self._all:
                    await dispatcher.idle()
        except TimeoutError:
            return None
        counts = self._counts()
        counts.subtract(before)
        failures = [one.failure for one in self._all if one.failure]
        if failures and not +counts:
            raise failures[0]
        return dict(+counts)

    def _counts(self) -> Counter[str]:
        return sum((one.counts for one in self._all), Counter())
