"""Uploading profiles to MDMs and deleting them there: each is in the account once, or not at all.

A POST whose answer got lost may have made the profile. So before one is made, the MDM's list is
searched for it, and what is found there gets the file instead.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.integrations.calls import Call, CallFailed, FailureKind
from pgfleet_functions.integrations.connections import Lines, WrongSettings
from pgfleet_functions.mdm.provider import ProfileFile, Provider
from pgfleet_functions.mdm.work import REASONS, Integration

log = logging.getLogger(__name__)

BUDGET_SECONDS = 20.0
# What an answer may take; no call is begun so late that it outlives the lease.
CALL_SECONDS = 35.0

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_profile_uploads(4) as c"
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


async def upload_profiles(pool: Pool, lines: Lines) -> Counter[str]:
    """Upload and delete what is due; tell how many attempts were made."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + BUDGET_SECONDS
    try:
        while time.monotonic() < end and (claims := await fetch_value(pool, _CLAIM)):
            counts["profiles"] += len(claims)
            await asyncio.gather(*(_handle(pool, lines, claim) for claim in claims))
    except FunctionError as error:
        log.warning("uploads are left for later: %s", error.message)
    except Exception as error:
        # Commands do not wait for profiles. Its words are not told: they may quote a file.
        log.error("uploads failed: %s", type(error).__name__)
    return +counts


async def _handle(pool: Pool, lines: Lines, claim: dict[str, Any]) -> None:
    calls: list[Call] = []
    try:
        ending = await _attempt(lines, claim, calls)
        await fetch_value(
            pool,
            _FINISH,
            claim["profile_id"],
            claim["attempt"],
            ending.outcome,
            ending.external_id,
            ending.error and ending.error.replace("\x00", ""),
            ending.reason,
            ending.retry_after,
            Jsonb([call.row() for call in calls]),
        )
    except FunctionError as error:
        # The database is away: the lease ends, and what was made is found by its name.
        log.warning("profile %s is left to its lease: %s", claim["profile_id"], error.message)


async def _attempt(lines: Lines, claim: dict[str, Any], calls: list[Call]) -> Ending:
    integration = Integration.from_claim(claim["integration_id"], claim)
    try:
        seconds = float(claim["lease_seconds"]) - CALL_SECONDS
        provider = await lines.provider(integration, calls.append, seconds=seconds)
        if claim["action"] == "delete":
            await _delete(provider, claim["external_id"])
            return Ending("deleted")
        return Ending("uploaded", await _upload(provider, claim))
    except (CallFailed, WrongSettings) as error:
        return _failed(await lines.failure(integration.id, error))
    except FunctionError:
        raise
    except Exception as error:
        # One that trips us up must not stop the others.
        log.error("profile %s failed: %s", claim["profile_id"], type(error).__name__)
        text = f"the function failed: {type(error).__name__}"
        return Ending("failed", error=text, reason="error")


async def _upload(provider: Provider, claim: dict[str, Any]) -> str:
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
    )
