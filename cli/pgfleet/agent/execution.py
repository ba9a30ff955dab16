"""Run one handler and say what came of it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from pgfleet.agent.client import Command
from pgfleet.agent.events import EventFile, watched
from pgfleet.agent.handlers.interface import HandlerContext, HandlerFailed, Reason
from pgfleet.agent.handlers.registry import Handlers
from pgfleet.agent.journal import Outcome

logger = logging.getLogger(__name__)

_ERROR_LIMIT = 2000
_PROGRESS_LIMIT = 2000


async def execute(
    handlers: Handlers, context: HandlerContext, command: Command, events: EventFile | None
) -> Outcome:
    """Carry out a command and turn whatever happens into an outcome.

    Only cancellation passes through.
    """
    try:
        handler = handlers.find(command.command_type)
        with watched(events, context) as watch:
            watch.outcome = "failed"
            try:
                async with asyncio.timeout(command.timeout_seconds) as limit:
                    result = await handler(context, command.payload)
            except asyncio.CancelledError:
                watch.outcome = "stopped"
                raise
            except TimeoutError as error:
                if limit.expired():
                    raise HandlerFailed(
                        f"not done within {command.timeout_seconds:g} s", Reason.TIMEOUT
                    ) from error
                raise
            watch.outcome = "completed"
        return Outcome("completed", _bounded(result, context.output_limit))
    except HandlerFailed as failure:
        return Outcome(
            "failed",
            _bounded(failure.result, context.output_limit),
            _message(failure.message),
            failure.reason,
        )
    except Exception as error:
        # Handlers are foreign code: one that breaks must not take the agent with it.
        logger.exception("the handler for %s broke", command.command_type)
        return Outcome("failed", None, _message(f"{type(error).__name__}: {error}"), Reason.ERROR)


def bounded_progress(progress: dict[str, Any]) -> dict[str, Any] | None:
    """Give what may be sent of a handler's progress; None where it is no small JSON."""
    try:
        encoded = json.dumps(progress, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    found = _storable(json.loads(encoded)) if len(encoded) <= _PROGRESS_LIMIT else None
    return found if isinstance(found, dict) else None


def _bounded(result: Any, limit: int) -> Any:
    """Give a result that is JSON which Postgres takes, and not larger than the limit.

    Raises HandlerFailed when it is no JSON.
    """
    try:
        encoded = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise HandlerFailed(f"the handler's result is not JSON: {error}") from error
    # A program's result holds two streams, each up to the limit, and some words beside them.
    if len(encoded) <= 3 * limit:
        return _storable(json.loads(encoded))
    return {"output": encoded[:limit], "truncated": True}


def _storable(value: Any) -> Any:
    """Replace what JSON allows in a text and jsonb does not."""
    match value:
        case str():
            return _plain(value)
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {_plain(key): _storable(item) for key, item in value.items()}
        case _:
            return value


def _plain(text: str) -> str:
    """Leave out NUL and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _message(text: str) -> str:
    return _plain(text)[:_ERROR_LIMIT]
