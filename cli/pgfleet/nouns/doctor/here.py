"""What only the place can know from which somebody looks: its clock, its files, what it reaches."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pgfleet.schema import migrate as migrating

AREA = "here"
_CLOCK_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0
_DAYS_LEFT = 14

Check = dict[str, Any]


def clock(ask: Callable[[], str]) -> Check:
    """Compare this clock with that of the database, which `ask` gives as text."""
    before = time.time()
    theirs = datetime.fromisoformat(ask()).timestamp()
    apart = max(before - theirs, theirs - time.time(), 0.0)
    return _check(
        "clock",
        "warning" if apart > _CLOCK_SECONDS else None,
        f"this clock and that of the database are {apart:.0f} s apart",
        "Set both by NTP; due instants follow that of the database",
    )


def schema(url: str) -> Check:
    """Compare the schema of the database with that of this installation."""
    found = migrating.status(url)
    waiting = len(found.pending.migrations) + len(found.pending.sources)
    if waiting:
        return _check(
            "schema",
            "broken",
            f"the schema is not that of this pgfleet: {waiting} files are to be applied",
            "Apply them: pgfleet db migrate",
        )
    odd = [*found.edited, *found.leftovers]
    return _check(
        "schema",
        "warning" if odd else None,
        f"not as the files say: {', '.join(odd[:5])}",
        "See what it is: pgfleet db status",
    )


def functions(url: str | None) -> Check:
    """Ask the HTTP functions how they are, where their address is known."""
    if url is None:
        return _check("functions", None)
    try:
        # The address is a setting, which only the operator of the database can write.
        with urllib.request.urlopen(f"{url}/health", timeout=_PATIENCE_SECONDS) as answer:
            trouble = None if answer.status == 200 else f"answer with {answer.status}"
    except urllib.error.HTTPError as error:
        trouble = f"answer with {error.code}"
        error.close()
    except (OSError, ValueError, HTTPException) as error:
        trouble = f"do not answer: {getattr(error, 'reason', str(error).strip())}"
    return _check(
        "functions",
        "broken" if trouble else None,
        f"the functions at {url} {trouble}",
        "See what they print: pgfleet functions logs notify-dispatch",
    )


def certificate(url: str | None) -> Check:
    """Tell for how long the certificate of the functions holds."""
    parts = urlsplit(url or "")
    if parts.scheme != "https" or not parts.hostname:
        return _check("certificate", None)
    hint = "Renew it, and the job that should have"
    try:
        address = (parts.hostname, parts.port or 443)
        with (
            socket.create_connection(address, timeout=_PATIENCE_SECONDS) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname) as safe,
        ):
            ends = str((safe.getpeercert() or {})["notAfter"])
    except ssl.SSLCertVerificationError as error:
        said = f"the certificate of {parts.hostname} is refused: {error.verify_message}"
        return _check("certificate", "broken", said, hint)
    except OSError:
        # That nobody answers is told by the check before.
        return _check("certificate", "unknown", f"{parts.hostname} does not answer", hint)
    left = ssl.cert_time_to_seconds(ends) - datetime.now(UTC).timestamp()
    return _check(
        "certificate",
        "warning" if left < _DAYS_LEFT * 86400 else None,
        f"the certificate of {parts.hostname} ends {ends}",
        hint,
    )


def private_files() -> Check:
    """Tell which files with secrets others on this machine may read."""
    open_ones = [str(path) for path in _open_files()]
    return {
        **_check(
            "private_files",
            "broken" if open_ones else None,
            f"everybody on this machine may read {', '.join(open_ones)}",
            "Close it: pgfleet doctor --fix",
        ),
        "can_be_repaired": bool(open_ones),
    }


def close_files() -> None:
    """Leave files with secrets to their owner."""
    for path in _open_files():
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o077)


def _open_files() -> list[Path]:
    if os.name != "posix":
        return []
    named = os.environ.get("PGPASSFILE")
    candidates = [Path(".env"), Path(named) if named else Path.home() / ".pgpass"]
    return [path for path in candidates if path.is_file() and path.stat().st_mode & 0o077]


def _check(name: str, state: str | None, found: str = "", hint: str = "") -> Check:
    return {
        "area": AREA,
        "name": name,
        "state": state or "ok",
        "found": found if state else None,
        "hint": hint if state else None,
        "can_be_repaired": False,
    }
