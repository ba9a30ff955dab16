"""Reading the devices of an MDM into the registry, page by page."""

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
from pgfleet_functions.mdm.asking import Unanswered, asking, described, storable
from pgfleet_functions.mdm.catalogue import sync_profiles

log = logging.getLogger(__name__)

# A large account at one page a second; each page that is stored stays stored.
SYNC_SECONDS = 300.0
# How many devices that are not fit are told by name.
MOST_ERRORS = 20

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_mdm_syncs(10) as c"
_STORE = "select fleet.worker_sync_inventory(%s, %s)"
_END = "select fleet.worker_end_mdm_sync(%s, %s, %s)"


async def sync_inventories(pool: Pool, lines: Lines) -> Counter[str]:
    """Sync the integrations whose inventory is due; tell how many devices were seen."""
    counts: Counter[str] = Counter()
    try:
        claims = await fetch_value(pool, _CLAIM)
        # Side by side: a large account does not hold up the others.
        for seen in await asyncio.gather(*(_sync(pool, lines, claim) for claim in claims)):
            counts["devices"] += seen
    except FunctionError as error:
        log.warning("the inventory is left for later: %s", error.message)
    return +counts


async def _sync(pool: Pool, lines: Lines, claim: Mapping[str, Any]) -> int:
    """Read one account and tell how that went; what failed is tried when its lease has ended."""
    counts: Counter[str] = Counter()
    report: dict[str, Any] = {"counts": counts, "errors": [], "error": None}
    integration_id = claim["integration_id"]
    try:
        await _read(pool, lines, claim, report)
    except Unanswered as error:
        log.warning("the inventory of integration %s: %s", integration_id, error.message)
        report["error"] = error.message
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
    return counts["devices"]


async def _read(pool: Pool, lines: Lines, claim: Mapping[str, Any], report: dict[str, Any]) -> None:
    """Store every page, and note what came of it."""
    counts, errors = report["counts"], report["errors"]
    async with asking(pool, lines, claim, seconds=SYNC_SECONDS) as provider:
        async for page in provider.inventory():
            found = [described(provider, one) for one in page]
            answer = await fetch_value(pool, _STORE, claim["integration_id"], Jsonb(found))
            counts["devices"] += len(page)
            for name in ("created", "updated", "left"):
                counts[name] += answer.get(name, 0)
            counts["errors"] += len(answer.get("errors", ()))
            errors.extend(answer.get("errors", ())[: MOST_ERRORS - len(errors)])
        await sync_profiles(pool, provider, claim["integration_id"])
