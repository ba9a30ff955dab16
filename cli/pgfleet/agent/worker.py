"""Claim commands at every ring and see each of them through, once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any

from pgfleet.agent import log
from pgfleet.agent.backoff import Backoff
from pgfleet.agent.client import Command, DeviceClient
from pgfleet.agent.events import EventFile
from pgfleet.agent.handlers.registry import Handlers
from pgfleet.agent.http import IdentityRefused
from pgfleet.agent.job import Crew, Job
from pgfleet.agent.journal import Entry, Journal
from pgfleet.agent.reports import Claims, Reports
from pgfleet.agent.settings import AgentSettings
from pgfleet.agent.tasks import end, within
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 100
# How long to wait at most while the fleet is being moved to another platform.
_MOVING_SECONDS = 5.0


class Worker:
    """Do the work of one device: `ring` makes it look, `run` goes on until `drain`."""

    def __init__(
        self,
        client: DeviceClient,
        journal: Journal,
        handlers: Handlers,
        settings: AgentSettings,
        events: EventFile | None = None,
    ) -> None:
        self._client = client
        self._journal = journal
        self._settings = settings
        self._jobs: dict[int, tuple[Job, asyncio.Task[None]]] = {}
        self._rung = asyncio.Event()
        self._slot_free = asyncio.Event()
        self._stopping = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._refusal: IdentityRefused | None = None
        self._is_more = False  # whether the last claim brought as many as were asked for
        self._reserved = 0
        self._reports = Reports(client, journal.id, Claims(self._room, self._taken))
        self._crew = Crew(
            client=client,
            reports=self._reports,
            journal=journal,
            handlers=handlers,
            settings=settings,
            events=events,
            ring=self.ring,
            ring_later=self._ring_later,
            give_up=self._give_up,
            is_stopping=self._stopping.is_set,
        )

    def ring(self, why: str) -> None:
        """Look for work as soon as there is a free slot; many rings are one look."""
        logger.debug("rung: %s", why)
        self._rung.set()

    async def run(self) -> None:
        """Settle what an earlier process left, then claim at every ring.

        Returns after `drain`. Raises IdentityRefused when the server no longer knows this
        device.
        """
        self._recover()
        self._looking = asyncio.create_task(self._look())
        try:
            await asyncio.wait({self._looking})
        finally:
            await end(self._looking)
        if self._refusal is not None:
            raise self._refusal
        if not self._looking.cancelled():
            self._looking.result()

    async def drain(self, seconds: float) -> None:
        """Stop claiming, give back what was not started, and wait a while for the rest.

        What still runs then is ended; the journal knows of it.
        """
        self._stop_looking()
        for timer in self._timers:
            timer.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if self._looking is not None:
            # A claim that is under way is let through: what it brings is given back.
            await asyncio.wait({self._looking}, timeout=seconds)
            await end(self._looking)
        if self._jobs:
            logger.info("waiting up to %.0f s for %d commands", seconds, len(self._jobs))
        # A report that is under way may bring some along, which are given back.
        while tasks := [task for _, task in self._jobs.values()]:
            _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
            if late:
                logger.warning("%d commands did not end in time; the journal keeps them", len(late))
                for task in late:
                    task.cancel()
                await asyncio.wait(late)
        await self._reports.close()

    def report_open(self) -> None:
        """Report again what was refused as stale, to learn whether it is final by now."""
        for entry in self._journal.open_entries():
            if entry.outcome is not None and entry.command_id not in self._jobs:
                job = self._job_of(entry)
                self._start(job, job.report(entry.outcome))

    def _recover(self) -> None:
        """Take up the journal of an earlier process.

        What is safe to repeat needs nothing: it runs again when its lease has ended and it
        is claimed again.
        """
        self.report_open()
        for entry in self._journal.open_entries():
            if entry.outcome is not None:
                logger.info("command %s was done but not reported", entry.command_id)
            elif entry.rerun_safe:
                logger.info("command %s was interrupted and may run again", entry.command_id)
            else:
                logger.warning("command %s was interrupted", entry.command_id)
                job = self._job_of(entry)
                self._start(job, job.report_interrupted())

    async def _look(self) -> None:
        """Claim at every ring, as many commands as there are free slots."""
        backoff = Backoff(self._settings.timing.retry, self._settings.timing.retry_limit)
        while True:
            await self._rung.wait()
            free = await self._free_slots()
            if self._stopping.is_set():
                return
            self._rung.clear()
            limit = min(free, _MOST_AT_ONCE)
            self._reserved += limit
            try:
                commands = await self._client.claim(limit, self._journal.id)
            except IdentityRefused:
                raise
            except FleetError as error:
                delay = backoff.next_delay()
                if error.reason == "owner_moving":
                    # It takes as long as a copy does; whoever sleeps longer comes late over there.
                    delay = min(delay, _MOVING_SECONDS)
                logger.warning("claim: %s; trying again in %.1f s", error.message, delay)
                await self._wait_or_stop(delay)
                self._rung.set()
                continue
            finally:
                self._reserved -= limit
            backoff.reset()
            for command in commands:
                self._take(command)
            self._is_more = len(commands) >= limit
            if self._is_more:
                self._rung.set()

    def _room(self, ending: int) -> int:
        """Say how many commands a report of so many may bring along: none where no more wait."""
        if not self._is_more or self._stopping.is_set():
            return 0
        free = self._settings.concurrency - len(self._jobs) - self._reserved
        room = max(0, min(free + ending, _MOST_AT_ONCE))
        self._reserved += room
        return room

    def _taken(self, commands: list[Command], room: int) -> None:
        """Begin what a report brought along."""
        self._reserved -= room
        for command in commands:
            self._take(command)
        self._is_more = len(commands) >= room
        if self._is_more:
            self._rung.set()
        self._slot_free.set()

    async def _free_slots(self) -> int:
        """Wait until a command could be started; give how many, 0 when stopping."""
        while not self._stopping.is_set():
            free = self._settings.concurrency - len(self._jobs) - self._reserved
            if free > 0:
                return free
            self._slot_free.clear()
            await self._slot_free.wait()
        return 0

    def _take(self, command: Command) -> None:
        job = Job(command.command_id, command.attempt, self._crew, command.made_at)
        present = self._jobs.get(command.command_id)
        if present is None:
            self._start(job, job.work(command), **_subject(command))
        elif {present[0].made_at, command.made_at} - {""} <= {command.made_at}:
            present[0].claimed_again(command)
        else:
            # The server was restored, and has given the number to another command.
            logger.warning("command %s is another one now", command.command_id)
            work = _one_after_the_other(present[1], job.work(command))
            self._start(job, work, **_subject(command))

    def _job_of(self, entry: Entry) -> Job:
        return Job(entry.command_id, entry.attempt, self._crew, entry.made_at)

    def _start(self, job: Job, work: Coroutine[Any, Any, None], **about: Any) -> None:
        context = copy_context()
        context.run(log.begin_work, command=job.command_id, **about)
        task = asyncio.create_task(work, context=context)
        self._jobs[job.command_id] = (job, task)

        def ended(task: asyncio.Task[None]) -> None:
            present = self._jobs.get(job.command_id)
            if present is not None and present[0] is job:
                del self._jobs[job.command_id]
            self._slot_free.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("command %s: the agent failed", job.command_id, exc_info=error)

        task.add_done_callback(ended)

    def _ring_later(self, seconds: float, why: str) -> None:
        if self._stopping.is_set():
            return

        def due() -> None:
            self._timers.discard(handle)
            self.ring(why)

        handle = asyncio.get_running_loop().call_later(seconds, due)
        self._timers.add(handle)

    async def _wait_or_stop(self, seconds: float) -> None:
        try:
            await within(seconds, self._stopping.wait())
        except TimeoutError:
            return

    def _give_up(self, error: IdentityRefused) -> None:
        self._refusal = error
        self._stop_looking()

    def _stop_looking(self) -> None:
        self._stopping.set()
        self._rung.set()
        self._slot_free.set()


async def _one_after_the_other(first: asyncio.Task[None], then: Coroutine[Any, Any, None]) -> None:
    await end(first)
    await then


def _subject(command: Command) -> dict[str, Any]:
    return {"run": command.run_id, "trace": command.trace_id}
