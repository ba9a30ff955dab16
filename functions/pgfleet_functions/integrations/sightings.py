"""Asking an MDM about its devices: what every question has in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.integrations.calls import Call, CallFailed
from pgfleet_functions.integrations.connections import Lines, WrongSettings
from pgfleet_functions.mdm.provider import Provider, Sighting
from pgfleet_functions.mdm.work import Integration

_LOG = "select fleet.worker_log_mdm_calls(%s)"


class Unanswered(Exception):
    """The MDM could not be asked or gave no answer; the message is fit for people."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


@asynccontextmanager
async def asking(
    pool: Pool, lines: Lines, claim: Mapping[str, Any], *, seconds: float
) -> AsyncIterator[Provider]:
    """Give the provider of a claimed integration and log its calls when the block ends.

    Raises `Unanswered`; what no further question can succeed with pauses the integration.
    """
    integration_id = claim["integration_id"]
    calls: list[Call] = []
    try:
        integration = Integration.from_claim(integration_id, claim)
        yield await lines.provider(integration, calls.append, seconds=seconds)
    except (CallFailed, WrongSettings) as error:
        failure = await lines.failure(integration_id, error)
        raise Unanswered(failure.message, failure.retry_after) from error
    finally:
        if calls:
            await fetch_value(pool, _LOG, Jsonb([call.row() for call in calls]))


def described(provider: Provider, sighting: Sighting) -> dict[str, Any]:
    """Give a device as the database takes it, with what it can be asked to do."""
    known = asdict(provider.capabilities(sighting.attributes))
    found: dict[str, Any] = storable(asdict(sighting) | {"capabilities": known})
    return found


def storable(value: Any) -> Any:
    """Give a value as the database can keep it; what it cannot is left out of it."""
    if isinstance(value, str):
        # No zero bytes, and no halves of characters.
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, Mapping):
        return {str(storable(str(name))): storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [storable(one) for one in value]
    return value
