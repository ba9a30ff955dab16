"""The pull: devices, their state and their streams, each point stored before a cursor moves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, storable
from pgfleet_functions.dispatching import Claim, Ended, Piece
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.golioth.agreeing import Agreeing, TakenOver
from pgfleet_functions.golioth.client import Golioth, Record, StreamPage, moment
from pgfleet_functions.golioth.sightings import sighted
from pgfleet_functions.golioth.windows import Window, windows
from pgfleet_functions.integrations.calls import CallFailed, FailureKind
from pgfleet_functions.integrations.connections import Connections, Unanswered
from pgfleet_functions.telemetry import Point, Telemetry, UnfitData, canonical, digest_of

log = logging.getLogger(__name__)

# How long calls may begin; a pull that takes longer goes on with the next one.
PULL_SECONDS = 900.0
# What a device that was never read is read of.
FIRST_READ = timedelta(days=1)
MOST_ERRORS = 20
LONGEST_ID = 255
# More than these are not named one by one in a call: the stream of the project is read.
MOST_NAMED = 100
DEVICES_AT_ONCE = 4
FAR_BEHIND = timedelta(hours=1)

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_golioth_syncs(%s) as c"
_INVENTORY = "select fleet.worker_sync_inventory(%s, %s)"
_STATES = "select fleet.worker_store_states(%s, %s)"
_DEVICES = "select fleet.worker_sync_devices(%s)"
_GO_ON = "select fleet.worker_go_on_with_sync(%s, %s, %s)"
_MOVE = "select fleet.worker_move_cursors(%s, %s, %s, %s)"
_MOVE_BACKFILL = "select fleet.worker_move_backfill(%s, %s, %s)"
_JUDGE = "select fleet.worker_judge_points(%s)"
_END = "select fleet.worker_end_golioth_sync(%s, %s, %s)"


async def claim_pulls(
    pool: Pool, connections: Connections[Golioth], telemetry: Telemetry, shares: Mapping[str, Any]
) -> Claim:
    """Claim the integrations whose pull was asked for."""
    claims = await fetch_value(pool, _CLAIM, Jsonb(shares))
    pieces = [
        Piece(
            one["owner_id"],
            one["integration_id"],
            partial(_pull_and_tell, pool, connections, telemetry, one),
        )
        for one in claims
    ]
    return Claim(pieces, wait=0 if pieces else None)


async def _pull_and_tell(
    pool: Pool, connections: Connections[Golioth], telemetry: Telemetry, claim: Mapping[str, Any]
) -> Ended:
    """Pull one integration, and write down how that went."""
    report: dict[str, Any] = {"errors": [], "error": None}
    integration_id, is_slow = claim["integration_id"], False
    pull: Pull | None = None
    try:
        async with connections.claimed(claim, seconds=PULL_SECONDS) as golioth:
            pull = Pull(pool, golioth, telemetry, claim, report)
            await pull.run()
    except TakenOver:
        log.warning("the pull of integration %s was taken over", integration_id)
        return Ended(is_slow=True)
    except Unanswered as error:
        log.warning("the pull of integration %s: %s", integration_id, error.message)
        report["error"], is_slow = error.message, error.is_slow
    except FunctionError as error:
        log.warning("integration %s is left for later: %s", integration_id, error.message)
        report["error"] = error.message
    except Exception as error:
        # No other integration waits for one that cannot be read.
        log.exception("the pull of integration %s failed", integration_id)
        report["error"] = f"the function failed: {type(error).__name__}"
    try:
        if pull is not None:
            await pull.go_on()
        await fetch_value(pool, _END, integration_id, claim["started_at"], Jsonb(storable(report)))
        await telemetry.tend(int(claim["keep_days"]))
    except (FunctionError, TakenOver) as error:
        log.warning("the end of a pull of integration %s is lost: %s", integration_id, error)
    return Ended({"pulls": 1, "points": pull.stored if pull else 0}, is_slow)


class Pull:
    """One pull of one integration."""

    def __init__(
        self,
        pool: Pool,
        golioth: Golioth,
        telemetry: Telemetry,
        claim: Mapping[str, Any],
        report: dict[str, Any],
    ) -> None:
        self._pool = pool
        self._golioth = golioth
        self._telemetry = telemetry
        self._id: int = claim["integration_id"]
        self._claim = claim
        self._settings: Mapping[str, Any] = claim["settings"]
        self._report = report
        # What is not in the database yet of the figures of this pull.
        self._counts: Counter[str] = Counter()
        self._told_calls = 0
        self._numbers: dict[str, int] = {}
        self._read_to: dict[int, datetime | None] = {}
        self.stored = 0
        golioth.calls_left = claim["calls_left"]
        self._agreeing = Agreeing(pool, golioth, claim, self.go_on)

    async def run(self) -> None:
        """Read all that is to be read. Raises `CallFailed`, `FunctionError` or `TakenOver`."""
        reads = self._settings.get("reads") or []
        with_state = "state" in reads or self._agreeing.needs_state
        try:
            async for page, has_state in self._golioth.devices(with_state=with_state):
                if with_state and not has_state:
                    self._note(None, "the states of a page of devices cannot be read")
                await self._store_devices(page, with_state=has_state)
        except CallFailed as failure:
            await self._agreeing.log(failure.message)
            raise
        await self._agreeing.log()
        self._counts.update(self._agreeing.taken)
        for error in self._agreeing.errors:
            self._note(error["external_id"], error["error"])
        known = await fetch_value(self._pool, _DEVICES, self._id)
        self._numbers = {external: number for external, number, _ in known}
        self._read_to = {number: moment(read_to) for _, number, read_to in known}
        if "stream" not in reads or not known:
            return
        now = moment(self._claim["now"]) or datetime.now(UTC)
        if self._settings.get("streamScope") == "device":
            await self._read_each_stream(now)
        else:
            await self._read_the_stream(now)
        if (backfill := self._claim["backfill"]) is not None:
            self._report["backfill"] = True
            await self._read_history(backfill)

    async def go_on(self) -> None:
        """Add the figures up, and hold the lease for longer."""
        await self._tell(None)

    async def _store_devices(self, page: list[Record], *, with_state: bool) -> None:
        answer = await fetch_value(
            self._pool, _INVENTORY, self._id, Jsonb([sighted(one) for one in page])
        )
        self._counts["devices"] += len(page)
        for name in ("created", "updated", "left"):
            self._counts[name] += answer.get(name, 0)
        for error in answer.get("errors", ()):
            self._note(error["external_id"], error["error"])
        states, unread = self._states(page) if with_state else ([], set())
        if states:
            changed = await fetch_value(self._pool, _STATES, self._id, Jsonb(states))
            self._counts["states"] += changed
        await self.go_on()
        # What was not read is not taken for empty.
        agreed = [one for one in page if one.get("id") and str(one["id"]) not in unread]
        await self._agreeing.page(agreed, with_state=with_state)

    def _states(self, page: list[Record]) -> tuple[list[list[Any]], set[str]]:
        """Give the states of devices, [[external_id, state]], and whose are not fit."""
        states, unread = [], set()
        for one in page:
            name = str(one.get("id") or "")
            if name and one.get("data") is not None:
                try:
                    states.append([name, json.loads(canonical(one["data"]))])
                except UnfitData as error:
                    unread.add(name)
                    self._note(name, f"its state is left out: {error}")
        return states, unread

    async def _read_the_stream(self, now: datetime) -> None:
        """Read the stream of the project, or of the devices that the filter names."""
        named = list(self._numbers) if self._settings.get("deviceFilter") else []
        reads = partial(self._page, devices=named if len(named) <= MOST_NAMED else [])
        late = self._late()
        others = [at for number, at in self._read_to.items() if number not in late]
        start = self._start(others, now)
        if late:
            names = [name for name, number in self._numbers.items() if number in late]
            begin = self._start([self._read_to[number] for number in late], now)
            reads_late = partial(self._page, devices=names)
            async for window in windows(reads_late, self._points, begin, start):
                await self._store(window, late)
        async for window in windows(reads, self._points, start, now):
            await self._store(window, set(self._read_to))

    def _late(self) -> set[int]:
        """Give the devices that are far behind the others, as after they were left out for long.

        Because of a few the stream of all is not read again.
        """
        known = {number: at for number, at in self._read_to.items() if at is not None}
        newest = max(known.values(), default=None)
        late = {number for number, at in known.items() if newest and at < newest - FAR_BEHIND}
        return late if len(late) <= MOST_NAMED else set()

    async def _read_each_stream(self, now: datetime) -> None:
        """Read the stream of each device; one that fails keeps no other from being read."""
        gate = asyncio.Semaphore(DEVICES_AT_ONCE)
        failed: list[CallFailed] = []

        async def read(external_id: str, number: int) -> None:
            async with gate:
                if failed:
                    return
                reads = partial(self._page, device=external_id)
                try:
                    start = self._start([self._read_to[number]], now)
                    async for window in windows(reads, self._points, start, now):
                        await self._store(window, {number})
                except CallFailed as failure:
                    self._note(external_id, failure.message)
                    # With this key, or at this pace, no other call gets through either.
                    if failure.kind in (FailureKind.KEY, FailureKind.RATE):
                        failed.append(failure)

        try:
            async with asyncio.TaskGroup() as group:
                for external_id, number in self._numbers.items():
                    group.create_task(read(external_id, number))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from several
        if failed:
            raise failed[0]

    async def _read_history(self, backfill: Mapping[str, Any]) -> None:
        start, end = moment(backfill["read_to"]), moment(backfill["to"])
        assert start is not None and end is not None
        async for window in windows(self._page, self._points, start, end):
            await self._store(window, set(), backfill=backfill["id"])

    async def _page(self, start: datetime, end: datetime, page: int, **which: Any) -> StreamPage:
        found = await self._golioth.stream(start, end, page, **which)
        # The lease is short, so that a kill is noticed soon; many pages take longer.
        if page and page % 20 == 0:
            await self.go_on()
        return found

    def _start(self, cursors: Iterable[datetime | None], now: datetime) -> datetime:
        """Begin where the device that is furthest behind was read to, and a little before."""
        known = [one for one in cursors if one is not None]
        if not known:
            return now - FIRST_READ
        return min(known) - timedelta(seconds=int(self._settings["overlapSeconds"]))

    async def _store(self, window: Window, moved: set[int], backfill: int | None = None) -> None:
        """Store the points of a window, and move the cursors of these devices with them."""
        latest: dict[int, datetime | None] = dict.fromkeys(moved)
        if window.unread:
            self._note(None, f"{window.unread} points before {window.end} cannot be read")
        for point in window.points:
            if point.device_id in latest:
                before = latest[point.device_id]
                latest[point.device_id] = max(before or point.at, point.at)

        async def then(connection: AsyncConnection[Any], result: dict[str, Any]) -> None:
            self._counts["points"] += result["given"]
            for name in ("stored", "known", "outside", "replaced"):
                self._counts[name] += result[name]
            if moved:
                listed = [[one, at and at.isoformat()] for one, at in latest.items()]
                begun = self._claim["started_at"]
                await connection.execute(_MOVE, (self._id, begun, Jsonb(listed), window.end))
            if backfill is not None:
                await connection.execute(_MOVE_BACKFILL, (backfill, window.end, result["stored"]))
            if result["latest"]:
                await connection.execute(_JUDGE, (Jsonb(result["latest"]),))
            await self._tell(connection)

        result = await self._telemetry.store(
            window.points,
            owner_id=self._claim["owner_id"],
            source="pull" if backfill is None else "import",
            keep_days=int(self._claim["keep_days"]),
            then=then,
        )
        self.stored += result["stored"]

    def _points(self, records: Iterable[Record]) -> list[Point]:
        return [point for one in records if (point := self._point(one)) is not None]

    def _point(self, record: Record) -> Point | None:
        """Read a point; one that is not fit is told, and keeps no other from being stored."""
        external_id = str(record.get("deviceId"))
        number = self._numbers.get(external_id)
        if number is None:
            # Of a device that the filter leaves out.
            self._counts["others"] += 1
            return None
        at = moment(record.get("time"))
        if at is None:
            self._note(external_id, f"a point has no time: {str(record.get('time'))[:60]}")
            return None
        try:
            text = canonical(record.get("data"))
        except UnfitData as error:
            self._note(external_id, f"the point of {at.isoformat()} is left out: {error}")
            return None
        return Point(number, at, digest_of(text), text)

    def _note(self, external_id: Any, error: str) -> None:
        self._counts["errors"] += 1
        if len(self._report["errors"]) < MOST_ERRORS:
            named = None if external_id is None else str(external_id)[:LONGEST_ID]
            self._report["errors"].append({"external_id": named, "error": error})

    async def _tell(self, connection: AsyncConnection[Any] | None) -> None:
        """Add the figures since the last time; raises `TakenOver` where the lease is lost."""
        self._counts["api_calls"] += self._golioth.calls - self._told_calls
        self._told_calls = self._golioth.calls
        counts, self._counts = self._counts, Counter()
        values = (self._id, self._claim["started_at"], Jsonb(dict(counts)))
        if connection is None:
            is_ours = await fetch_value(self._pool, _GO_ON, *values)
        else:
            row = await (await connection.execute(_GO_ON, values)).fetchone()
            is_ours = row is not None and row[0]
        if not is_ours:
            raise TakenOver
