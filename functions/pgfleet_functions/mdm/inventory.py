"""Reading the devices of an MDM into the registry, page by page."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.mdm.calls import Call, CallFailed, FailureKind
from pgfleet_functions.mdm.catalogue import sync_profiles
from pgfleet_functions.mdm.lines import KEY_REFUSED, Lines, WrongSettings
from pgfleet_functions.mdm.work import Integration

log = logging.getLogger(__name__)

# A large account at one page a second; each page that is stored stays stored.
SYNC_SECONDS = 300.0

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_mdm_syncs(10) as c"
_STORE = "select fleet.worker_sync_inventory(%s, %s, %s)"
_LOG = "select fleet.worker_log_mdm_calls(%s)"


async def sync_inventories(pool: Pool, lines: Lines) -> Counter[str]:
    """Sync the integrations whose inventory is due; tell how many devices were seen."""
    counts: Counter[str] = Counter()
    try:
        for claim in await fetch_value(pool, _CLAIM):
            counts["devices"] += await _sync(pool, lines, claim)
    except FunctionError as error:
        log.warning("the inventory is left for later: %s", error.message)
    except Exception:
        # Commands do not wait for an inventory that cannot be read.
        log.exception("an inventory failed")
    return +counts


async def _sync(pool: Pool, lines: Lines, claim: dict[str, Any]) -> int:
    """Read one account; what fails is tried again when its lease has ended."""
    integration = Integration.from_claim(claim["integration_id"], claim)
    calls: list[Call] = []
    seen = 0
    try:
        provider = await lines.provider(integration, calls.append, seconds=SYNC_SECONDS)
        async for page in provider.inventory():
            seen += len(page)
            found = [asdict(one) for one in page]
            await fetch_value(pool, _STORE, integration.id, Jsonb(found), False)
        # Only a sync that came to its end counts as one.
        await fetch_value(pool, _STORE, integration.id, Jsonb([]), True)
        await sync_profiles(pool, provider, integration.id)
    except WrongSettings as error:
        await lines.pause(integration.id, str(error))
    except CallFailed as failure:
        log.warning("the inventory of integration %s: %s", integration.id, failure.message)
        if failure.kind is FailureKind.KEY and failure.reached:
            await lines.pause(integration.id, KEY_REFUSED.format(failure.status))
    finally:
        await fetch_value(pool, _LOG, Jsonb([call.row() for call in calls]))
    return seen
