"""Who is on a topic, as each tells of itself."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pgfleet_local.realtime.listener import Listener
from pgfleet_local.realtime.protocol import Outgoing, to_json
from pgfleet_local.realtime.topics import Topics

Meta = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Presence:
    """What one listener has told of itself, under a key that several may share."""

    key: str
    meta: Meta


@dataclass(slots=True)
class Presences:
    """The presences of every topic; each change is told to its listeners at once."""

    topics: Topics
    _by_topic: dict[tuple[str, bool], dict[Listener, Presence]] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def track(self, listener: Listener, key: str, payload: Meta) -> None:
        """Let the listener be present, or tell something else of itself than before."""
        present = self._by_topic.setdefault((listener.name, listener.private), {})
        before = present.get(listener)
        if before is not None and _without_refs(before.meta) == payload:
            return
        meta = {**payload, "phx_ref": f"F{next(self._numbers):015x}"}
        if before is not None:
            meta["phx_ref_prev"] = before.meta["phx_ref"]
        present[listener] = now = Presence(key, meta)
        self._tell(listener, joins=[now], leaves=[] if before is None else [before])

    def untrack(self, listener: Listener) -> None:
        """Let the listener be present no more."""
        topic = (listener.name, listener.private)
        present = self._by_topic.get(topic, {})
        before = present.pop(listener, None)
        if not present:
            self._by_topic.pop(topic, None)
        if before is not None:
            self._tell(listener, joins=[], leaves=[before])

    def state(self, listener: Listener) -> str:
        """Return everybody on the listener's topic, as JSON text."""
        present = self._by_topic.get((listener.name, listener.private), {})
        return to_json(_grouped(present.values()))

    def _tell(self, listener: Listener, joins: list[Presence], leaves: list[Presence]) -> None:
        payload = to_json({"joins": _grouped(joins), "leaves": _grouped(leaves)})
        message = Outgoing(listener.topic, "presence_diff", payload)
        self.topics.hand_out(
            listener.name,
            listener.private,
            lambda serializer: serializer.encode(message),
            only=lambda one: one.hears_presence,
        )


@dataclass(slots=True)
class CallLimit:
    """So many calls in so many seconds, counted from the first of them."""

    calls: int
    seconds: float
    _count: int = 0
    _ends: float = 0.0

    def take(self) -> bool:
        """Count a call; false when it is one too many."""
        now = time.monotonic()
        if now > self._ends:
            self._count, self._ends = 0, now + self.seconds
        if self._count >= self.calls:
            return False
        self._count += 1
        return True


def _grouped(presences: Any) -> dict[str, dict[str, list[Meta]]]:
    grouped: dict[str, dict[str, list[Meta]]] = {}
    for one in presences:
        grouped.setdefault(one.key, {"metas": []})["metas"].append(one.meta)
    return grouped


def _without_refs(meta: Meta) -> Meta:
    return {name: value for name, value in meta.items() if name not in ("phx_ref", "phx_ref_prev")}
