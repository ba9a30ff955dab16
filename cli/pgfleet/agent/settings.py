"""What an agent is told when it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pgfleet.errors import InvalidInput

DEFAULT_POLL_SECONDS = 300.0
MAX_OUTPUT_BYTES = 64 * 1024


def default_state_dir() -> Path:
    """Choose where a device keeps its secret and its journal on this platform."""
    if sys.platform == "win32":
        return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "pgfleet"
    if os.geteuid() == 0:
        return Path("/var/lib/pgfleet-agent")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pgfleet-agent"
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "pgfleet-agent"


def simulation_state_dir() -> Path:
    """Choose where simulated devices keep theirs: with the local platform that they belong to.

    `pgfleet stack env` names its folder; elsewhere it is the folder of a device.
    """
    platform = os.environ.get("PGFLEET_LOCAL_DATA_DIR")
    return Path(platform).expanduser().absolute() / "agents" if platform else default_state_dir()


@dataclass(frozen=True, slots=True)
class Timing:
    """Hold every interval of an agent, in seconds; tests shorten them."""

    # None: what the server asks for at check-in, else DEFAULT_POLL_SECONDS.
    poll: float | None = None
    # Longer than check-ins are apart: each is a look as well.
    poll_limit: float = 5400.0
    # With a token an hour that makes less than sixty requests a day, with some to spare.
    checkin: float = 3900.0
    # How often to look whether the device is in another time zone.
    zone: float = 30.0
    reconnect: float = 5.0
    reconnect_limit: float = 300.0
    # A session that lasted this long starts the next backoff from the beginning.
    stable: float = 60.0
    probe: float = 60.0
    # Must stay below `join`: the client reports its own timeout as an answer.
    probe_timeout: float = 8.0
    # A project that was asleep needs its time to answer the first join.
    join: int = 20
    ready: float = 20.0
    retry: float = 1.0
    retry_limit: float = 60.0
    request: float = 30.0
    # Tell the server at most this often how far a command is.
    progress: float = 2.0
    stop: float = 20.0
    # How often to look where the device is, and how long its program may take to tell.
    location: float = 300.0
    locate: float = 60.0
    # How often to ask for geo actions without a ring: with some at hand, and with none.
    geo: float = 3600.0
    geo_idle: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """Hold what deployments may do on this device: nothing, unless its operator says more."""

    # {"C:": folder} for drives of payloads, {"/etc/app": folder} for folders.
    roots: Mapping[str, Path] = field(default_factory=dict)
    allow_install: bool = False
    bytes_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Hold what one device needs to know to find its server and do its work."""

    url: str
    anon_key: str
    state_dir: Path
    hostname: str
    functions_url: str = ""
    code: str | None = None
    allow_run_command: bool = False
    # Variables that run_command may set.
    environment_allowed: frozenset[str] = frozenset()
    deploy: DeploySettings = field(default_factory=DeploySettings)
    handlers_dir: Path | None = None
    concurrency: int = 4
    output_limit: int = MAX_OUTPUT_BYTES
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        """Refuse what could only fail later, and fill in what follows from the rest."""
        if not _is_address(self.url):
            raise InvalidInput(
                f"url is not an http(s) address: {self.url!r}",
                reason="url_invalid",
                hint="Pass --url https://<project>.supabase.co, or set PGFLEET_URL.",
            )
        if not self.anon_key:
            raise InvalidInput(
                "anon_key is empty",
                reason="anon_key_missing",
                hint="Pass --anon-key with the project's anon or publishable key, "
                "or set PGFLEET_ANON_KEY.",
            )
        if not self.hostname.strip():
            raise InvalidInput("hostname is empty", reason="hostname_missing")
        if self.concurrency < 1:
            raise InvalidInput("concurrency must be at least 1", reason="concurrency_invalid")
        object.__setattr__(self, "url", self.url.rstrip("/"))
        functions_url = self.functions_url or f"{self.url}/functions/v1"
        object.__setattr__(self, "functions_url", functions_url.rstrip("/"))


def _is_address(url: str) -> bool:
    """Tell whether a server can be there; an IPv6 address stands in brackets."""
    try:
        parts = urlsplit(url)
        # Reading the port is what finds fe80::1 without brackets out.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
