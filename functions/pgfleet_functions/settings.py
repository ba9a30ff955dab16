"""What the functions are told: their database login, the keys of tokens, the mail server."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgfleet_functions.outgoing.mail import MailServer, SmtpUrlError

LONGEST_TTL_SECONDS = 7 * 86_400


class SettingsError(Exception):
    """A setting is missing or has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """All that the functions need; either a secret or a private key signs the tokens."""

    database_url: str = field(repr=False)
    jwt_secret: str | None = field(default=None, repr=False)
    jwt_private_key: str | None = field(default=None, repr=False)
    jwt_key_id: str | None = None
    service_role_key: str | None = field(default=None, repr=False)
    token_ttl_seconds: int = 3600
    issuer: str = "pgfleet"
    # Where the public keys of the project are, which verify the tokens of people.
    jwks_url: str | None = None
    mail_server: MailServer | None = None
    # Whether an integration may name an address that is not open to everybody, or no https.
    allow_private_addresses: bool = False
    # Where telemetry is, if it is not in the same database.
    telemetry_url: str | None = field(default=None, repr=False)
    # A replica that answers what only reads: lists of tasks and calendar feeds.
    read_database_url: str | None = field(default=None, repr=False)
    # Addresses and networks whose X-Forwarded-For tells where a call comes from.
    trusted_proxies: tuple[str, ...] = ()
    # What a monitoring system shows to read the figures; the service key is good for it as well.
    metrics_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse settings with which no token could be signed."""
        if not self.database_url:
            raise SettingsError("PGFLEET_FUNCTIONS_DATABASE_URL is not set")
        if not self.jwt_secret and not self.jwt_private_key:
            raise SettingsError(
                "SUPABASE_JWT_SECRET is not set (or PGFLEET_JWT_PRIVATE_KEY, "
                "for a project with asymmetric signing keys)"
            )
        if not 1 <= self.token_ttl_seconds <= LONGEST_TTL_SECONDS:
            raise SettingsError(
                f"PGFLEET_TOKEN_TTL_SECONDS is {self.token_ttl_seconds}, "
                f"it must be 1 to {LONGEST_TTL_SECONDS}"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> FunctionSettings:
        """Read the settings from environment variables, or raise `SettingsError`."""
        env = os.environ if environ is None else environ
        return cls(
            database_url=env.get("PGFLEET_FUNCTIONS_DATABASE_URL", ""),
            jwt_secret=env.get("PGFLEET_JWT_SECRET") or env.get("SUPABASE_JWT_SECRET") or None,
            jwt_private_key=_key_text(env.get("PGFLEET_JWT_PRIVATE_KEY")),
            jwt_key_id=env.get("PGFLEET_JWT_KEY_ID") or None,
            service_role_key=env.get("SUPABASE_SERVICE_ROLE_KEY") or None,
            token_ttl_seconds=_seconds(env.get("PGFLEET_TOKEN_TTL_SECONDS") or "3600"),
            issuer=env.get("PGFLEET_JWT_ISSUER") or "pgfleet",
            jwks_url=env.get("PGFLEET_JWKS_URL") or _jwks_of(env.get("SUPABASE_URL")),
            mail_server=_mail_server(env.get("PGFLEET_SMTP_URL"), env.get("PGFLEET_SMTP_FROM")),
            allow_private_addresses=_switch(env, "PGFLEET_ALLOW_PRIVATE_ADDRESSES"),
            telemetry_url=env.get("PGFLEET_TELEMETRY_URL") or None,
            read_database_url=env.get("PGFLEET_FUNCTIONS_READ_DATABASE_URL") or None,
            trusted_proxies=_networks(env, "PGFLEET_TRUSTED_PROXIES"),
            metrics_token=env.get("PGFLEET_METRICS_TOKEN") or None,
        )


def _key_text(given: str | None) -> str | None:
    """Take a private key itself (PEM or JWK) or the path of a file that holds one."""
    if not given:
        return None
    if given.lstrip().startswith(("-----BEGIN", "{")):
        return given
    try:
        return Path(given).expanduser().read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SettingsError(f"PGFLEET_JWT_PRIVATE_KEY: cannot read the file: {reason}") from error


def _jwks_of(project_url: str | None) -> str | None:
    return f"{project_url.rstrip('/')}/auth/v1/.well-known/jwks.json" if project_url else None


def _mail_server(url: str | None, sender: str | None) -> MailServer | None:
    if not url:
        return None
    try:
        return MailServer.from_url(url, sender)
    except SmtpUrlError as error:
        raise SettingsError(f"PGFLEET_SMTP_URL and PGFLEET_SMTP_FROM: {error}") from error


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").lower()
    if text not in ("", "on", "true", "1", "off", "false", "0"):
        raise SettingsError(f"{name} is {text!r}, it can be 'on' or 'off'")
    return text in ("on", "true", "1")


def _networks(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    parts = [part.strip() for part in env.get(name, "").split(",")]
    try:
        networks = [ipaddress.ip_network(part) for part in parts if part]
    except ValueError as error:
        raise SettingsError(
            f"{name}: {error}; write addresses or networks such as '10.0.0.5, 10.1.0.0/16'"
        ) from error
    # One of everybody would believe whatever a caller says of itself.
    if any(network.prefixlen == 0 for network in networks):
        raise SettingsError(f"{name} must name the proxies, not every address there is")
    return tuple(str(network) for network in networks)


def _seconds(text: str) -> int:
    if not text.isdecimal():
        raise SettingsError(f"PGFLEET_TOKEN_TTL_SECONDS is {text!r}, it must be a whole number")
    return int(text)
