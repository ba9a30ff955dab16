"""Keep who listens to which topic, and hand broadcasts out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgfleet_local.realtime.protocol import Broadcast, Frame, Serializer

if TYPE_CHECKING:
    from pgfleet_local.realtime.channels import Channel

WIRE_PREFIX = "realtime:"


@dataclass(slots=True)
class Topics:
    """Channels by topic; the private and the public topic of one name are two topics."""

    _channels: dict[tuple[str, bool], dict[Channel, None]] = field(default_factory=dict)

    def add(self, channel: Channel) -> None:
        """Let the channel hear broadcasts."""
        self._channels.setdefault((channel.name, channel.config.private), {})[channel] = None

    def remove(self, channel: Channel) -> None:
        """Let the channel hear no more broadcasts."""
        key = (channel.name, channel.config.private)
        listeners = self._channels.get(key, {})
        listeners.pop(channel, None)
        if not listeners:
            self._channels.pop(key, None)

    def publish(
        self,
        name: str,
        private: bool,
        broadcast: Broadcast,
        only: Callable[[Channel], bool] = lambda channel: True,
    ) -> None:
        """Hand a broadcast to the listeners of a topic; each version is encoded once."""
        encoded: dict[Serializer, Frame | None] = {}
        for channel in list(self._channels.get((name, private), ())):
            if not only(channel):
                continue
            serializer = channel.socket.serializer
            if serializer not in encoded:
                encoded[serializer] = serializer.encode_broadcast(broadcast)
            frame = encoded[serializer]
            if frame is not None:
                channel.deliver(frame)


def wire_topic(name: str) -> str:
    """Return the topic as clients write it."""
    return WIRE_PREFIX + name
