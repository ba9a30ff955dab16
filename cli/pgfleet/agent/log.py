"""Log lines with a time, a level, the device and the state of its connection."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgfleet.output.safe import json_text, one_line, visible

LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")

# Libraries that print whole requests and frames, tokens included, at DEBUG.
_TALKATIVE = ("httpx", "httpcore", "hpack", "realtime", "websockets", "asyncio")


@dataclass(slots=True)
class LineContext:
    """Hold what every log line of one device says about it."""

    device: str
    connection: str = "offline"


_current: ContextVar[LineContext | None] = ContextVar("pgfleet_agent_line", default=None)


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
    return True


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what the Realtime client says of its failures: the agent says what it does about them.

    But for a frame that the client cannot read and throws away, which nobody else notices.
    """
    return not record.name.startswith("realtime") or "Unrecognized message" in str(record.msg)


def _level(record: logging.LogRecord) -> str:
    return "WARN" if record.levelno == logging.WARNING else record.levelname


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """Write one readable line: time, level, device, connection, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line for one record."""
        device = getattr(record, "device", "-")
        connection = getattr(record, "connection", "-")
        line = f"{_timestamp(record)} {_level(record):<5} {device} [{connection}] "
        # What a server said is no line of this log, and no terminal's business.
        line += one_line(record.getMessage())
        if record.exc_info:
            line += "\n" + visible(self.formatException(record.exc_info))
        return line


class JsonFormatter(logging.Formatter):
    """Write one JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the object for one record."""
        entry = {
            "at": _timestamp(record),
            "level": _level(record),
            "device": getattr(record, "device", "-"),
            "connection": getattr(record, "connection", "-"),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json_text(json.dumps(entry, ensure_ascii=False))
