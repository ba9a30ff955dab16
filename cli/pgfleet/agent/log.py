"""Log lines with a time, a level, the device and the state of its connection."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.output.logs import JsonFormatter, level_of, message_of, moment_of
from pgfleet.output.safe import one_line, visible, without_secrets

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")

# Libraries that print whole requests and frames, tokens included, at DEBUG.
_TALKATIVE = ("httpx", "httpcore", "hpack", "realtime", "websockets", "asyncio")


@dataclass(slots=True)
class LineContext:
    """Hold what every log line of one device says about it."""

    device: str
    connection: str = "offline"


_current: ContextVar[LineContext | None] = ContextVar("pgfleet_agent_line", default=None)


_work: ContextVar[dict[str, Any] | None] = ContextVar("pgfleet_agent_work", default=None)


def begin_work(**about: Any) -> None:
    """Let the lines of this task say which command they are about, with its run and its trace."""
    _work.set(about)


@contextmanager
def line_context(context: LineContext) -> Iterator[None]:
    """Mark the lines that this task, and the tasks it starts, will write."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def configure(level: str, file: Path | None = None, *, as_json: bool = False) -> None:
    """Send the agent's log to a file or to stderr."""
    handler = logging.StreamHandler(sys.stderr) if file is None else _file_handler(file)
    handler.addFilter(_add_context)
    handler.addFilter(_is_news)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if level == "WARN" else getattr(logging, level))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _file_handler(file: Path) -> logging.Handler:
    from logging.handlers import RotatingFileHandler

    return RotatingFileHandler(file, maxBytes=10_000_000, backupCount=3, encoding="utf-8")


def _add_context(record: logging.LogRecord) -> bool:
    context = _current.get()
    record.device = context.device if context else "-"
    record.connection = context.connection if context else "-"
    record.__dict__.update(_work.get() or {})
    return True


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what the Realtime client says of its failures: the agent says what it does about them.

    But for a frame that the client cannot read and throws away, which nobody else notices.
    """
    return not record.name.startswith("realtime") or "Unrecognized message" in str(record.msg)


class TextFormatter(logging.Formatter):
    """Write one readable line: time, level, device, connection, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line for one record."""
        device = getattr(record, "device", "-")
        connection = getattr(record, "connection", "-")
        line = f"{moment_of(record)} {level_of(record):<5} {device} [{connection}] "
        # What a server said is no line of this log, and no terminal's business.
        line += one_line(message_of(record))
        if record.exc_info:
            line += "\n" + visible(without_secrets(self.formatException(record.exc_info)))
        return line
