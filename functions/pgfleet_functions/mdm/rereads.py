"""Reading devices again that a webhook spoke of: only what the MDM answers counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, storable
from pgfleet_functions.dispatching import Claim, Ended, Piece
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.connections import Connections, Unanswered
from pgfleet_functions.integrations.sightings import described
from pgfleet_functions.mdm.provider import Provider

log = logging.getLogger(__name__)

# Within the lease; what the rate leaves no room for is taken up later.
READ_SECONDS = 20.0

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_mdm_rereads(%s) as c"
_FINISH = """
select fleet.worker_finish_mdm_reread(
  %s, %s, %s, make_interval(secs => %s::double precision)
)
"""


async def claim_rereads(
    pool: Pool, connections: Connections[Provider], shares: Mapping[str, Any]
) -> Claim:
    """Claim the devices that are to be read again."""
    claims = await fetch_value(pool, _CLAIM, Jsonb(shares))
    pieces = [
        Piece(one["owner_id"], one["integration_id"], partial(_read, pool, connections, one))
        for one in claims
    ]
    return Claim(pieces, wait=0 if pieces else None)


async def _read(pool: Pool, connections: Connections[Provider], claim: Mapping[str, Any]) -> Ended:
    """Read one device and tell what came of it: that it was seen, or is gone."""
    found: list[Any] = []
    problem, pause, is_slow = None, None, False
    try:
        async with connections.claimed(claim, seconds=READ_SECONDS) as provider:
            sighting = await provider.reread(claim["external_id"])
            found = [described(provider, sighting)] if sighting else []
    except Unanswered as error:
        problem, pause, is_slow = error.message, error.retry_after, error.is_slow
    except FunctionError as error:
        problem = error.message
    except Exception as error:
        # One device that trips us up must not stop the others.
        log.exception("device %s could not be read", claim["external_id"])
        problem = f"the function failed: {type(error).__name__}"
    told = {name: claim[name] for name in ("integration_id", "external_id", "asked_at", "tries")}
    try:
        answer = await fetch_value(
            pool, _FINISH, Jsonb(told), Jsonb(found), storable(problem), pause
        )
        for one in (*answer.get("errors", ()), *answer.get("notes", ())):
            log.warning("device %s is odd: %s", claim["external_id"], one["error"])
    except FunctionError as error:
        log.warning("device %s is left to its lease: %s", claim["external_id"], error.message)
    if problem:
        log.warning("device %s could not be read: %s", claim["external_id"], problem)
    return Ended({} if problem else {"looks": 1}, is_slow)
