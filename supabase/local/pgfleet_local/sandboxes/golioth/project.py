"""The project behind the sandbox: devices, their state, and the stream of all of them."""

from __future__ import annotations

import bisect
import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

PROJECT, ORGANIZATION = "acme-demo", "acme"


class SwitchError(ValueError):
    """Raised when a switch does not exist or cannot take the value."""


@dataclass(slots=True)
class Faults:
    """Switches that may be flipped while the sandbox runs; shares are of all requests.

    - `slow_seconds`: every answer comes this much later. `down`: every request is answered 503.
    - `error_burst`: the next so many requests are answered 500. `error_share`: as many of all.
    - `limit_burst`, `limit_share`: the same with 429. `retry_after`: whether a 429 says when.
    - `reset_share`: as many are cut off in the middle of the answer.
    - `broken_devices`: the streams of these devices are answered 500.
    - `ingest_seconds`: how long a point is on its way into the stream.
    - `drop_share`, `double_share`: as many pushes are lost, or sent twice.
    """

    slow_seconds: float = 0.0
    down: bool = False
    error_burst: int = 0
    error_share: float = 0.0
    limit_burst: int = 0
    limit_share: float = 0.0
    retry_after: bool = True
    reset_share: float = 0.0
    broken_devices: list[str] = field(default_factory=list)
    ingest_seconds: float = 0.0
    drop_share: float = 0.0
    double_share: float = 0.0

    def state(self) -> dict[str, Any]:
        """Give every switch with its value."""
        return asdict(self)

    def set(self, switches: dict[str, Any]) -> None:
        """Flip several switches at once; a name or value that is wrong changes nothing."""
        now = Faults()
        kinds = {one.name: type(getattr(now, one.name)) for one in fields(self)}
        for name, value in switches.items():
            if name not in kinds:
                raise SwitchError(f'there is no switch "{name}"')
            is_number = kinds[name] is float and isinstance(value, int) and value is not True
            if type(value) is not kinds[name] and not is_number:
                raise SwitchError(f'the switch "{name}" cannot be {value!r}')
        for name, value in switches.items():
            setattr(self, name, value)


@dataclass(slots=True)
class Device:
    """One device, as the API shows it, with its LightDB State beside it."""

    id: str
    name: str
    created_at: float
    updated_at: float
    hardware_ids: list[str] = field(default_factory=list)
    tag_ids: list[str] = field(default_factory=list)
    blueprint_id: str | None = None
    cohort_id: str | None = None
    enabled: bool = True
    last_report: float | None = None
    firmware: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of the stream; it is there for whoever asks from `visible_at` on."""

    at: float
    micros: int
    device_id: str
    path: str
    data: Any
    visible_at: float


class Project:
    """All that the sandbox keeps."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.faults = Faults()
        self.clear()

    def clear(self) -> None:
        """Forget everything but the key."""
        self.devices: dict[str, Device] = {}
        self.tags: dict[str, str] = {}
        self.requests: deque[dict[str, Any]] = deque(maxlen=50_000)
        # Where pipelines push to, with which headers, and in which shape.
        self.webhook: dict[str, Any] = {"url": None, "headers": {}, "shape": "raw"}
        self.pushed = {"sent": 0, "dropped": 0, "doubled": 0, "failed": 0}
        self.faults.set(Faults().state())
        self._points: list[Point] = []
        self._is_sorted = True
        self._all_visible_at = 0.0
        self._ids = 0

    def add_device(self, **given: Any) -> Device:
        """Make a device; what is not given about it is made up."""
        self._ids += 1
        number = f"66b1{hashlib.sha256(str(self._ids).encode()).hexdigest()[:20]}"
        name = str(given.pop("name", f"unit-{self._ids:04}"))
        now = time.time()
        device = Device(number, name, now, now)
        device.hardware_ids = [f"AC-UNIT-{self._ids:04}"]
        for key, value in given.items():
            setattr(device, key, value)
        self.devices[number] = device
        return device

    def add_tag(self, name: str) -> str:
        """Make a tag, and give its id."""
        number = f"66b2{hashlib.sha256(name.encode()).hexdigest()[:20]}"
        self.tags[number] = name
        return number

    def add_point(self, device_id: str, micros: int, data: Any, path: str) -> Point:
        """Let a device report something; it comes into the stream after a while."""
        now = time.time()
        visible_at = now + self.faults.ingest_seconds
        point = Point(micros / 1e6, micros, device_id, path, data, visible_at)
        self._points.append(point)
        self._is_sorted = False
        self._all_visible_at = max(self._all_visible_at, visible_at)
        if (device := self.devices.get(device_id)) is not None:
            device.last_report = max(device.last_report or 0.0, min(point.at, now))
        return point

    def between(self, start: int, end: int) -> Sequence[Point]:
        """Give what can be seen of the stream, the newest first; the end is not part of it."""
        if not self._is_sorted:
            self._points.sort(key=lambda one: one.micros)
            self._is_sorted = True
        first = bisect.bisect_left(self._points, start, key=lambda one: one.micros)
        last = bisect.bisect_left(self._points, end, key=lambda one: one.micros)
        found = self._points[first:last]
        found.reverse()
        now = time.time()
        # Looked at one by one only while something is under way.
        if now < self._all_visible_at:
            found = [one for one in found if one.visible_at <= now]
        return found

    @property
    def points(self) -> int:
        """Tell how many points there are in all."""
        return len(self._points)


def stamp(seconds: float | None) -> str | None:
    """Give a time as device fields have it."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stream_stamp(micros: int) -> str:
    """Give a time as streams have it: zeros at its end are not written."""
    seconds, rest = divmod(micros, 1_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:06}".rstrip("0")
    return f"{text}.{fraction}+00:00" if fraction else f"{text}+00:00"


def micros_of(text: str) -> int:
    """Read a time, to the microsecond."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
