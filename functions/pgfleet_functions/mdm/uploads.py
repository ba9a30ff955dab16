"""Uploading profiles to MDMs and deleting them there: each is in the account once, or not at all.

A POST whose answer got lost may have made the profile. So before one is made, the MDM's list is
searched for it, and what is found there gets the file instead.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value, storable
from pgfleet_functions.dispatching import Claim, Ended, Piece
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.calls import Call, CallFailed, FailureKind
from pgfleet_functions.integrations.connections import Connections, Integration, WrongSettings
from pgfleet_functions.mdm.provider import ProfileFile, Provider
from pgfleet_functions.mdm.work import REASONS

log = logging.getLogger(__name__)

# What an answer may take; no call is begun so late that it outlives the lease.
CALL_SECONDS = 35.0

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_profile_uploads(%s) as c"
# In one transaction: whoever sees the end of an attempt also sees its calls.
_FINISH = """
select fleet.worker_finish_profile_upload(
  %s, %s, %s, %s, %s, %s, make_interval(secs => %s::double precision)
)
from (select fleet.worker_log_mdm_calls(%s) offset 0) as logged
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends in the database: uploaded, deleted or failed."""

    outcome: str
    external_id: str | None = None
    error: str | None = None
    reason: str | None = None
    retry_after: float | None = None
    is_slow: bool = False


async def claim_uploads(
    pool: Pool, connections: Connections[Provider], shares: Mapping[str, Any]
) -> Claim:
    """Claim the profiles that are to be uploaded or deleted."""
    claims = await fetch_value(pool, _CLAIM, Jsonb(shares))
    pieces = [
        Piece(one["owner_id"], one["integration_id"], partial(_handle, pool, connections, one))
        for one in claims
    ]
    return Claim(pieces, wait=0 if pieces else None)


async def _handle(
    pool: Pool, connections: Connections[Provider], claim: Mapping[str, Any]
) -> Ended:
    """Make one attempt and write down how it ended."""
    calls: list[Call] = []
    try:
        ending = await _attempt(connections, claim, calls)
        await fetch_value(
            pool,
            _FINISH,
            claim["profile_id"],
            claim["attempt"],
            ending.outcome,
            ending.external_id,
            storable(ending.error),
            ending.reason,
            ending.retry_after,
            Jsonb([call.row() for call in calls]),
        )
    except FunctionError as error:
        # The database is away: the lease ends, and what was made is found by its name.
        log.warning("profile %s is left to its lease: %s", claim["profile_id"], error.message)
        return Ended({"profiles": 1})
    return Ended({"profiles": 1}, ending.is_slow)


async def _attempt(
    connections: Connections[Provider], claim: Mapping[str, Any], calls: list[Call]
) -> Ending:
    integration = Integration.from_claim(claim["integration_id"], claim)
    try:
        seconds = float(claim["lease_seconds"]) - CALL_SECONDS
        provider = await connections.provider(integration, calls.append, seconds=seconds)
        if claim["action"] == "delete":
            await _delete(provider, claim["external_id"])
            return Ending("deleted")
        return Ending("uploaded", await _upload(provider, claim))
    except (CallFailed, WrongSettings) as error:
        return _failed(await connections.failure(integration, error))
    except FunctionError:
        raise
    except Exception as error:
        # One that trips us up must not stop the others. Its words are not told: they may quote a
        # file.
        log.error("profile %s failed: %s", claim["profile_id"], type(error).__name__)
        text = f"the function failed: {type(error).__name__}"
        return Ending("failed", error=text, reason="error")


async def _upload(provider: Provider, claim: Mapping[str, Any]) -> str:
    """Replace the file of the profile, or make it where the MDM does not have it."""
    content = base64.b64decode(claim["content"])
    file = ProfileFile(claim["name"], content, claim["options"] or {})
    if claim["external_id"]:
        try:
            return await provider.upload_profile(file, claim["external_id"])
        except CallFailed as failure:
            if failure.status != 404:
                raise
    return await provider.upload_profile(file, await _namesake(provider, file.name, claim["taken"]))


async def _namesake(provider: Provider, name: str, taken: list[str]) -> str | None:
    """Find the custom profile of this name: made by an attempt whose answer got lost, or by hand.

    `taken` are those that are known here under other names.
    """
    found = [
        known.external_id
        async for page in provider.profiles()
        for known in page
        if known.is_custom and known.name == name and known.external_id not in taken
    ]
    if len(found) > 1:
        text = f'the MDM has {len(found)} profiles named "{name}": rename all but one there'
        raise CallFailed(FailureKind.REFUSED, text)
    return found[0] if found else None


async def _delete(provider: Provider, external_id: str | None) -> None:
    """Delete the profile, if the MDM has it."""
    if external_id is None:
        return
    try:
        await provider.delete_profile(external_id)
    except CallFailed as failure:
        if failure.status != 404:
            raise


def _failed(failure: CallFailed) -> Ending:
    return Ending(
        "failed",
        error=failure.message,
        reason=REASONS[failure.kind],
        retry_after=failure.retry_after,
        is_slow=failure.is_slow,
    )
