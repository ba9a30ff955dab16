"""One command in this process's hands, from its lease to the server's last word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgfleet.agent.backoff import Backoff
from pgfleet.agent.client import Answer, Command, DeviceClient, Ended
from pgfleet.agent.events import EventFile
from pgfleet.agent.execution import bounded_progress, execute
from pgfleet.agent.handlers.interface import HandlerContext, Reason
from pgfleet.agent.handlers.registry import Handlers
from pgfleet.agent.http import IdentityRefused, is_transient
from pgfleet.agent.journal import Entry, Journal, Outcome
from pgfleet.agent.reports import Reports
from pgfleet.agent.settings import AgentSettings
from pgfleet.agent.storage import DeployServer
from pgfleet.agent.tasks import end, whole_in_thread, within
from pgfleet.agent.tracing import span
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)

# Nothing that we could do or say would change these.
_FINAL = frozenset({"already_final", "not_found", "cancelled", "expired"})

INTERRUPTED = Outcome(
    "failed",
    None,
    "the agent ended while this was running, and it is not safe to run again",
    str(Reason.INTERRUPTED),
)


@dataclass(frozen=True, slots=True)
class Crew:
    """Hold what every job of one device works with."""

    client: DeviceClient
    reports: Reports
    journal: Journal
    handlers: Handlers
    settings: AgentSettings
    events: EventFile | None
    ring: Callable[[str], None]
    ring_later: Callable[[float, str], None]
    give_up: Callable[[IdentityRefused], None]
    is_stopping: Callable[[], bool]


class Job:
    """Carry one command; a later lease of the same command joins it by `claimed_again`."""

    def __init__(self, command_id: int, attempt: int, crew: Crew, made_at: str = "") -> None:
        self.command_id = command_id
        self.attempt = attempt
        self.made_at = made_at
        self._crew = crew
        self._renewed = asyncio.Event()
        self._gone = False
        self._again: Command | None = None
        self._progress: dict[str, Any] | None = None
        self._progressed = asyncio.Event()

    def claimed_again(self, command: Command) -> None:
        """Go on under a new lease: the old one ran out while the work goes on."""
        logger.info("command %s goes on as attempt %s", self.command_id, command.attempt)
        self.attempt = command.attempt
        self._again = command
        self._renewed.set()

    async def work(self, command: Command) -> None:
        """Run a command that was just claimed, unless the journal knows how it ended."""
        entry = self._crew.journal.find(self.command_id, command.made_at)
        outcome = _known_outcome(entry, command)
        if outcome is None:
            if self._crew.is_stopping():
                await self._release()
                return
            outcome = await self._run(command)
        elif entry is not None and not entry.finished:
            await self._write_finished(outcome)
        if outcome is not None:
            await self.report(outcome)

    async def report(self, outcome: Outcome) -> None:
        """Tell the server how it ended, until it answers; then settle the journal."""
        # A lease that was renewed while the handler ran is the one that this outcome is for.
        self._again = None
        backoff = self._backoff()
        while True:
            if self._again is not None and _may_be_retried(outcome):
                # This failure counted already, or there would be no new lease: it is a retry.
                command, self._again = self._again, None
                await self.work(command)
                return
            attempt = self.attempt
            self._renewed.clear()
            try:
                answer = await self._crew.reports.finish(Ended(self.command_id, attempt, outcome))
            except IdentityRefused as error:
                self._crew.give_up(error)
                return
            except FleetError as error:
                if not is_transient(error):
                    if outcome.result is None:
                        logger.error("command %s: %s", self.command_id, error.message)
                        return
                    outcome = _without_result(outcome, error)
                    continue
                await self._pause(backoff, error)
                continue
            if answer.accepted or answer.reason in _FINAL:
                self._settle(attempt, outcome, answer)
                return
            if self.attempt == attempt:
                # Somebody leased it anew and that can only be us, in a claim whose answer
                # was lost: the journal keeps the result until it is handed out again.
                logger.info("command %s: %s; kept for later", self.command_id, answer.reason)
                self._crew.ring("stale report")
                return

    async def report_interrupted(self) -> None:
        """End a command that an earlier process began and may not be run again."""
        await self._write_finished(INTERRUPTED)
        await self.report(INTERRUPTED)

    async def _run(self, command: Command) -> Outcome | None:
        """Run the handler under its lease; None when the command went away meanwhile."""
        journal = self._crew.journal
        try:
            await asyncio.to_thread(
                journal.started,
                self.command_id,
                self.attempt,
                command.command_type,
                rerun_safe=command.rerun_safe,
                made_at=command.made_at,
            )
        except OSError as error:
            # Without the journal it would not be known later that it had run.
            logger.error("the journal cannot be written: %s", error)
            return Outcome("failed", None, f"the device's journal cannot be written: {error}")
        logger.info(
            "command %s %s: attempt %s", self.command_id, command.command_type, self.attempt
        )
        handler = asyncio.create_task(self._execute(command))
        keeper = asyncio.create_task(self._keep_lease(command.lease_seconds))
        outcome: Outcome | None = None
        try:
            await asyncio.wait({handler, keeper}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also when this job is ended from outside: what ran to its end is written down.
            ended_alone = handler.done()
            await end(keeper)
            await end(handler)
            if not handler.cancelled():
                # A handler that breaks while it is being stopped did not fail: it was stopped.
                if ended_alone or handler.result().status == "completed":
                    outcome = handler.result()
                    await self._write_finished(outcome)
        if outcome is None and self._gone:
            journal.settled(self.command_id, self.attempt)
        return outcome

    async def _execute(self, command: Command) -> Outcome:
        crew = self._crew
        context = HandlerContext(
            command_id=command.command_id,
            command_type=command.command_type,
            attempt=command.attempt,
            device_id=crew.client.credentials.device_id,
            hostname=crew.client.credentials.hostname,
            state_dir=crew.settings.state_dir,
            timeout_seconds=command.timeout_seconds,
            output_limit=crew.settings.output_limit,
            report=self._report_progress,
            environment_allowed=crew.settings.environment_allowed,
            deploy=crew.settings.deploy,
            server=DeployServer(crew.client),
        )
        with span(
            f"handle {command.command_type}",
            command.trace_id,
            command=command.command_id,
            run=command.run_id,
            device=context.hostname,
        ):
            return await execute(crew.handlers, context, command, crew.events)

    async def _keep_lease(self, lease_seconds: float) -> None:
        """Extend the lease until the command is gone, and sooner where there is progress."""
        delay = lease_seconds / 3
        while True:
            await self._wait_for_progress(delay)
            attempt = self.attempt
            self._progressed.clear()
            try:
                answer = await self._crew.client.extend(self.command_id, attempt, self._progress)
            except IdentityRefused as error:
                self._crew.give_up(error)
                return
            except FleetError as error:
                logger.warning("command %s: no extension: %s", self.command_id, error.message)
                delay = lease_seconds / 10
                continue
            delay = lease_seconds / 3
            if answer.accepted or self.attempt != attempt:
                continue
            if answer.reason in _FINAL:
                logger.warning("command %s: %s; stopping it", self.command_id, answer.reason)
                self._gone = True
                return
            # The lease ran out, but the work goes on: the next claim brings a new number.
            logger.warning("command %s: lease lost (%s)", self.command_id, answer.reason)
            self._crew.ring("lease lost")

    def _report_progress(self, progress: dict[str, Any]) -> None:
        """Keep what a handler says of its progress; the latest is what is sent."""
        self._progress = bounded_progress(progress)
        self._progressed.set()

    async def _wait_for_progress(self, seconds: float) -> None:
        """Wait until the lease is to be extended, or earlier for what there is to tell."""
        pace = min(self._crew.settings.timing.progress, seconds)
        await asyncio.sleep(pace)
        with suppress(TimeoutError):
            await within(seconds - pace, self._progressed.wait())

    async def _release(self) -> None:
        try:
            await self._crew.client.release(self.command_id, self.attempt)
            logger.info("command %s given back", self.command_id)
        except FleetError as error:
            logger.warning("command %s not given back: %s", self.command_id, error.message)

    async def _write_finished(self, outcome: Outcome) -> None:
        try:
            await whole_in_thread(
                self._crew.journal.finished, self.command_id, self.attempt, outcome
            )
        except OSError as error:
            # Reporting it is now the only way to keep it.
            logger.error("the journal cannot be written: %s", error)

    def _settle(self, attempt: int, outcome: Outcome, answer: Answer) -> None:
        try:
            self._crew.journal.settled(self.command_id, attempt, final=answer.status != "pending")
        except OSError as error:
            logger.error("the journal cannot be written: %s", error)
        if not answer.accepted:
            logger.warning("command %s: result refused: %s", self.command_id, answer.reason)
        elif outcome.status == "completed":
            logger.info("command %s completed", self.command_id)
        else:
            logger.warning(
                "command %s failed (%s): %s", self.command_id, outcome.reason, outcome.error
            )
        if answer.retry_at is not None:
            delay = (answer.retry_at - datetime.now(UTC)).total_seconds()
            self._crew.ring_later(max(0.0, delay), "retry is due")

    async def _pause(self, backoff: Backoff, error: FleetError) -> None:
        delay = backoff.next_delay()
        logger.warning(
            "command %s: no answer to its result: %s; trying again in %.1f s",
            self.command_id,
            error.message,
            delay,
        )
        try:
            await within(delay, self._renewed.wait())
        except TimeoutError:
            return

    def _backoff(self) -> Backoff:
        timing = self._crew.settings.timing
        return Backoff(timing.retry, timing.retry_limit)


def _known_outcome(entry: Entry | None, command: Command) -> Outcome | None:
    """Say how a claimed command ended already; None when it has to be run."""
    if entry is None:
        return None
    if entry.outcome is None:
        return None if command.rerun_safe else INTERRUPTED
    if entry.settled:
        logger.warning("command %s was done: the server has forgotten it", command.command_id)
        return entry.outcome
    return None if _may_be_retried(entry.outcome) else entry.outcome


def _may_be_retried(outcome: Outcome) -> bool:
    """Tell whether the server gives a command that failed so another attempt."""
    retried = (None, Reason.ERROR, Reason.TIMEOUT)
    return outcome.status == "failed" and outcome.reason in retried


def _without_result(outcome: Outcome, error: FleetError) -> Outcome:
    """Replace a result that the server cannot store, so that the command still ends."""
    logger.error("the server refuses a result: %s", error.message)
    return Outcome(
        outcome.status, None, outcome.error or f"result refused: {error.message}", outcome.reason
    )
