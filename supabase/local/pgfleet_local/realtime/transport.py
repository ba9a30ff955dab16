"""uvicorn's WebSocket protocol, with pings that a fault can leave unanswered and a discreet log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

# Addresses carry keys, and uvicorn writes every address into its log when a socket is accepted.
# The name is none below uvicorn's: its configuration resets the levels of all that are.
DISCREET = logging.getLogger("pgfleet_local.realtime.connections")
DISCREET.setLevel(logging.WARNING)

EXTENSION = "pgfleet.pings"


class MutableProtocol(WebSocketsSansIOProtocol):
    """A protocol that can keep a ping's answer to itself."""

    is_silent: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, *settings: Any, **more: Any) -> None:
        super().__init__(*settings, **more)
        self.logger = DISCREET

    def handle_connect(self, event: Request) -> None:
        """Put itself within reach of the application."""
        super().handle_connect(event)
        if self.handshake_initiated and hasattr(self, "scope"):
            extensions: dict[str, Any] = dict(self.scope["extensions"] or {})
            self.scope["extensions"] = extensions | {EXTENSION: self}

    def handle_ping(self) -> None:
        """Answer a ping, unless the server is to look dead."""
        if self.is_silent():
            self.conn.data_to_send()
        else:
            super().handle_ping()


def silence_pings_while(scope: Mapping[str, Any], is_silent: Callable[[], bool]) -> None:
    """Leave pings of this connection unanswered while the condition holds.

    Under another protocol class than ours pings are answered always.
    """
    protocol = (scope.get("extensions") or {}).get(EXTENSION)
    if isinstance(protocol, MutableProtocol):
        protocol.is_silent = is_silent
