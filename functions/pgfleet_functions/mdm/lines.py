"""The ways to the MDMs that are in use at the moment, one for each integration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.mdm.calls import Api, Call, Line
from pgfleet_functions.mdm.provider import Provider
from pgfleet_functions.mdm.providers import PROVIDERS
from pgfleet_functions.mdm.ratelimit import RateGate
from pgfleet_functions.mdm.transport import make_client

KEY_REFUSED = "the MDM refuses the API key ({}): replace the secret of the integration"
NO_KEY = "the integration has no API key: set its secret"

_PAUSE = "select fleet.worker_pause_integration(%s, %s)"


class WrongSettings(Exception):
    """No call can be made with these settings; the message names the one that is wrong."""


class Lines:
    """Clients and rates for one run of the function, closed at its end."""

    def __init__(self, pool: Pool, stack: AsyncExitStack, *, allow_private: bool) -> None:
        self._pool = pool
        self._stack = stack
        self._allow_private = allow_private
        self._clients: dict[int, httpx.AsyncClient] = {}
        self._gates: dict[int, RateGate] = {}
        self._paused: set[int] = set()

    async def provider(
        self,
        kind: str,
        integration_id: int,
        settings: Mapping[str, Any],
        secret: str,
        record: Callable[[Call], None],
        *,
        seconds: float,
        urgent: bool = False,
        command: tuple[int | None, int | None] = (None, None),
    ) -> Provider:
        """Make a provider whose calls begin within so many seconds, or not at all.

        Raises `WrongSettings`.
        """
        made = PROVIDERS[kind]
        base_url = _checked_url(settings.get("base_url") or made.base_url)
        if integration_id not in self._clients:
            self._clients[integration_id] = await self._stack.enter_async_context(
                make_client(allow_private=self._allow_private)
            )
            self._gates[integration_id] = RateGate(self._pool, integration_id)
        gate = self._gates[integration_id]
        deadline = time.monotonic() + seconds

        async def enter() -> None:
            await gate.enter(deadline, urgent=urgent)

        line = Line(
            integration_id=integration_id,
            base_url=base_url,
            secret=secret,
            user=made.user and str(settings.get("user") or made.user),
            client=self._clients[integration_id],
            enter=enter,
            record=record,
            slow_down=gate.slow_down,
        )
        return made.make(Api(line, *command), settings)

    async def pause(self, integration_id: int, reason: str) -> None:
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
