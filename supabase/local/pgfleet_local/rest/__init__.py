"""Stand in for PostgREST: rpc, tables and views of the exposed schemas over HTTP."""

from pgfleet_local.rest.service import Rest

__all__ = ["Rest"]
