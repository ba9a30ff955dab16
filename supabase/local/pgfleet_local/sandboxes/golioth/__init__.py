"""A sandbox of Golioth: the same API over real HTTP, and pipelines that push to a webhook."""

from pgfleet_local.sandboxes.golioth.app import create_sandbox

__all__ = ["create_sandbox"]
