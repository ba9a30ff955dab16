"""A sandbox of SimpleMDM: the same API over real HTTP, with devices that exist in memory only."""

from pgfleet_local.sandboxes.simplemdm.app import create_sandbox

__all__ = ["create_sandbox"]
