"""Reading the devices of another system into the registry, page by page."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, storable
from pgfleet_functions.dispatching import Claim, Ended, Piece
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.connections import Connections, Unanswered
from pgfleet_functions.integrations.sightings import Describes, Sighting, described

log = logging.getLogger(__name__)

# A large account at one page a second; each page that is stored stays stored.
SYNC_SECONDS = 300.0
# How many devices that are not fit are told by name.
MOST_ERRORS = 20

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_mdm_syncs(%s) as c"
_STORE = "select fleet.worker_sync_inventory(%s, %s)"
_END = "select fleet.worker_end_mdm_sync(%s, %s, %s)"


class Listed(Describes, Protocol):
    """A provider whose devices can be listed."""

    def inventory(self) -> AsyncIterator[list[Sighting]]:
        """Give the devices page by page. Raises `CallFailed`."""
        ...


P = TypeVar("P", bound=Listed)
# What else is read of the provider of an integration once its devices are.
Then = Callable[[P, int], Awaitable[None]]


async def claim_syncs(
    pool: Pool, connections: Connections[P], then: Then[P], shares: Mapping[str, Any]
) -> Claim:
    """Claim the integrations whose inventory is due."""
    claims = await fetch_value(pool, _CLAIM, Jsonb(shares))
    pieces = [
        Piece(one["owner_id"], one["integration_id"], partial(_sync, pool, connections, then, one))
        for one in claims
    ]
    return Claim(pieces, wait=0 if pieces else None)


async def _sync(
    pool: Pool, connections: Connections[P], then: Then[P], claim: Mapping[str, Any]
) -> Ended:
    """Read one account and tell how that went; what failed is tried when its lease has ended."""
    counts: Counter[str] = Counter()
    report: dict[str, Any] = {"counts": counts, "errors": [], "notes": [], "error": None}
    integration_id, is_slow = claim["integration_id"], False
    try:
        async with connections.claimed(claim, seconds=SYNC_SECONDS) as provider:
            await _read(pool, provider, integration_id, report)
            await then(provider, integration_id)
    except Unanswered as error:
        log.warning("the inventory of integration %s: %s", integration_id, error.message)
        report["error"], is_slow = error.message, error.is_slow
    except FunctionError as error:
        log.warning("integration %s is left for later: %s", integration_id, error.message)
        report["error"] = error.message
    except Exception as error:
        # Neither commands nor other accounts wait for an inventory that cannot be read.
        log.exception("the inventory of integration %s failed", integration_id)
        report["error"] = f"the function failed: {type(error).__name__}"
    try:
        # Only a sync that came to its end counts as one, and tells who has left.
        await fetch_value(pool, _END, integration_id, claim["started_at"], Jsonb(storable(report)))
    except FunctionError as error:
        log.warning(
            "the end of a sync of integration %s is lost: %s", integration_id, error.message
        )
    return Ended({"devices": counts["devices"]}, is_slow)


async def _read(pool: Pool, provider: Listed, integration_id: int, report: dict[str, Any]) -> None:
    """Store every page, and note what came of it."""
    counts = report["counts"]
    async for page in provider.inventory():
        found = [described(provider, one) for one in page]
        answer = await fetch_value(pool, _STORE, integration_id, Jsonb(found))
        counts["devices"] += len(page)
        for name in ("created", "updated", "left"):
            counts[name] += answer.get(name, 0)
        for name in ("errors", "notes"):
            counts[name] += len(answer.get(name, ()))
            report[name].extend(answer.get(name, ())[: MOST_ERRORS - len(report[name])])
