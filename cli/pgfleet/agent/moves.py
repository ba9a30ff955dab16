"""Following a fleet to another platform, when its server says so and proves that it is the one."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from pgfleet.agent.credentials import Credentials
from pgfleet.agent.http import Moved
from pgfleet.agent.settings import AgentSettings
from pgfleet.errors import Unavailable

# From platform to platform without an answer in between: more is a circle.
MOST_HOPS = 5


def followed(found: Credentials, moved: Moved) -> Credentials:
    """Give the credentials with the new place of the server, if the answer is signed.

    Only the server and the device know the hash of the secret; whoever stands between them does
    not. Raises Unavailable where the signature is not theirs.
    """
    place = moved.place
    named = [str(place.get(key, "")) for key in ("device_id", "url", "functions_url", "anon_key")]
    said = "\n".join(["pgfleet moved", *named])
    key = hashlib.sha256(found.device_secret.encode()).digest()
    wanted = hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
    device_id, url, functions_url, anon_key = named
    if not hmac.compare_digest(wanted, moved.signature) or device_id != str(found.device_id):
        raise Unavailable(
            f"somebody says that this device's fleet was moved to {url}, and cannot prove it",
            reason="move_not_proven",
            hint="Check --url, and whether something stands between this device and its server.",
        )
    return replace(
        found,
        url=url,
        functions_url=functions_url,
        anon_key=anon_key,
        left=(*(one for one in found.left if one != url), found.url),
    )


def settings_of(found: Credentials, settings: AgentSettings) -> AgentSettings:
    """Give the settings with the place where the device's fleet is now, if it has left theirs."""
    if settings.url not in found.left:
        return settings
    return replace(
        settings, url=found.url, functions_url=found.functions_url, anon_key=found.anon_key
    )
