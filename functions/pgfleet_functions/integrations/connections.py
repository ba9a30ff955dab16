"""The ways to the other systems: one for each integration, checked before it is used."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.integrations.calls import Api, Call, CallFailed, Connection, FailureKind
from pgfleet_functions.integrations.rate import RateGate
from pgfleet_functions.outgoing.transport import Outgoing

KEY_REFUSED = "{} refuses the API key ({}): replace the secret of the integration"
NO_KEY = "the integration has no API key: set its secret"
REPLACED = "the secret of the integration was replaced meanwhile"

# Calls of one piece of work that are written down together.
MOST_KEPT = 100

_PAUSE = "select fleet.worker_pause_integration(%s, %s, %s)"
_BEGIN = "select fleet.worker_begin_mdm_call(%s)"
_LOG = "select fleet.worker_log_mdm_calls(%s)"

P = TypeVar("P")


class WrongSettings(Exception):
    """No call can be made with these settings; the message names the one that is wrong."""


class Unanswered(Exception):
    """The other system could not be asked or gave no answer; the message is fit for people."""

    def __init__(self, failure: CallFailed) -> None:
        super().__init__(failure.message)
        self.message = failure.message
        self.retry_after = failure.retry_after
        self.is_slow = failure.is_slow


@dataclass(frozen=True, slots=True)
class Integration:
    """One connection to another system, as a claim tells about it."""

    id: int
    owner_id: str
    kind: str
    settings: Mapping[str, Any]
    secret: str | None = field(repr=False)

    @classmethod
    def from_claim(cls, id: int, claim: Mapping[str, Any]) -> Integration:
        """Read what a claim tells about it."""
        return cls(
            id,
            claim["owner_id"],
            claim["integration_type"],
            claim["settings"] or {},
            claim["secret"],
        )


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """How a provider is made, where it is by default, and the user name its key goes with."""

    make: Callable[[Api, Mapping[str, Any]], P]
    base_url: str | None = None
    user: str | None = None
    # The header that takes the key as it is.
    key_header: str | None = None


class Connections(Generic[P]):
    """Makes providers for integrations of the kinds that it knows."""

    def __init__(
        self,
        pool: Pool,
        outgoing: Outgoing,
        kinds: Mapping[str, Kind[P]],
        *,
        allow_private: bool,
        called: str = "the MDM",
    ) -> None:
        # What people read of these systems in messages.
        self._called = called
        self._pool = pool
        self._outgoing = outgoing
        self._kinds = kinds
        self._allow_private = allow_private

    async def provider(
        self,
        integration: Integration,
        record: Callable[[Call], None],
        *,
        seconds: float,
        prepaid: int = 0,
        is_look: bool = False,
        command: tuple[int | None, int | None] = (None, None),
        begin: Callable[[Call], Awaitable[int]] | None = None,
    ) -> P:
        """Make a provider whose calls begin within so many seconds, or not at all.

        Leave was taken already for the first `prepaid` of them; calls that look at devices have
        their share of the rate. Raises `WrongSettings`.
        """
        kind = self._kinds.get(integration.kind)
        if kind is None:
            raise WrongSettings(f"there is no provider for integrations of type {integration.kind}")
        if not integration.secret:
            raise WrongSettings(NO_KEY)
        gate = RateGate(
            self._pool, integration.id, seconds=seconds, prepaid=prepaid, is_look=is_look
        )
        connection = Connection(
            integration_id=integration.id,
            base_url=_checked_url(integration.settings.get("base_url") or kind.base_url),
            secret=integration.secret,
            user=kind.user and str(integration.settings.get("user") or kind.user),
            outgoing=self._outgoing,
            allow_private=self._allow_private,
            enter=gate.enter,
            begin=begin or self._begin,
            record=record,
            slow_down=gate.slow_down,
            key_header=kind.key_header,
            called=self._called,
        )
        return kind.make(Api(connection, *command), integration.settings)

    @asynccontextmanager
    async def claimed(self, claim: Mapping[str, Any], *, seconds: float) -> AsyncIterator[P]:
        """Give the provider of a claimed integration, and log its calls when the block ends.

        Raises `Unanswered`; what no further call can succeed with pauses the integration.
        """
        integration = Integration.from_claim(claim["integration_id"], claim)
        calls: list[Call] = []

        async def begin(call: Call) -> int:
            # A pull may make ten thousands of calls.
            if len(calls) >= MOST_KEPT:
                await self._log(calls)
            return await self._begin(call)

        try:
            yield await self.provider(integration, calls.append, seconds=seconds, begin=begin)
        except (CallFailed, WrongSettings) as error:
            raise Unanswered(await self.failure(integration, error)) from error
        finally:
            if calls:
                await self._log(calls)

    async def failure(
        self, integration: Integration, error: CallFailed | WrongSettings
    ) -> CallFailed:
        """Pause an integration that cannot go on like this, and give the failure of the call.

        What was refused with a secret that has been replaced meanwhile is simply tried again.
        """
        if isinstance(error, WrongSettings):
            reason = str(error)
            error = CallFailed(FailureKind.KEY, reason)
        elif error.kind is FailureKind.KEY and error.reached:
            reason = KEY_REFUSED.format(self._called, error.status)
        else:
            return error
        if await self._pause(integration, reason):
            return error
        return CallFailed(FailureKind.NETWORK, REPLACED, reached=False)

    async def _begin(self, call: Call) -> int:
        return int(await fetch_value(self._pool, _BEGIN, Jsonb(call.row())))

    async def _log(self, calls: list[Call]) -> None:
        """Write down what became of calls, and forget them."""
        rows = [call.row() for call in calls]
        calls.clear()
        await fetch_value(self._pool, _LOG, Jsonb(rows))

    async def _pause(self, integration: Integration, reason: str) -> bool:
        """Stop an integration until a person or a new secret lets it go on.

        False where it has another secret by now, and goes on with that.
        """
        used = integration.secret and hashlib.sha256(integration.secret.encode()).digest()
        return bool(await fetch_value(self._pool, _PAUSE, integration.id, reason, used or None))


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
