"""Keep who listens to which topic, and hand broadcasts out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pgfleet_local.realtime.listener import Listener
from pgfleet_local.realtime.protocol import Broadcast, Frame, Serializer

WIRE_PREFIX = "realtime:"


@dataclass(slots=True)
class Topics:
    """Listeners by topic; the private and the public topic of one name are two topics."""

    _listeners: dict[tuple[str, bool], dict[Listener, None]] = field(default_factory=dict)

    def add(self, listener: Listener) -> None:
        """Let the listener hear broadcasts."""
        self._listeners.setdefault((listener.name, listener.private), {})[listener] = None

    def remove(self, listener: Listener) -> None:
        """Let the listener hear no more broadcasts."""
        key = (listener.name, listener.private)
        listening = self._listeners.get(key, {})
        listening.pop(listener, None)
        if not listening:
            self._listeners.pop(key, None)

    def publish(
        self,
        name: str,
        private: bool,
        broadcast: Broadcast,
        only: Callable[[Listener], bool] = lambda listener: True,
    ) -> None:
        """Hand a broadcast to the listeners of a topic."""
        self.hand_out(
            name,
            private,
            lambda serializer: serializer.encode_broadcast(broadcast),
            only=lambda listener: listener.hears_broadcasts and only(listener),
        )

    def hand_out(
        self,
        name: str,
        private: bool,
        encode: Callable[[Serializer], Frame | None],
        only: Callable[[Listener], bool],
    ) -> None:
        """Hand a message to listeners of a topic; it is encoded once for each version."""
        encoded: dict[Serializer, Frame | None] = {}
        for listener in list(self._listeners.get((name, private), ())):
            if not only(listener):
                continue
            serializer = listener.serializer
            if serializer not in encoded:
                encoded[serializer] = encode(serializer)
            frame = encoded[serializer]
            if frame is not None:
                listener.deliver(frame)


def wire_topic(name: str) -> str:
    """Return the topic as clients write it."""
    return WIRE_PREFIX + name
