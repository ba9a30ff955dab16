"""Reading which profiles an MDM has, so that people can name them."""

from __future__ import annotations

import logging
from dataclasses import asdict

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, storable
from pgfleet_functions.integrations.calls import CallFailed
from pgfleet_functions.mdm.provider import KnownProfile, Provider

log = logging.getLogger(__name__)

_BEGIN = "select clock_timestamp()"
_STORE = "select fleet.worker_sync_profiles(%s, %s, %s)"


async def sync_profiles(pool: Pool, provider: Provider, integration_id: int) -> None:
    """Take over the whole list, or leave the one that is known.

    It is stored at once: only of a whole list it can be said what is missing in it.
    """
    began = await fetch_value(pool, _BEGIN)
    found: list[KnownProfile] = []
    try:
        async for page in provider.profiles():
            found += page
    except CallFailed as failure:
        # Devices are more important, and a key may be allowed to read just these.
        log.warning("the profiles of integration %s: %s", integration_id, failure.message)
        return
    rows = storable([asdict(one) for one in found])
    await fetch_value(pool, _STORE, integration_id, Jsonb(rows), began)
