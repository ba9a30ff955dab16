"""Choose how the stand-in behaves: its limits and its delays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pgfleet_local.realtime.faults import Faults
from pgfleet_local.realtime.transport import MutableProtocol

MESSAGES_PUBLICATION = "supabase_realtime_messages_publication"
CHANGES_PUBLICATION = "supabase_realtime"


@dataclass(frozen=True, slots=True)
class RealtimeOptions:
    """Limits and delays; times are in seconds.

    The hosted server pauses before it refuses and settles subscriptions only some time after it
    has answered the join. The delays here are shorter, and a test can make them longer.
    """

    idle_timeout: float = 60.0
    max_connections: int = 10_000
    max_channels: int = 100
    max_broadcast_bytes: int = 3_000_000
    max_record_bytes: int = 1_048_576
    max_queued_frames: int = 10_000
    presence_calls: int = 5
    presence_seconds: float = 30.0
    refusal_delay: float = 0.0
    join_error_delay: float = 1.0
    subscribe_delay: float = 0.0
    resubscribe_delay: float = 1.0
    database_timeout: float = 5.0
    poll_interval: float = 0.1
    changes_per_poll: int = 1000
    faults: Faults = field(default_factory=Faults)


def uvicorn_options() -> dict[str, Any]:
    """Return the WebSocket settings that make uvicorn behave like the hosted server.

    It answers pings, sends none, does not compress, and takes frames up to 5 MB.
    """
    return {
        "ws": MutableProtocol,
        "ws_max_size": 5_000_000,
        "ws_ping_interval": None,
        "ws_per_message_deflate": False,
    }
