"""What the local platform is told: where it keeps its data, its ports and its secrets."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import jwt

# The official local stack signs its keys with fixed times as well: the same secret then gives
# the same keys in every process, and a key copied into a script stays good.
KEYS_ISSUED_AT = 1_767_225_600  # 2026-01-01
KEYS_EXPIRE_AT = KEYS_ISSUED_AT + 10 * 365 * 86_400

HOST = "127.0.0.1"
API_PORT, DB_PORT = 54321, 54322
# The ports that the running platform has taken in place of the usual ones.
PORTS_FILE = "ports.json"
DatabasePrivileges = Literal["new", "old"]


class LocalError(Exception):
    """The local platform cannot do what it was asked; the base of all its errors."""


class SettingsError(LocalError):
    """A setting has a value that the local platform cannot work with."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """One local platform, completely described."""

    data_dir: Path
    jwt_secret: str = field(repr=False)
    api_port: int = API_PORT
    db_port: int = DB_PORT
    # Nobody chose the ports, so that others will do where these cannot be had.
    any_ports: bool = False
    default_privileges: DatabasePrivileges = "new"
    net_pace: bool = True
    durable: bool = True
    max_connections: int = 120
    password_seed: str = field(default="", repr=False)
    jwks: Mapping[str, Any] | None = None
    # Stand-ins for outside services, at /sandbox/* of the gateway.
    sandboxes: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> StackSettings:
        """Read PGFLEET_LOCAL_* variables; secrets that are not given are kept in the folder."""
        env = os.environ if environ is None else environ
        given = env.get("PGFLEET_LOCAL_DATA_DIR")
        data_dir = Path(given).expanduser().absolute() if given else default_data_dir()
        kept = _kept_secrets(data_dir)
        ports = _ports_taken(data_dir)
        style = env.get("PGFLEET_LOCAL_DEFAULT_PRIVILEGES", "new")
        if style not in ("new", "old"):
            raise SettingsError(
                f"PGFLEET_LOCAL_DEFAULT_PRIVILEGES is {style!r}, it can be 'new' or 'old'"
            )
        return cls(
            data_dir=data_dir,
            jwt_secret=env.get("PGFLEET_LOCAL_JWT_SECRET") or kept["jwt_secret"],
            api_port=_number(env, "PGFLEET_LOCAL_API_PORT", ports["api_port"], 65535),
            db_port=_number(env, "PGFLEET_LOCAL_DB_PORT", ports["db_port"], 65535),
            any_ports=not (env.get("PGFLEET_LOCAL_API_PORT") or env.get("PGFLEET_LOCAL_DB_PORT")),
            default_privileges=cast(DatabasePrivileges, style),
            net_pace=_switch(env, "PGFLEET_LOCAL_NET_PACE", True),
            durable=_switch(env, "PGFLEET_LOCAL_DURABLE", True),
            max_connections=_number(env, "PGFLEET_LOCAL_MAX_CONNECTIONS", 120, 10_000),
            password_seed=env.get("PGFLEET_LOCAL_PASSWORD_SEED") or kept["password_seed"],
            jwks=_jwks(env.get("PGFLEET_LOCAL_JWKS")),
            sandboxes=_switch(env, "PGFLEET_LOCAL_SANDBOXES", True),
        )

    def environment(self) -> dict[str, str]:
        """Give the variables from which a child process reads the same settings."""
        keys = {"PGFLEET_LOCAL_JWKS": json.dumps(dict(self.jwks))} if self.jwks else {}
        return {
            **keys,
            "PGFLEET_LOCAL_DATA_DIR": str(self.data_dir),
            "PGFLEET_LOCAL_JWT_SECRET": self.jwt_secret,
            "PGFLEET_LOCAL_PASSWORD_SEED": self.password_seed or self.jwt_secret,
            "PGFLEET_LOCAL_API_PORT": str(self.api_port),
            "PGFLEET_LOCAL_DB_PORT": str(self.db_port),
            "PGFLEET_LOCAL_DEFAULT_PRIVILEGES": self.default_privileges,
            "PGFLEET_LOCAL_NET_PACE": "on" if self.net_pace else "off",
            "PGFLEET_LOCAL_DURABLE": "on" if self.durable else "off",
            "PGFLEET_LOCAL_MAX_CONNECTIONS": str(self.max_connections),
            "PGFLEET_LOCAL_SANDBOXES": "on" if self.sandboxes else "off",
        }

    def password(self, role: str) -> str:
        """Give the password of a login role; only that of `postgres` is the well-known one."""
        if role == "postgres":
            return "postgres"
        seed = (self.password_seed or self.jwt_secret).encode()
        return hmac.new(seed, role.encode(), hashlib.sha256).hexdigest()[:32]

    def url(self, role: str, database: str = "postgres") -> str:
        """Give the connection URL of one role."""
        return f"postgresql://{role}:{self.password(role)}@{HOST}:{self.db_port}/{database}"

    @property
    def api_url(self) -> str:
        return f"http://{HOST}:{self.api_port}"

    @property
    def functions_url(self) -> str:
        return f"{self.api_url}/functions/v1"

    @property
    def simplemdm_url(self) -> str:
        return f"{self.api_url}/sandbox/simplemdm"

    @property
    def simplemdm_keys(self) -> dict[str, str]:
        return {name: self.password(f"simplemdm {name}") for name in ("full", "read_only")}

    @property
    def golioth_url(self) -> str:
        return f"{self.api_url}/sandbox/golioth"

    @property
    def golioth_key(self) -> str:
        return self.password("golioth")

    @property
    def db_url(self) -> str:
        return self.url("postgres")

    @property
    def admin_url(self) -> str:
        return self.url("supabase_admin")

    @property
    def authenticator_url(self) -> str:
        return self.url("authenticator")

    @property
    def worker_url(self) -> str:
        return self.url("fleet_worker")

    @property
    def anon_key(self) -> str:
        return self._key("anon")

    @property
    def service_role_key(self) -> str:
        return self._key("service_role")

    def _key(self, role: str) -> str:
        claims = {
            "iss": "supabase-local",
            "role": role,
            "iat": KEYS_ISSUED_AT,
            "exp": KEYS_EXPIRE_AT,
        }
        return jwt.encode(claims, self.jwt_secret, algorithm="HS256")


def default_data_dir() -> Path:
    """Give `.local` in the working folder, or a folder below /var/tmp that servers can reach.

    Postgres refuses to run as root, so root's servers run as another account; that account
    cannot pass through a private home folder such as /root.
    """
    here = Path.cwd() / ".local"
    if os.geteuid() != 0 or is_reachable(here.parent):
        return here
    name = hashlib.sha256(str(here).encode()).hexdigest()[:12]
    return Path("/var/tmp") / f"pgfleet-{name}"


def is_reachable(folder: Path) -> bool:
    """Tell whether any account may pass through the folder and all that are above it."""
    return all(
        stat.S_IMODE(part.stat().st_mode) & stat.S_IXOTH for part in (folder, *folder.parents)
    )


def _kept_secrets(data_dir: Path) -> dict[str, str]:
    """Read the secrets of a data folder, making them at the first use."""
    path = data_dir / "secrets.json"
    names = ("jwt_secret", "password_seed")
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        # Made aside and linked: nobody ever reads half a file or replaces another's secrets.
        with tempfile.NamedTemporaryFile("w", dir=data_dir, prefix=".secrets-") as file:
            json.dump({name: secrets.token_hex(32) for name in names}, file)
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    kept = json.loads(path.read_text())
    return {name: str(kept[name]) for name in names}


def _ports_taken(data_dir: Path) -> dict[str, int]:
    """Read which ports the platform of a folder has now; the usual ones if nothing else is said."""
    try:
        taken = json.loads((data_dir / PORTS_FILE).read_text())
        return {name: int(taken[name]) for name in ("api_port", "db_port")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"api_port": API_PORT, "db_port": DB_PORT}


def _number(env: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= highest:
        raise SettingsError(f"{name} is {text!r}, it must be a number from 1 to {highest}")
    return int(text)


def _switch(env: Mapping[str, str], name: str, default: bool) -> bool:
    text = env.get(name, "").lower()
    if not text:
        return default
    if text in ("on", "true", "yes", "1"):
        return True
    if text in ("off", "false", "no", "0"):
        return False
    raise SettingsError(f"{name} is {text!r}, it can be 'on' or 'off'")


def _jwks(given: str | None) -> Mapping[str, Any] | None:
    """Read a JWKS, given as itself or as the path of a file."""
    if not given:
        return None
    try:
        is_path = not given.lstrip().startswith("{")
        keys = json.loads(Path(given).expanduser().read_text() if is_path else given)
    except (OSError, ValueError) as error:
        raise SettingsError(f"PGFLEET_LOCAL_JWKS: cannot read a JWKS from it: {error}") from error
    if not isinstance(keys, dict) or not isinstance(keys.get("keys"), list):
        raise SettingsError("PGFLEET_LOCAL_JWKS: that is not a JWKS, it has no list `keys`")
    return keys
