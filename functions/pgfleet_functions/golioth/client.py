"""Golioth's management API: devices page by page, the stream of a project or a device, writes."""

from __future__ import annotations

import asyncio
import fnmatch
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pgfleet_functions.integrations.calls import LISTS, Api, CallFailed, FailureKind
from pgfleet_functions.outgoing.answers import Answer

BASE_URL = "https://api.golioth.io"
KEY_HEADER = "x-api-key"
# Nobody has documented more.
PAGE = 100
# A page that cannot be read is read in so many parts, and those again, down to the one record.
PARTS = 10
MOST_TAGS = 10_000
# Not documented, and so one constant each until somebody has seen it.
WHOLE_STATE = "/"
TAG_NAME = "name"
STREAM_FIELDS = ({"path": "time"}, {"path": "deviceId"}, {"path": "*"})

# A read is tried so often before the pull gives up; what was stored stays stored.
TRIES = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
PASSING = (FailureKind.RATE, FailureKind.SERVER, FailureKind.NETWORK)

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StreamPage:
    """One page of a stream, how many points there are in all, and how many nobody can read."""

    points: Sequence[Record]
    total: int
    unread: int = 0


class Golioth:
    """One project of Golioth."""

    def __init__(self, api: Api, settings: Mapping[str, Any]) -> None:
        self._api = api
        self._path = f"/v1/projects/{settings['projectId']}"
        self._filter: Record = settings.get("deviceFilter") or {}
        # How many calls were made, and how many there may be; None is no limit.
        self.calls = 0
        self.calls_left: int | None = None

    async def devices(self, *, with_state: bool) -> AsyncIterator[tuple[list[Record], bool]]:
        """Give the devices that the filter lets through, page by page. Raises `CallFailed`.

        With each page it tells whether the states are there: of a page that is too large with
        them, or has one that nobody can read, they are left out.
        """
        query: dict[str, str | int | Sequence[str]] = {"perPage": PAGE}
        for name, key in (("tags", "tags"), ("blueprintId", "blueprint"), ("cohortId", "cohort")):
            if self._filter.get(key):
                query[name] = self._filter[key]
        state = {"statePath": WHOLE_STATE} if with_state else {}
        page = 0
        while True:
            query["page"] = page
            has_state = with_state
            try:
                answer = await self._call("GET", f"{self._path}/devices", query=query | state)
            except CallFailed as failure:
                if not failure.is_unfit or not with_state:
                    raise
                has_state = False
                answer = await self._call("GET", f"{self._path}/devices", query=query)
            devices, total = _list(answer, "devices", page)
            yield [one for one in devices if self._is_wanted(one)], has_state
            page += 1
            if not devices or page * PAGE >= total:
                return

    async def stream(
        self,
        start: datetime,
        end: datetime,
        page: int,
        *,
        device: str | None = None,
        devices: Sequence[str] = (),
    ) -> StreamPage:
        """Give a page of the stream of the project, of some devices, or of one.

        A point that nobody can read keeps no other of its page from being read.
        """
        body: dict[str, Any] = {
            "start": _text(start),
            "end": _text(end),
            "query": {"fields": list(STREAM_FIELDS)},
        }
        if devices:
            body["deviceId"] = list(devices)
        path = f"{self._path}/devices/{device}/stream" if device else f"{self._path}/stream"
        return await self._stream_page(path, body, page, PAGE)

    async def _stream_page(
        self, path: str, body: dict[str, Any], page: int, size: int
    ) -> StreamPage:
        # One that is left out was looked at twice.
        for _ in range(2 if size == 1 else 1):
            try:
                answer = await self._call("POST", path, body=body | {"page": page, "perPage": size})
            except CallFailed as failure:
                if not failure.is_unfit:
                    raise
            else:
                return StreamPage(*_list(answer, "a stream", page, size))
        if size == PAGE:
            # Where not even nothing can be read, it is not the points. Raises `CallFailed`.
            nothing = {"end": body["start"], "page": 0, "perPage": 1}
            await self._call("POST", path, body=body | nothing)
        if size == 1:
            # There may be another one after it: whoever asks finds out.
            return StreamPage([], page + 2, unread=1)
        points: list[Record] = []
        total, unread, part = page * size + 1, 0, size // PARTS
        for number in range(page * PARTS, (page + 1) * PARTS):
            if number * part >= total:
                break
            found = await self._stream_page(path, body, number, part)
            points.extend(found.points)
            total, unread = max(total, found.total), unread + found.unread
        return StreamPage(points, total, unread)

    async def tags(self) -> dict[str, str]:
        """Give the names of the tags of the project by their ids."""
        found: dict[str, str] = {}
        page = 0
        while True:
            query = {"page": page, "perPage": PAGE}
            answer = await self._call("GET", f"{self._path}/tags", query=query)
            tags, total = _list(answer, "tags", page)
            found |= {str(one.get("id")): str(one.get(TAG_NAME)) for one in tags}
            page += 1
            if not tags or page * PAGE >= min(total, MOST_TAGS):
                return found

    async def create_tag(self, name: str) -> str:
        """Make a tag, and give its id."""
        answer = await self._write("POST", f"{self._path}/tags", {TAG_NAME: name})
        try:
            return str(answer.json()["data"]["id"])
        except (ValueError, LookupError, TypeError) as error:
            message = "Golioth answered something else than a tag"
            raise CallFailed(FailureKind.SERVER, message) from error

    async def change_device(self, device: str, changes: Record) -> None:
        """Change the name or the tags of a device."""
        await self._write("PATCH", f"{self._path}/devices/{device}", dict(changes))

    async def set_state(self, device: str, path: str, value: Any) -> None:
        """Write one leaf of the LightDB State of a device."""
        await self._write("POST", f"{self._path}/devices/{device}/data/{path}", value)

    async def delete_state(self, device: str, path: str) -> None:
        """Take one leaf of the LightDB State of a device away."""
        await self._call("DELETE", f"{self._path}/devices/{device}/data/{path}")

    async def _write(self, method: str, path: str, body: Any) -> Answer:
        answer = await self._call(method, path, body=body)
        if answer.status == 409:
            raise CallFailed(FailureKind.REFUSED, _said(answer), status=409)
        return answer

    def _is_wanted(self, device: Record) -> bool:
        names = self._filter.get("names")
        name = str(device.get("name", ""))
        return not names or any(fnmatch.fnmatchcase(name, str(one)) for one in names)

    async def _call(self, method: str, path: str, **options: Any) -> Answer:
        """Make a call, and make it again while what is wrong may pass by itself."""
        for left in reversed(range(TRIES)):
            if self.calls_left is not None and self.calls >= self.calls_left:
                raise CallFailed(
                    FailureKind.RATE,
                    "the calls of this month are used up: raise settings.apiCallsPerMonth",
                    reached=False,
                )
            self.calls += 1
            try:
                return await self._api.call(method, path, limits=LISTS, **options)
            except CallFailed as failure:
                is_final = failure.kind not in PASSING or failure.is_unfit or not failure.reached
                if is_final or not left:
                    raise
                await asyncio.sleep(_pause(TRIES - left, failure.retry_after))
        raise AssertionError("the last try either returns or raises")


def _said(answer: Answer) -> str:
    try:
        return f"Golioth answered 409: {str(answer.json()['message'])[:300]}"
    except (ValueError, LookupError, TypeError):
        return "Golioth answered 409: something else has it already"


def moment(text: Any) -> datetime | None:
    """Read a time of any of the three ways in which they are written; None for anything else."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        # Overflow is of one that is in the year 0 or 10000 in UTC.
        return None


def _pause(tries: int, wanted: float | None) -> float:
    doubled = min(FIRST_PAUSE_SECONDS * 2.0 ** (tries - 1), LONGEST_PAUSE_SECONDS)
    return max(doubled * random.uniform(0.5, 1.0), wanted or 0.0)


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _list(answer: Answer, what: str, page: int, size: int = PAGE) -> tuple[list[Record], int]:
    """Read an envelope of a list; counters may come as texts, and where none does a full page
    says that there may be more.
    """
    try:
        body = answer.json()
        found: list[Record] = [one for one in body["list"] if isinstance(one, dict)]
        total = body.get("total")
        if total is None:
            total = page * size + len(found) + (len(found) >= size)
        return found, int(total)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"Golioth answered something else than {what}"
        raise CallFailed(FailureKind.SERVER, message) from error
