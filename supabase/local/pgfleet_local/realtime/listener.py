"""Say what the parts need of each other: who hears, and who sends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from pgfleet_local.realtime.identity import Access
from pgfleet_local.realtime.protocol import Frame, Outgoing, Serializer


class Listener(Protocol):
    """Who hears broadcasts and changes: a joined channel, as topics and subscriptions know it."""

    @property
    def topic(self) -> str:
        """The topic as clients write it."""
        ...

    @property
    def name(self) -> str:
        """The topic without the prefix that every topic has on the wire."""
        ...

    @property
    def private(self) -> bool:
        """Whether it listens to the private topic of that name, or to the public one."""
        ...

    @property
    def access(self) -> Access:
        """The role and claims under which it listens now."""
        ...

    @property
    def serializer(self) -> Serializer:
        """The version of the wire format that it reads."""
        ...

    @property
    def hears_broadcasts(self) -> bool:
        """Whether broadcasts of its topic are for it."""
        ...

    @property
    def hears_presence(self) -> bool:
        """Whether it may know who else is on its topic."""
        ...

    def deliver(self, frame: Frame) -> None:
        """Take a broadcast, a change, or who came and left."""
        ...


class Sender(Protocol):
    """Who sends to the client: the connection, as its channels know it."""

    @property
    def serializer(self) -> Serializer:
        """The version of the wire format that the client reads."""
        ...

    def send(self, frame: Frame) -> None:
        """Queue a frame."""
        ...

    def push(self, message: Outgoing) -> None:
        """Queue a message."""
        ...

    def reply(
        self,
        topic: str,
        ref: str | None,
        join_ref: str | None,
        status: str,
        response: Mapping[str, Any],
    ) -> None:
        """Queue the answer to a message of the client."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that ends with the connection."""
        ...

    def forget(self, listener: Listener) -> None:
        """Drop a listener that has ended."""
        ...
