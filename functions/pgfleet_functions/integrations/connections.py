"""The ways to the MDMs that are in use at the moment, one for each integration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.integrations.calls import Api, Call, CallFailed, Connection, FailureKind
from pgfleet_functions.integrations.rate import RateGate
from pgfleet_functions.mdm.provider import Provider
from pgfleet_functions.mdm.providers import PROVIDERS
from pgfleet_functions.mdm.work import Integration
from pgfleet_functions.outgoing.transport import Outgoing

KEY_REFUSED = "the MDM refuses the API key ({}): replace the secret of the integration"
NO_KEY = "the integration has no API key: set its secret"

_PAUSE = "select fleet.worker_pause_integration(%s, %s)"
_BEGIN = "select fleet.worker_begin_mdm_call(%s)"


class WrongSettings(Exception):
    """No call can be made with these settings; the message names the one that is wrong."""


class Lines:
    """The ways to the MDMs that are in use at the moment."""

    def __init__(self, pool: Pool, outgoing: Outgoing, *, allow_private: bool) -> None:
        self._pool = pool
        self._outgoing = outgoing
        self._allow_private = allow_private
        self._paused: set[int] = set()

    async def provider(
        self,
        integration: Integration,
        record: Callable[[Call], None],
        *,
        seconds: float,
        prepaid: int = 0,
        is_look: bool = False,
        command: tuple[int | None, int | None] = (None, None),
    ) -> Provider:
        """Make a provider whose calls begin within so many seconds, or not at all.

        Leave was taken already for the first `prepaid` of them; calls that look at devices have
        their share of the rate. Raises `WrongSettings`.
        """
        made = PROVIDERS.get(integration.kind)
        if made is None:
            raise WrongSettings(f"there is no provider for integrations of type {integration.kind}")
        if not integration.secret:
            raise WrongSettings(NO_KEY)
        base_url = _checked_url(integration.settings.get("base_url") or made.base_url)
        gate = RateGate(
            self._pool, integration.id, seconds=seconds, prepaid=prepaid, is_look=is_look
        )
        connection = Connection(
            integration_id=integration.id,
            base_url=base_url,
            secret=integration.secret,
            user=made.user and str(integration.settings.get("user") or made.user),
            outgoing=self._outgoing,
            allow_private=self._allow_private,
            enter=gate.enter,
            begin=self._begin,
            record=record,
            slow_down=gate.slow_down,
        )
        return made.make(Api(connection, *command), integration.settings)

    async def _begin(self, call: Call) -> int:
        return int(await fetch_value(self._pool, _BEGIN, Jsonb(call.row())))

    async def failure(self, integration_id: int, error: CallFailed | WrongSettings) -> CallFailed:
        """Pause an integration that cannot go on like this, and give the failure of the call."""
        if isinstance(error, WrongSettings):
            await self._pause(integration_id, str(error))
            return CallFailed(FailureKind.KEY, str(error))
        if error.kind is FailureKind.KEY and error.reached:
            await self._pause(integration_id, KEY_REFUSED.format(error.status))
        return error

    async def _pause(self, integration_id: int, reason: str) -> None:
        """Stop an integration, once, until a person or a new secret lets it go on."""
        if integration_id not in self._paused:
            self._paused.add(integration_id)
            await fetch_value(self._pool, _PAUSE, integration_id, reason)


def _checked_url(given: Any) -> str:
    try:
        url = httpx.URL(given) if isinstance(given, str) else None
    except httpx.InvalidURL:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.host:
        raise WrongSettings("settings.base_url must be an https:// address")
    if url.userinfo:
        raise WrongSettings("settings.base_url must hold no credentials: set the secret instead")
    return str(url)
