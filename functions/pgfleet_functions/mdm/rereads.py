"""Looking again at devices that a webhook spoke of: only what the MDM answers counts."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.connections import Lines
from pgfleet_functions.mdm.asking import Unanswered, asking, described

log = logging.getLogger(__name__)

# Within the lease; what the rate leaves no room for is taken up later.
LOOK_SECONDS = 20.0

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_mdm_rereads(20) as c"
_FINISH = """
select fleet.worker_finish_mdm_reread(
  %s, %s, %s, make_interval(secs => %s::double precision)
)
"""


async def reread_devices(pool: Pool, lines: Lines) -> Counter[str]:
    """Look at the devices that are to be looked at again; tell how many were."""
    counts: Counter[str] = Counter()
    try:
        while claims := await fetch_value(pool, _CLAIM):
            looks = await asyncio.gather(*(_look(pool, lines, claim) for claim in claims))
            counts["looks"] += sum(looks)
    except FunctionError as error:
        log.warning("devices are looked at later: %s", error.message)
    return +counts


async def _look(pool: Pool, lines: Lines, claim: Mapping[str, Any]) -> bool:
    """Look at one device and tell what came of it; tell whether it was seen or is gone."""
    found: list[Any] = []
    problem, pause = None, None
    try:
        async with asking(pool, lines, claim, seconds=LOOK_SECONDS) as provider:
            sighting = await provider.look(claim["external_id"])
            found = [described(provider, sighting)] if sighting else []
    except Unanswered as error:
        problem, pause = error.message, error.retry_after
    except FunctionError as error:
        problem = error.message
    except Exception as error:
        # One device that trips us up must not stop the others.
        log.exception("the look at device %s failed", claim["external_id"])
        problem = f"the function failed: {type(error).__name__}"
    told = {name: claim[name] for name in ("integration_id", "external_id", "asked_at", "tries")}
    try:
        answer = await fetch_value(pool, _FINISH, Jsonb(told), Jsonb(found), problem, pause)
        for one in answer.get("errors", ()):
            log.warning("device %s is not fit: %s", claim["external_id"], one["error"])
    except FunctionError as error:
        log.warning("device %s is left to its lease: %s", claim["external_id"], error.message)
    if problem:
        log.warning("device %s could not be looked at: %s", claim["external_id"], problem)
    return problem is None
