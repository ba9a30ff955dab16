"""What the console is told: its database, who may come in, and under which names it is known."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


class ConsoleSettingsError(Exception):
    """A setting is missing or has a value that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where the accounts of a project are, and what verifies its tokens."""

    jwt_secret: str | None = field(default=None, repr=False)
    jwks_url: str | None = None
    # Signing in needs both; without them a proxy has to bring the token.
    project_url: str | None = None
    anon_key: str | None = None


@dataclass(frozen=True, slots=True)
class Tiles:
    """Where the pictures under the map come from; the browser of whoever looks asks there."""

    template: str
    # Whom the map is by, which most servers of tiles want to see written.
    credit: str

    @property
    def source(self) -> str:
        """Give the one address that pages may load pictures from."""
        parts = urlsplit(self.template)
        return f"{parts.scheme}://{parts.netloc}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Tiles | None:
        """Read them from the environment; without them the map has a plain grid."""
        env = os.environ if environ is None else environ
        template = env.get("PGFLEET_CONSOLE_TILES", "")
        if not template:
            return None
        # What is told to browsers as the source has no room for anything but a host.
        if not _TILES.fullmatch(template) or not all(p in template for p in ("{z}", "{x}", "{y}")):
            raise ConsoleSettingsError(
                "PGFLEET_CONSOLE_TILES is no address such as https://tiles.example/{z}/{x}/{y}.png"
            )
        return cls(template, env.get("PGFLEET_CONSOLE_TILES_BY", ""))


_TILES = re.compile(r"https?://[\w.:-]+/(?:[\w./?&=@~%+-]|\{[zxy]\})*")


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """All that the console needs; with accounts it is a service, without them one person's."""

    database_url: str = field(repr=False)
    # What the Host header of a request may say; "*" is for tests and trusted proxies.
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    # Who looks on a laptop, by address or id; nobody is whoever the database lets in.
    acting_as: str | None = None
    accounts: Accounts | None = None
    # Whether the browser comes by https, so that cookies never go without.
    secure: bool = False
    tiles: Tiles | None = None

    @classmethod
    def of_service(cls, environ: Mapping[str, str] | None = None) -> ConsoleSettings:
        """Read the settings of a service from the environment, or raise."""
        env = os.environ if environ is None else environ
        url = env.get("PGFLEET_CONSOLE_DATABASE_URL", "")
        if not url:
            raise ConsoleSettingsError("PGFLEET_CONSOLE_DATABASE_URL is not set")
        project = (env.get("SUPABASE_URL") or "").rstrip("/") or None
        accounts = Accounts(
            jwt_secret=env.get("PGFLEET_JWT_SECRET") or env.get("SUPABASE_JWT_SECRET") or None,
            jwks_url=env.get("PGFLEET_JWKS_URL") or _jwks_of(project),
            project_url=project,
            anon_key=env.get("SUPABASE_ANON_KEY") or None,
        )
        if accounts.jwt_secret is None and accounts.jwks_url is None:
            raise ConsoleSettingsError(
                "neither SUPABASE_JWT_SECRET nor SUPABASE_URL is set: "
                "nothing tells a good token from a bad one"
            )
        named = [name.strip() for name in env.get("PGFLEET_CONSOLE_HOSTS", "").split(",")]
        hosts = tuple(name for name in named if name)
        if not hosts:
            raise ConsoleSettingsError(
                "PGFLEET_CONSOLE_HOSTS is not set: the names under which browsers know the console"
            )
        return cls(
            database_url=url,
            hosts=hosts,
            accounts=accounts,
            tiles=Tiles.from_environment(env),
            secure=(env.get("PGFLEET_CONSOLE_INSECURE") or "off") not in ("on", "true", "1"),
        )


def _jwks_of(project: str | None) -> str | None:
    return f"{project}/auth/v1/.well-known/jwks.json" if project else None
