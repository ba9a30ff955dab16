"""Log lines: one line of visible text for each record, whatever servers and devices have said."""

from __future__ import annotations

import logging
from typing import Any

from pgfleet.output import safe


class SafeFormatter(logging.Formatter):
    """Write records as given, but what is in them starts no line of its own and moves no cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line for one record, and below it the trace where there is one."""
        kept = record.msg, record.args, record.exc_text
        record.msg, record.args = safe.one_line(record.getMessage()), None
        try:
            return safe.visible(super().format(record))
        finally:
            record.msg, record.args, record.exc_text = kept


def uvicorn_log_config() -> dict[str, Any]:
    """Give the settings of a server that logs in this way, its own lines and those of the app."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "safe": {
                "()": "pgfleet.output.logs.SafeFormatter",
                "format": "%(levelname)s: %(message)s",
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "safe",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "uvicorn": {"level": "INFO"},
            "uvicorn.error": {"level": "INFO"},
        },
    }
