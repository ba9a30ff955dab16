"""What the lines of the log are about: whose work it is, which run, which command, which trace."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_current: ContextVar[Mapping[str, Any]] = ContextVar("pgfleet_subject", default={})  # noqa: B039


@contextmanager
def about(**named: Any) -> Iterator[None]:
    """Let the lines of this task, and of the tasks that it starts, say what they are about."""
    known = {name: value for name, value in named.items() if value is not None}
    token = _current.set({**_current.get(), **known})
    try:
        yield
    finally:
        _current.reset(token)


def add_subject(record: logging.LogRecord) -> bool:
    """Set on a record what it is about, for the formatter; a filter that lets all through."""
    for name, value in _current.get().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True
