"""What moves by itself: open pages are shown again when something may have changed.

The database says once a tick that it is time to look. Each page that is open is then looked at
once for all who have it open with the same rights, and sent where it differs from what they have.
A page that takes long to look at is looked at less often, so that onlookers never cost more than a
share of the server, however many they are.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pgfleet.errors import FleetError
from pgfleet_console.viewers import Viewer
from pgfleet_functions.listening import hearing

log = logging.getLogger(__name__)

# At most one message a second, and looking takes at most a part of the time.
LEAST_SECONDS = 1.0
REST_FOR_EACH_SECOND = 2.0
AT_ONCE = 3
# Where nothing ticks, it is looked all the same: that nothing ticks is worth seeing.
SILENT_SECONDS = 5.0
# A word now and then, so that a connection that is gone is noticed on both sides.
WORD_SECONDS = 15.0

Key = tuple[Viewer, str]
Render = Callable[[Viewer, str], Awaitable[str]]


@dataclass(eq=False)
class _Watch:
    """One page as one viewer has it open, maybe in several places."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    onlookers: set[asyncio.Queue[str | None]] = field(default_factory=set)
    task: asyncio.Task[None] | None = None
    last: str | None = None


class Hub:
    """Shows pages again to all who have them open."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._watches: dict[Key, _Watch] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    def pulse(self, _: str | None = None) -> None:
        """Look again at all that is open."""
        for watch in self._watches.values():
            watch.wake.set()

    @asynccontextmanager
    async def running(self, url: str) -> AsyncIterator[None]:
        """Hear the database while the block lasts."""
        async with hearing(url, "pgfleet_tick", self.pulse, check_seconds=SILENT_SECONDS):
            try:
                yield
            finally:
                self.close()

    def close(self) -> None:
        """Send everybody away; their browsers come again where there is another one."""
        for watch in self._watches.values():
            for onlooker in watch.onlookers:
                _put(onlooker, None)

    async def look_on(self, viewer: Viewer, at: str) -> AsyncIterator[str]:
        """Give what is to be sent to a browser that has a page open, until its token ends."""
        onlooker: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
        key = (viewer, at)
        watch = self._watches.setdefault(key, _Watch())
        watch.onlookers.add(onlooker)
        if watch.task is None:
            watch.task = asyncio.create_task(self._keep_looking(key, watch), name="look on")
        elif watch.last is not None:
            _put(onlooker, watch.last)
        try:
            yield "retry: 1000\n\n"
            while viewer.ends_at is None or viewer.ends_at > time.time():
                try:
                    html = await asyncio.wait_for(onlooker.get(), WORD_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if html is None:
                    return
                yield _message(html)
        finally:
            watch.onlookers.discard(onlooker)
            if not watch.onlookers:
                del self._watches[key]
                watch.task.cancel()

    async def _keep_looking(self, key: Key, watch: _Watch) -> None:
        while True:
            await watch.wake.wait()
            watch.wake.clear()
            async with self._turns:
                began = time.monotonic()
                await self._look_again(key, watch)
                took = time.monotonic() - began
            await asyncio.sleep(max(LEAST_SECONDS - took, REST_FOR_EACH_SECOND * took))

    async def _look_again(self, key: Key, watch: _Watch) -> None:
        try:
            html = await self._render(*key)
        except FleetError as error:
            # What is refused now, by a database that is away for instance, is tried again.
            log.info("a page could not be shown again: %s", error.reason)
            return
        except Exception:
            log.exception("a page could not be shown again")
            return
        if html != watch.last:
            watch.last = html
            for onlooker in watch.onlookers:
                _put(onlooker, html)


def _put(onlooker: asyncio.Queue[str | None], html: str | None) -> None:
    """Let the newest wait for a slow browser, in place of what it has not taken."""
    if onlooker.full():
        onlooker.get_nowait()
    onlooker.put_nowait(html)


def _message(html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.replace("\r", "").split("\n"))
    return f"{lines}\n"
