"""A file of handler entries and exits, to be counted independently of any database.

One JSON object a line:

    {"event": "entered" | "left", "command_id", "command_type", "device_id", "hostname",
     "attempt", "at": seconds since 1970}

`left` also carries `outcome`: completed, failed or stopped. A line is written at once, by
one call, so several agents may share the file and a killed one loses nothing that it wrote.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgfleet.agent.handlers.interface import HandlerContext


class EventFile:
    """Append events to a file; with `durable` each line is synced to disk."""

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._durable = durable

    def write(self, event: str, context: HandlerContext, **more: str) -> None:
        """Append one event."""
        line = {
            "event": event,
            "command_id": context.command_id,
            "command_type": context.command_type,
            "device_id": context.device_id,
            "hostname": context.hostname,
            "attempt": context.attempt,
            "at": time.time(),
            **more,
        }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")
        if self._durable:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Watch:
    """Learn how a handler's run ended before it is written down."""

    def __init__(self) -> None:
        self.outcome = "stopped"


@contextmanager
def watched(events: EventFile | None, context: HandlerContext) -> Iterator[Watch]:
    """Write the entry and the exit of one handler around the block."""
    watch = Watch()
    if events is None:
        yield watch
        return
    events.write("entered", context)
    try:
        yield watch
    finally:
        events.write("left", context, outcome=watch.outcome)
