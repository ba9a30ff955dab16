"""Stand in for the hosted Realtime server, for the part of its contract that pgfleet uses."""

from __future__ import annotations

from pgfleet_local.realtime.faults import FaultError, Faults
from pgfleet_local.realtime.options import RealtimeOptions, uvicorn_options
from pgfleet_local.realtime.server import Realtime

__all__ = ["FaultError", "Faults", "Realtime", "RealtimeOptions", "uvicorn_options"]
