"""Carry out geo actions: ask for them, judge them, block, and tell what became of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from pgfleet.agent.backoff import Backoff, jittered
from pgfleet.agent.client import DeviceClient
from pgfleet.agent.geo import store
from pgfleet.agent.geo.actions import Course, Seen, apps_of, merged, next_change, step
from pgfleet.agent.geo.blocking import Blocker, is_for_ever
from pgfleet.agent.geo.clock import ServerClock, Ticks, system_ticks
from pgfleet.agent.handlers.interface import HandlerFailed
from pgfleet.agent.http import IdentityRefused
from pgfleet.agent.location.fix import Fix
from pgfleet.agent.settings import AgentSettings
from pgfleet.agent.tasks import first_to_end, whole_in_thread, within
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)

# What lies further ahead is not told yet; it may still change.
TELL_AHEAD = timedelta(days=1)
_LONGEST_PAUSE = 60.0
_ACTIVE_PAUSE = 1.0


class GeoRunner:
    """Go through the actions of one device; `run` goes on until the end, network or not."""

    def __init__(
        self,
        client: DeviceClient,
        blocker: Blocker,
        settings: AgentSettings,
        ticks: Ticks | None = None,
    ) -> None:
        self._client = client
        self._blocker = blocker
        self._timing = settings.timing
        self._folder = settings.state_dir
        self._state = store.load(settings.state_dir, client.credentials.device_id)
        self._clock = ServerClock.resume(ticks or system_ticks(), self._state.clock)
        self._seen = Seen()
        self._asked = asyncio.Event()
        self._news = asyncio.Event()
        self._saved = ""
        # Unknown at the start: what an earlier run of the agent left blocked is set right first.
        self._blocked: frozenset[str] | None = None
        self._next_block: datetime | None = None

    def ring(self) -> None:
        """Ask the server soon."""
        self._asked.set()

    def see(self, fix: Fix) -> None:
        """Take a fix. Its age is the smaller one by either clock, for either may be wrong."""
        now = self._clock.now()
        ages = (now - fix.located_at, self._clock.ticks.wall() - fix.located_at)
        age = min(max(timedelta(0), one) for one in ages)
        self._seen = Seen(fix, now - age)
        self._news.set()

    async def run(self) -> None:
        """Ask and carry out side by side. Raises IdentityRefused."""
        self._asked.set()
        try:
            await first_to_end(self._keep_judging(), self._keep_asking())
        finally:
            store.save(self._folder, self._text())

    async def _keep_judging(self) -> None:
        while True:
            self._news.clear()
            now = self._clock.now()
            self._judge(now)
            await self._block(now)
            await self._save()
            try:
                await within(self._pause(now), self._news.wait())
            except TimeoutError:
                continue

    def _judge(self, now: datetime) -> None:
        for number, course in self._state.courses.items():
            after = step(course, self._seen, now)
            if after.status != course.status:
                logger.info("geo action %d (%s): %s", number, course.action.name, after.status)
                self._asked.set()
            elif after.must_tell and not course.must_tell:
                self._asked.set()
            self._state.courses[number] = after

    async def _block(self, now: datetime) -> None:
        """Bring what is blocked to what is to be blocked."""
        wanted = apps_of(self._state.courses)
        is_due = self._next_block is None or now >= self._next_block
        if wanted == self._blocked and not (wanted and is_due):
            return
        try:
            if wanted:
                await self._blocker.apply_block(wanted)
            else:
                await self._blocker.clear_block()
        except HandlerFailed as error:
            self._failed(error, now)
            return
        if wanted != self._blocked:
            logger.info("blocked now: %s", ", ".join(sorted(wanted)) or "nothing")
        self._blocked = wanted
        self._next_block = now + timedelta(seconds=self._blocker.again_seconds)

    def _failed(self, error: HandlerFailed, now: datetime) -> None:
        self._next_block = now + timedelta(seconds=_LONGEST_PAUSE)
        logger.warning("apps cannot be blocked: %s", error.message)
        if is_for_ever(error):
            self._change(
                lambda one: (
                    replace(one, status="failed", is_met=False, reason=error.message)
                    if one.status == "running" and one.is_met
                    else one
                )
            )
            self._asked.set()

    def _pause(self, now: datetime) -> float:
        if any(one.status == "running" for one in self._state.courses.values()):
            return min(_ACTIVE_PAUSE, self._blocker.again_seconds)
        ahead = next_change(self._state.courses, now)
        if ahead is None:
            return _LONGEST_PAUSE
        return min(_LONGEST_PAUSE, max(0.0, (ahead - now).total_seconds()))

    async def _keep_asking(self) -> None:
        """Ask at a ring and now and then, and tell what has changed; again while nobody answers."""
        backoff = Backoff(self._timing.retry, self._timing.retry_limit)
        last: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            every = self._timing.geo if self._state.courses else self._timing.geo_idle
            left = 0.0 if last is None else last + jittered(every) - loop.time()
            try:
                await within(max(0.0, left), self._asked.wait())
            except TimeoutError:
                pass
            self._asked.clear()
            try:
                await self._ask()
                await self._tell()
            except IdentityRefused:
                raise
            except FleetError as error:
                delay = backoff.next_delay()
                logger.warning("geo actions: %s; trying again in %.1f s", error.message, delay)
                await asyncio.sleep(delay)
                self._asked.set()
                continue
            backoff.reset()
            last = loop.time()

    async def _ask(self) -> None:
        now, rows = await self._client.geo_actions_due()
        moved = self._clock.heard(now)
        if moved is not None:
            way = "ahead" if moved > 0 else "behind"
            reason = f"clock_moved: {abs(moved):.0f} s {way} until the server was heard"
            logger.warning("%s", reason)
            self._change(lambda one: replace(one, reason=reason) if one.must_tell else one)
        self._state.courses = merged(self._state.courses, rows)
        self._news.set()

    async def _tell(self) -> None:
        for number, course in list(self._state.courses.items()):
            if not self._is_to_be_told(course):
                continue
            answer = await self._client.report_geo_action(
                number, course.status, course.met_at, course.reason
            )
            if not answer.accepted:
                logger.info("geo action %d is dropped: %s", number, answer.reason)
            if not answer.accepted or course.is_final:
                # Unless it has gone on meanwhile, in which case the server is asked again.
                if self._state.courses.get(number) == course:
                    del self._state.courses[number]
            elif (now := self._state.courses.get(number)) is not None:
                told = (course.status, course.met_at)
                self._state.courses[number] = replace(now, told=told)
        self._news.set()

    def _is_to_be_told(self, course: Course) -> bool:
        is_near = course.action.starts_at - self._clock.now() <= TELL_AHEAD
        return course.must_tell and (is_near or course.status != "scheduled")

    def _change(self, change: Callable[[Course], Course]) -> None:
        self._state.courses = {
            number: change(course) for number, course in self._state.courses.items()
        }

    def _text(self) -> str:
        self._state.clock = self._clock.saved()
        return self._state.to_text()

    async def _save(self) -> None:
        """Write what has changed; the clock alone is worth it once a minute at most."""
        courses = replace(self._state, clock=None).to_text()
        if courses != self._saved or not self._state.clock or self._is_clock_old():
            self._saved = courses
            await whole_in_thread(store.save, self._folder, self._text())

    def _is_clock_old(self) -> bool:
        at = datetime.fromisoformat((self._state.clock or {})["at"])
        return (self._clock.now() - at).total_seconds() >= _LONGEST_PAUSE
