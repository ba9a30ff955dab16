"""The life of one device's agent, from its start to a graceful end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from pgfleet import __version__
from pgfleet.agent import credentials, state
from pgfleet.agent.backoff import Backoff, jittered, stretched
from pgfleet.agent.client import DeviceClient
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.enroll import enroll, fetch_token
from pgfleet.agent.events import EventFile
from pgfleet.agent.geo.blocking import choose_blocker
from pgfleet.agent.geo.runner import GeoRunner
from pgfleet.agent.handlers.registry import HandlerRegistry, Handlers
from pgfleet.agent.http import IdentityRefused
from pgfleet.agent.journal import Journal
from pgfleet.agent.location.source import LocationSource
from pgfleet.agent.log import LineContext, line_context
from pgfleet.agent.realtime import Doorbell
from pgfleet.agent.reporter import LocationReporter
from pgfleet.agent.settings import DEFAULT_POLL_SECONDS, AgentSettings
from pgfleet.agent.tasks import end, first_to_end, within
from pgfleet.agent.worker import Worker
from pgfleet.agent.zone import zone_name
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)


class Agent:
    """Run one device: `run` goes on until `stop`, or until the device is refused."""

    def __init__(
        self,
        settings: AgentSettings,
        http: httpx.AsyncClient,
        *,
        handlers: Handlers | None = None,
        events: EventFile | None = None,
        location: LocationSource | None = None,
        blocks_apps: bool = False,
    ) -> None:
        self._settings = settings
        self._http = http
        self._handlers = handlers or HandlerRegistry(settings)
        self._events = events
        self._location = location
        self._blocks_apps = blocks_apps
        self._line = LineContext(settings.hostname)
        self._stop = asyncio.Event()
        self._server_poll: float | None = None
        # When a check-in last told that nothing waits: that is as good as a look.
        self._told_at = 0.0

    def stop(self) -> None:
        """Ask for a graceful end; doing so twice is harmless."""
        self._stop.set()

    async def run(self) -> None:
        """Enrol where needed, then work. Raises FleetError when that has no future."""
        with line_context(self._line):
            folder = self._settings.state_dir
            state.prepare(folder)
            lock = state.FolderLock(folder)
            lock.acquire()
            try:
                journal = Journal(folder / state.JOURNAL)
                try:
                    await self._run(journal)
                finally:
                    journal.close()
            finally:
                lock.release()

    async def _run(self, journal: Journal) -> None:
        logger.info("pgfleet agent %s starts on %s", __version__, self._settings.state_dir)
        identifying = asyncio.create_task(self._identify())
        await first_to_end(self._stop.wait(), asyncio.wait({identifying}))
        if not identifying.done():
            await end(identifying)
            return
        found = identifying.result()
        self._line.device = found.hostname
        client = DeviceClient(found, self._settings, self._http)
        worker = Worker(client, journal, self._handlers, self._settings, self._events)
        geo = self._geo(client)
        doorbell = Doorbell(client, self._settings, _ringer(worker, geo), self._line)
        beside: list[Coroutine[Any, Any, None]] = [] if geo is None else [geo.run()]
        if self._location is not None:
            see = None if geo is None else geo.see
            beside.append(LocationReporter(client, self._location, self._settings, see).run())
        worker.ring("start")
        working = asyncio.create_task(worker.run())
        try:
            await first_to_end(
                self._stop.wait(),
                asyncio.wait({working}),
                doorbell.run(),
                self._poll(worker, doorbell),
                self._check_in(client, worker),
                *beside,
            )
            if not working.done():
                logger.info("stopping")
                await worker.drain(self._settings.timing.stop)
            await working
        except IdentityRefused as error:
            logger.error("this device was retired or re-keyed: %s", error.message)
            raise
        finally:
            # Without an identity nothing could be reported, so nothing is waited for.
            await worker.drain(0)
            await end(working)
            logger.info("stopped")

    def _geo(self, client: DeviceClient) -> GeoRunner | None:
        if not self._blocks_apps:
            return None
        device_id = client.credentials.device_id
        blocker = choose_blocker(self._handlers, self._settings, device_id)
        return GeoRunner(client, blocker, self._settings)

    async def _identify(self) -> Credentials:
        """Give the credentials of the state folder, or enrol with the code."""
        found = credentials.load(self._settings.state_dir)
        if found is None:
            return await enroll(self._settings, self._http)
        if self._settings.code is not None:
            try:
                await fetch_token(found, self._settings, self._http)
            except IdentityRefused as error:
                logger.warning("%s; enrolling again with the code", error.message)
                return await enroll(self._settings, self._http)
            except FleetError as error:
                # No answer is no reason to give an identity up.
                logger.debug("the credentials could not be tried: %s", error.message)
        return found

    async def _poll(self, worker: Worker, doorbell: Doorbell) -> None:
        """Ring now and then whatever happens; less and less while the doorbell is proved."""
        loop = asyncio.get_running_loop()
        last, quiet, factor = loop.time(), 0, jittered(1.0, 0.2)
        while True:
            doorbell.changed.clear()
            last = max(last, self._told_at)
            remaining = last + self._poll_seconds(doorbell.healthy, quiet) * factor - loop.time()
            try:
                # Losing the doorbell makes the wait short again, and may end it at once.
                await within(max(0.0, remaining), doorbell.changed.wait())
                continue
            except TimeoutError:
                if self._told_at <= last:
                    worker.ring("poll")
                worker.report_open()
            quiet = quiet + 4 if doorbell.healthy else 0
            last = self._told_at if self._told_at > last else loop.time()
            factor = jittered(1.0, 0.2)

    def _poll_seconds(self, healthy: bool, quiet: int) -> float:
        timing = self._settings.timing
        base = timing.poll or self._server_poll or DEFAULT_POLL_SECONDS
        return stretched(base, timing.poll_limit, quiet) if healthy else base

    async def _check_in(self, client: DeviceClient, worker: Worker) -> None:
        """Tell the server about this device at the start and every hour."""
        timing = self._settings.timing
        backoff = Backoff(timing.retry, timing.retry_limit)
        while True:
            zone = zone_name()
            try:
                answer = await client.checkin()
            except IdentityRefused:
                raise
            except FleetError as error:
                delay = backoff.next_delay()
                logger.warning("check-in: %s; trying again in %.1f s", error.message, delay)
                await asyncio.sleep(delay)
                continue
            backoff.reset()
            poll = answer.get("poll_seconds")
            if isinstance(poll, int | float) and poll > 0:
                self._server_poll = float(poll)
            if answer.get("pending"):
                worker.ring("pending at check-in")
            else:
                self._told_at = asyncio.get_running_loop().time()
            await self._until_check_in(zone)

    async def _until_check_in(self, zone: str | None) -> None:
        """Wait for the next check-in: at once where the device has come to another zone."""
        remaining = jittered(self._settings.timing.checkin)
        while remaining > 0 and zone_name() == zone:
            pause = min(remaining, self._settings.timing.zone)
            await asyncio.sleep(pause)
            remaining -= pause


def _ringer(worker: Worker, geo: GeoRunner | None) -> Callable[[str], None]:
    """Let a ring reach whom it may concern; one that speaks of a command only the worker."""

    def ring(why: str) -> None:
        worker.ring(why)
        if geo is not None and not why.startswith("doorbell for command"):
            geo.ring()

    return ring
