"""Trade a one-time code for an identity, and the identity for short-lived tokens."""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from pgfleet import __version__
from pgfleet.agent import credentials, state
from pgfleet.agent.backoff import Backoff
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.health import health
from pgfleet.agent.http import is_transient, not_ours, post_json
from pgfleet.agent.settings import AgentSettings
from pgfleet.agent.zone import zone_name
from pgfleet.errors import FleetError, NotSignedIn

logger = logging.getLogger(__name__)

# Which running agent asks: two that ask in turn for tokens of one device are two machines, as no
# restart brings an earlier one back.
INSTANCE = secrets.token_hex(16)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Token:
    """Hold a device token and when it was received, by both clocks."""

    value: str
    lifetime: float
    received: float
    received_wall: float

    @property
    def age(self) -> float:
        """Give the seconds since it was received; the greater of two clocks.

        The monotonic clock may stand still while a laptop sleeps, and the wall clock may be
        set back; a token taken for too old only costs a request.
        """
        return max(time.monotonic() - self.received, time.time() - self.received_wall)

    @property
    def remaining(self) -> float:
        """Give the seconds until the server refuses it."""
        return self.lifetime - self.age


def facts() -> dict[str, Any]:
    """Describe this device in the way check-in and enrolment want it."""
    found: dict[str, Any] = {
        "platform": _platform_name(),
        "agent_version": __version__,
        "attributes": {
            "os": platform.system(),
            "os_release": platform.release(),
            "machine": platform.machine(),
            "health": health(),
        },
    }
    zone = zone_name()
    if zone is not None:
        found["timezone"] = zone
    return found


async def enroll(settings: AgentSettings, http: httpx.AsyncClient) -> Credentials:
    """Trade the enrolment code for credentials and store them in the state folder.

    Retries while no server answers; a refusal of the code is raised at once.
    """
    if settings.code is None:
        raise NotSignedIn(
            f"this device is not enrolled: there are no credentials in {settings.state_dir}",
            reason="not_enrolled",
            hint="Ask for a code (pgfleet device enroll-code) and pass it with --code "
            "or PGFLEET_ENROLLMENT_CODE.",
        )
    described = facts()
    body = {
        "code": settings.code,
        "hostname": settings.hostname,
        "platform": described["platform"],
        "attributes": described["attributes"],
        # Known to nobody else: where an answer gets lost, it makes the next try the same enrolment.
        "enrollment_key": secrets.token_hex(32),
    }
    if "timezone" in described:
        body["timezone"] = described["timezone"]
    url = f"{settings.functions_url}/enroll-device"

    async def ask() -> Credentials:
        answer = await post_json(http, url, body, anon_key=settings.anon_key)
        return _credentials(answer, settings, url)

    found = await keep_trying(ask, settings, "enrolment")
    state.prepare(settings.state_dir)
    credentials.save(settings.state_dir, found)
    logger.info("enrolled as device %s (%s)", found.device_id, found.hostname)
    return found


def _credentials(answer: dict[str, Any], settings: AgentSettings, url: str) -> Credentials:
    try:
        return Credentials(
            device_id=int(answer["device_id"]),
            auth_id=str(answer["auth_id"]),
            hostname=str(answer["hostname"]),
            topic=str(answer["topic"]),
            device_secret=str(answer["device_secret"]),
            url=settings.url,
            functions_url=settings.functions_url,
            anon_key=settings.anon_key,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(url, None, f"it lacks {error}") from error


async def fetch_token(
    found: Credentials, settings: AgentSettings, http: httpx.AsyncClient
) -> tuple[Token, str]:
    """Trade the device secret for a token once; give it with the device's present topic."""
    received, received_wall = time.monotonic(), time.time()
    url = f"{settings.functions_url}/device-token"
    body = {"device_secret": found.device_secret, "instance": INSTANCE}
    answer = await post_json(http, url, body, anon_key=settings.anon_key)
    try:
        token = Token(
            str(answer["access_token"]), float(answer["expires_in"]), received, received_wall
        )
        if not token.lifetime > 0:
            raise ValueError("expires_in")
    except (KeyError, TypeError, ValueError) as error:
        raise not_ours(url, None, f"it lacks {error}") from error
    if answer.get("clone_seen_at"):
        logger.warning(
            "another machine works with this device's secret (since %s), as a copied disk does; "
            "have one of them re-keyed: pgfleet device rekey %s",
            answer["clone_seen_at"],
            found.hostname,
        )
    return token, str(answer.get("topic") or found.topic)


async def keep_trying(ask: Callable[[], Awaitable[T]], settings: AgentSettings, what: str) -> T:
    """Repeat a request until it is answered, for better or worse."""
    backoff = Backoff(settings.timing.retry, settings.timing.retry_limit)
    while True:
        try:
            return await ask()
        except FleetError as error:
            if not is_transient(error):
                raise
            delay = backoff.next_delay()
            logger.warning("%s: %s; trying again in %.1f s", what, error.message, delay)
            await asyncio.sleep(delay)


def _platform_name() -> str:
    if sys.platform == "darwin":
        return "macos"
    return "windows" if sys.platform == "win32" else "linux"
