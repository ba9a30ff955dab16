"""What a handler is given, what it gives back, and how it says that it failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pgfleet.agent.settings import DeploySettings
from pgfleet.errors import FleetError


class Reason(StrEnum):
    """Classes of failure; the server retries `error` and `timeout`, and no other."""

    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    UNSUPPORTED = "unsupported"
    FORBIDDEN = "forbidden"
    INVALID_PAYLOAD = "invalid_payload"


@dataclass(frozen=True, slots=True)
class ObjectBody:
    """Hold what the storage sends of an object: from which byte on, and the bytes."""

    starts_at: int
    chunks: AsyncIterator[bytes]


class Server(Protocol):
    """What handlers ask their server for."""

    async def manifest(self, command_id: int) -> dict[str, Any]:
        """Say what a command deploys."""
        ...

    async def blocklist(self, kind: str) -> dict[str, Any]:
        """Say what this device is to block: website or software."""
        ...

    async def tell(self, facts: dict[str, Any]) -> None:
        """Take facts about this device."""
        ...

    def open_object(
        self, bucket: str, path: str, offset: int
    ) -> AbstractAsyncContextManager[ObjectBody]:
        """Open an object of the storage from a byte on."""
        ...


def _tell_nobody(progress: dict[str, Any]) -> None:
    """Take progress where nobody asks for it."""


@dataclass(frozen=True, slots=True)
class HandlerContext:
    """Hold what a handler may know about the command that it carries out."""

    command_id: int
    command_type: str
    attempt: int
    device_id: int
    hostname: str
    state_dir: Path
    timeout_seconds: float | None
    output_limit: int
    # Says how far it is: {"percent": 40, …}; as often as one likes, it is sent at a pace.
    report: Callable[[dict[str, Any]], None] = _tell_nobody
    environment_allowed: frozenset[str] = frozenset()
    deploy: DeploySettings = field(default_factory=DeploySettings)
    # None where nothing can be fetched.
    server: Server | None = None


class Handler(Protocol):
    """Carry out one command.

    The result must be JSON. Raise `HandlerFailed` to choose the reason; any other exception
    is an `error`. When the command times out or is cancelled the coroutine is cancelled: it
    must stop what it started.
    """

    async def __call__(self, context: HandlerContext, payload: dict[str, Any]) -> Any:
        """Do the work and give its result."""
        ...


class HandlerFailed(FleetError):
    """A handler could not do what the command asks for."""

    def __init__(self, message: str, reason: Reason = Reason.ERROR, *, result: Any = None) -> None:
        super().__init__(message, reason=str(reason))
        self.result = result


def unsupported(message: str) -> HandlerFailed:
    """Say that this platform or session cannot do it."""
    return HandlerFailed(message, Reason.UNSUPPORTED)


def invalid_payload(message: str) -> HandlerFailed:
    """Say which key of the payload is wrong."""
    return HandlerFailed(message, Reason.INVALID_PAYLOAD)


def text_of(payload: dict[str, Any], key: str, *, default: str | None = None) -> str:
    """Give a text of the payload; without a default it must be there and not be empty."""
    value = payload.get(key, default)
    if not isinstance(value, str) or not value.strip():
        raise invalid_payload(f"{key} must be a text that is not empty")
    return value


def seconds_of(payload: dict[str, Any], key: str, *, default: float, limit: float) -> float:
    """Give a duration of the payload, within its limit."""
    value = payload.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= limit:
        raise invalid_payload(f"{key} must be a number of seconds above 0 and up to {limit:g}")
    return float(value)
