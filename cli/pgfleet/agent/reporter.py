"""Tell the server where this device is, and lose nothing of it while there is no server."""

from __future__ import annotations

import asyncio
import bisect
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pgfleet.agent.backoff import Backoff
from pgfleet.agent.client import DeviceClient, LocationAnswer
from pgfleet.agent.http import IdentityRefused
from pgfleet.agent.location.fix import Fix, Told, after_report, next_look_seconds, why_to_report
from pgfleet.agent.location.source import LocationSource, NoFix
from pgfleet.agent.location.state import LocationFile, load
from pgfleet.agent.settings import AgentSettings
from pgfleet.agent.tasks import first_to_end, whole_in_thread
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)

# Eight hours of a walk, or some weeks of standing still. Beyond that the oldest go.
MOST_WAITING = 500
# Asking takes its time, and the server takes fixes that are up to five minutes ahead.
_FRESH = timedelta(minutes=10)

_CLOCK = "set this device's clock (timedatectl set-ntp true, or w32tm /resync)"


class LocationReporter:
    """Look where the device is now and then, and tell what is news; `run` goes on until the end."""

    def __init__(
        self,
        client: DeviceClient,
        source: LocationSource,
        settings: AgentSettings,
        on_fix: Callable[[Fix], None] | None = None,
    ) -> None:
        self._client = client
        self._on_fix = on_fix
        self._source = source
        self._timing = settings.timing
        self._file = LocationFile(settings.state_dir)
        self._state = load(settings.state_dir, client.credentials.device_id)
        self._told: Told | None = None
        self._is_silent = False
        self._is_unsaved = False
        self._queued = asyncio.Event()
        if self._state.waiting:
            logger.info("%d positions wait to be sent", len(self._state.waiting))
            self._queued.set()

    async def run(self) -> None:
        """Look and send side by side. Raises IdentityRefused."""
        try:
            await first_to_end(self._keep_looking(), self._keep_sending())
        finally:
            if self._is_unsaved:
                self._file.write(self._state.to_text())

    async def _keep_looking(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            fix = await self._new_fix()
            if fix is not None and (why := why_to_report(self._told, fix)) is not None:
                self._told = after_report(self._told, fix, why)
                self._queue(fix, why)
            pause = next_look_seconds(self._timing.location, self._told, fix)
            # Never sooner, as a follow-up that comes too early would count for nothing.
            pause *= random.uniform(1.0, 1.1)
            await asyncio.sleep(max(0.0, began + pause - loop.time()))

    async def _new_fix(self) -> Fix | None:
        """Ask the source; None when it knows nothing, or only what was told already."""
        try:
            fix = await self._source.look()
        except NoFix as error:
            logger.log(
                logging.DEBUG if self._is_silent else logging.WARNING,
                "no fix now: %s",
                error.message,
            )
            self._is_silent = True
            return None
        if self._on_fix is not None:
            self._on_fix(fix)
        if self._is_silent:
            logger.info("there are fixes again")
            self._is_silent = False
        if self._told is not None and fix.located_at <= self._told.fix.located_at:
            logger.debug("the fix is not newer than what was told")
            return None
        return fix

    def _queue(self, fix: Fix, why: str) -> None:
        waiting = self._state.waiting
        # Almost always at the end, but a clock that was set back must not mix up the order.
        bisect.insort(waiting, fix, key=lambda one: one.located_at)
        if len(waiting) > MOST_WAITING:
            logger.warning("more than %d positions wait; the oldest is dropped", MOST_WAITING)
            del waiting[0]
        self._is_unsaved = True
        logger.debug("a position waits to be sent: %s", why)
        self._queued.set()

    async def _keep_sending(self) -> None:
        """Send what waits in order, and again and again while no server answers."""
        backoff = Backoff(self._timing.retry, self._timing.retry_limit)
        while True:
            await self._queued.wait()
            if not self._state.waiting:
                self._queued.clear()
                continue
            fix = self._state.waiting[0]
            try:
                answer = await self._client.report_location(fix)
            except IdentityRefused:
                raise
            except FleetError as error:
                if error.reason == "position_invalid":
                    self._drop(fix, error)
                    continue
                delay = backoff.next_delay()
                logger.warning("location: %s; trying again in %.1f s", error.message, delay)
                await self._save()
                await asyncio.sleep(delay)
                continue
            backoff.reset()
            self._note(fix, answer)
            await self._save()

    def _drop(self, fix: Fix, error: FleetError) -> None:
        """Give up a fix that the server will never take, so that the others get through."""
        advice = error.hint or ""
        if "located_at" in error.message:
            advice = f"{_CLOCK}, or what gives its fixes their times"
        logger.warning("a position was refused and dropped: %s; %s", error.message, advice)
        self._remove(fix)
        if self._told is not None and self._told.fix == fix:
            # The next fix, perhaps with an earlier time, is news again.
            self._told = None

    def _note(self, fix: Fix, answer: LocationAnswer) -> None:
        self._remove(fix)
        now = datetime.now(UTC)
        # A duplicate was accepted before; its answer got lost.
        if answer.accepted or answer.reason == "duplicate":
            self._state.position, self._state.accepted_at = fix, now
        elif answer.reason == "stale" and now - fix.located_at < _FRESH:
            logger.warning("the server takes a new position for an old one; %s", _CLOCK)
        else:
            logger.info("a position changed nothing: %s", answer.reason)
        if [one.location_id for one in answer.places] != [
            one.location_id for one in self._state.places
        ]:
            names = ", ".join(place.name for place in answer.places)
            logger.info("this device is now in %s", names or "no place")
        self._state.places = answer.places
        self._is_unsaved = True

    def _remove(self, fix: Fix) -> None:
        # It may have been dropped meanwhile, for there were too many.
        if fix in self._state.waiting:
            self._state.waiting.remove(fix)
        self._is_unsaved = True

    async def _save(self) -> None:
        if self._is_unsaved:
            self._is_unsaved = False
            await whole_in_thread(self._file.write, self._state.to_text())
