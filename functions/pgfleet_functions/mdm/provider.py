"""What every MDM is to the rest of pgfleet: it takes orders for devices and is asked about them.

A provider is a class that takes an `Api` and the integration's settings and has the methods of
`Provider`. It neither retries nor waits nor logs nor keeps a rate: its `Api` does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from pgfleet_functions.integrations.sightings import Capabilities, Sighting


class State(StrEnum):
    """How far an order has come, in words that fit all MDMs."""

    PENDING = "pending"  # the MDM does not have it
    SENT = "sent"  # the MDM has it, the device may not
    ACKNOWLEDGED = "acknowledged"  # the device shows the effect
    DEFERRED = "deferred"  # the device has not been heard of since, or said not now
    FAILED = "failed"  # it will not happen
    EXPIRED = "expired"  # it was not acknowledged in time
    UNKNOWN = "unknown"  # nothing will ever tell


@dataclass(frozen=True, slots=True)
class Order:
    """One command for one device."""

    command_id: int
    attempt: int
    command_type: str
    payload: Mapping[str, Any]
    external_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    # When the provider took it, by its own clock; known from the first report on.
    sent_at: datetime | None = None
    # When the latest attempt ended of which nobody knows whether the provider took it.
    unanswered_at: datetime | None = None
    # What the reports so far have told.
    before: Mapping[str, Any] = field(default_factory=dict)

    @property
    def action(self) -> str:
        """Give the command type without the prefix that keeps it apart from those of agents."""
        return self.command_type.removeprefix("mdm_")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of an order: how far it is, and for a failure why, in words for people.

    `reason` is one of `invalid_payload`, `unsupported` and `refused`; none is tried again.
    """

    state: State
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    # After how many seconds a look is worth it; else the database asks less and less often.
    look_after: float | None = None


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """A configuration profile that the MDM is to have; its content may hold passwords."""

    name: str
    content: bytes = field(repr=False)
    options: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownProfile:
    """A profile that the MDM has, with its own word for the kind."""

    external_id: str
    name: str
    kind: str
    # Whether it was made of a file, so that another file can take its place.
    is_custom: bool = False


class Provider(Protocol):
    """One MDM."""

    def capabilities(self, attributes: Mapping[str, Any]) -> Capabilities:
        """Tell what a device with these attributes can do; `None` is "not known"."""
        ...

    async def send(self, order: Order) -> Report:
        """Hand the order over; what is already so counts as done. Raises `CallFailed`."""
        ...

    def look(self, orders: Sequence[Order]) -> AsyncIterator[tuple[Order, Report]]:
        """Look whether orders that were taken show their effect, with as few calls as possible.

        Each order comes back once, in any order. Raises `CallFailed`.
        """
        ...

    def inventory(self) -> AsyncIterator[list[Sighting]]:
        """Give the devices page by page. Raises `CallFailed`."""
        ...

    async def reread(self, external_id: str) -> Sighting | None:
        """Look at one device; None where there is no such device. Raises `CallFailed`."""
        ...

    async def upload_profile(self, file: ProfileFile, external_id: str | None) -> str:
        """Make a profile, or replace the file of one, and give its id. Raises `CallFailed`."""
        ...

    async def delete_profile(self, external_id: str) -> None:
        """Delete a profile that was made of a file. Raises `CallFailed`."""
        ...

    def profiles(self) -> AsyncIterator[list[KnownProfile]]:
        """Give the profiles page by page, whatever their kind. Raises `CallFailed`."""
        ...


def failed(reason: str, error: str) -> Report:
    """Report that an order will not happen."""
    return Report(State.FAILED, error=error, reason=reason)
