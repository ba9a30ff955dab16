"""Log lines, of the agent, the functions and the gateway alike: text for people, or JSON.

Whatever servers and devices have said, a record is one line, moves no cursor, and holds no secret.
What a line is about comes as attributes of its record, which each program sets in its own way.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pgfleet.errors import InvalidInput
from pgfleet.output import safe

FORMATS = ("text", "json")
FORMAT_VARIABLE = "PGFLEET_LOG_FORMAT"

# What a line may be about, in the order in which it is told.
SUBJECTS = ("device", "connection", "owner", "integration", "run", "command", "trace")


def chosen_format(given: str | None = None) -> str:
    """Give the format that was asked for, or that the environment asks for. Raises InvalidInput."""
    chosen = given or os.environ.get(FORMAT_VARIABLE) or "text"
    if chosen not in FORMATS:
        raise InvalidInput(
            f"log-format: {chosen!r} is neither text nor json", reason="log_format_invalid"
        )
    return chosen


def level_of(record: logging.LogRecord) -> str:
    """Give the level as the agent's option names it."""
    return "WARN" if record.levelno == logging.WARNING else record.levelname


def moment_of(record: logging.LogRecord) -> str:
    """Give the time of a record in UTC."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def message_of(record: logging.LogRecord) -> str:
    """Give what a record says, without what gives access."""
    return safe.without_secrets(record.getMessage())


class SafeFormatter(logging.Formatter):
    """Write records as given, but what is in them starts no line of its own and moves no cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line for one record, and below it the trace where there is one."""
        kept = record.msg, record.args, record.exc_text
        record.msg, record.args = safe.one_line(message_of(record)), None
        try:
            return safe.visible(safe.without_secrets(super().format(record)))
        finally:
            record.msg, record.args, record.exc_text = kept


class JsonFormatter(logging.Formatter):
    """Write one JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the object for one record."""
        about = {name: getattr(record, name, None) for name in SUBJECTS}
        entry = {
            "at": moment_of(record),
            "level": level_of(record),
            **{name: value for name, value in about.items() if value not in (None, "-")},
            "logger": record.name,
            "message": message_of(record),
        }
        if record.exc_info:
            entry["exception"] = safe.without_secrets(self.formatException(record.exc_info))
        return safe.json_text(json.dumps(entry, ensure_ascii=False, default=str))


def uvicorn_log_config(
    chosen: str | None = None, subject: Callable[[logging.LogRecord], bool] | None = None
) -> dict[str, Any]:
    """Give the settings of a server that logs in this way, its own lines and those of the app.

    The format is what the environment asks for where none is given. `subject` sets on each record
    what it is about.
    """
    chosen = chosen_format(chosen)
    form: dict[str, Any] = {
        "()": "pgfleet.output.logs.SafeFormatter",
        "format": "%(levelname)s: %(message)s",
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "chosen": {"()": "pgfleet.output.logs.JsonFormatter"} if chosen == "json" else form
        },
        "filters": {"subject": {"()": lambda: subject or (lambda _: True)}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "chosen",
                "filters": ["subject"],
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "uvicorn": {"level": "INFO"},
            "uvicorn.error": {"level": "INFO"},
        },
    }
