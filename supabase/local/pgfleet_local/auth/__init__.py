"""Sign people in: the part of Supabase Auth that the official clients need for passwords."""

from __future__ import annotations

from pgfleet_local.auth.service import Auth

__all__ = ["Auth"]
