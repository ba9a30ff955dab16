"""Hold the parts that every socket and channel works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from pgfleet_local.realtime.authorize import Authorizer
from pgfleet_local.realtime.faults import Faults
from pgfleet_local.realtime.options import RealtimeOptions
from pgfleet_local.realtime.presence import Presences
from pgfleet_local.realtime.subscriptions import SubscriptionCheck, Subscriptions
from pgfleet_local.realtime.topics import Topics
from pgfleet_local.tokens import TokenVerifier


@dataclass(frozen=True, slots=True)
class Services:
    """What is shared; `live` is set while the change stream is being read."""

    options: RealtimeOptions
    verifier: TokenVerifier
    authorizer: Authorizer
    check: SubscriptionCheck
    subscriptions: Subscriptions = field(default_factory=Subscriptions)
    topics: Topics = field(default_factory=Topics)
    presences: Presences = field(init=False)
    live: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        object.__setattr__(self, "presences", Presences(self.topics))

    @property
    def faults(self) -> Faults:
        """The fault switches."""
        return self.options.faults
