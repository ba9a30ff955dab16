"""Stand in for Supabase Storage: buckets and objects in a folder, guarded by row security."""

from pgfleet_local.storage.service import Storage

__all__ = ["Storage"]
