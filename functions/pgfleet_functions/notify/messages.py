"""A message under a lease, and how an attempt to deliver it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["delivered", "retry", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message under a lease; the headers carry its signature for this attempt."""

    delivery_id: int
    attempt: int
    event: str
    event_id: str
    channel: str
    url: str | None
    email: str | None
    headers: dict[str, str] | None
    body: str
    allow_private: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: delivered, to be tried again, or never to be tried again."""

    kind: Kind
    status: int | None = None
    error: str | None = None
    retry_after: int | None = None
    # Whether the other side let us wait until the time was over.
    is_slow: bool = False
