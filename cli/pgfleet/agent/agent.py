"""The life of one device's agent, from its start to a graceful end."""

from __future__ import annotations

import asyncio
import logging

import httpx

from pgfleet import __version__
from pgfleet.agent import credentials, state
from pgfleet.agent.backoff import Backoff, jittered, stretched
from pgfleet.agent.client import DeviceClient
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.enroll import enroll, fetch_token
from pgfleet.agent.events import EventFile
from pgfleet.agent.handlers.registry import HandlerRegistry, Handlers
from pgfleet.agent.http import IdentityRefused
from pgfleet.agent.journal import Journal
from pgfleet.agent.location.source import LocationSource
from pgfleet.agent.log import LineContext, line_context
from pgfleet.agent.realtime import Doorbell
from pgfleet.agent.reporter import LocationReporter
from pgfleet.agent.settings import DEFAULT_POLL_SECONDS, AgentSettings
from pgfleet.agent.tasks import end, first_to_end
from pgfleet.agent.worker import Worker
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
    ) -> None:
        self._settings = settings
        self._http = http
        self._handlers = handlers or HandlerRegistry(settings)
        self._events = events
        self._location = location
        self._line = LineContext(settings.hostname)
        self._stop = asyncio.Event()
        self._server_poll: float | None = None

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
        reporters: list[LocationReporter] = []
        if self._location is not None:
            reporters.append(LocationReporter(client, self._location, self._settings))
        worker = Worker(client, journal, self._handlers, self._settings, self._events)
        doorbell = Doorbell(client, self._settings, worker.ring, self._line)
        worker.ring("start")
        working = asyncio.create_task(worker.run())
        try:
            await first_to_end(
                self._stop.wait(),
                asyncio.wait({working}),
                doorbell.run(),
                self._poll(worker, doorbell),
                self._check_in(client, worker),
                *(reporter.run() for reporter in reporters),
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
            remaining = last + self._poll_seconds(doorbell.healthy, quiet) * factor - loop.time()
            try:
                # Losing the doorbell makes the wait short again, and may end it at once.
                await asyncio.wait_for(doorbell.changed.wait(), max(0.0, remaining))
                continue
            except TimeoutError:
                worker.ring("poll")
                worker.report_open()
            quiet = quiet + 1 if doorbell.healthy else 0
            last, factor = loop.time(), jittered(1.0, 0.2)

    def _poll_seconds(self, healthy: bool, quiet: int) -> float:
        timing = self._settings.timing
        base = timing.poll or self._server_poll or DEFAULT_POLL_SECONDS
        return stretched(base, timing.poll_limit, quiet) if healthy else base

    async def _check_in(self, client: DeviceClient, worker: Worker) -> None:
        """Tell the server about this device at the start and every hour."""
        timing = self._settings.timing
        backoff = Backoff(timing.retry, timing.retry_limit)
        while True:
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
            await asyncio.sleep(jittered(timing.checkin))
