"""The demo's own platform and fleet: child processes that end with it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pgfleet.errors import Unavailable

READY_SECONDS = 120.0
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Platform:
    """A running local platform."""

    folder: Path
    api_url: str
    db_url: str
    anon_key: str

    @property
    def events(self) -> Path:
        """The file in which the devices' handlers note that they were entered and left."""
        return self.folder / "events.jsonl"

    def kill_gateway(self) -> int:
        """Kill the gateway the hard way; the platform starts it again. Give the old process id."""
        pid = int((self.folder / "data" / "gateway.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        return pid


@contextmanager
def running_platform() -> Iterator[Platform]:
    """Start a platform on free ports and a folder of its own; stop and remove all of it."""
    folder = Path(tempfile.mkdtemp(prefix="pgfleet-demo-"))
    # The server may run as another account than the demo.
    folder.chmod(0o711)
    environment = {
        **os.environ,
        "PGFLEET_LOCAL_DATA_DIR": str(folder / "data"),
        "PGFLEET_LOCAL_API_PORT": str(_free_port()),
        "PGFLEET_LOCAL_DB_PORT": str(_free_port()),
        "PGFLEET_LOCAL_JWT_SECRET": secrets.token_hex(32),
        "PGFLEET_LOCAL_PASSWORD_SEED": secrets.token_hex(32),
    }
    try:
        with (folder / "stack.log").open("wb") as log:
            process = _spawn(["stack", "up", "--json"], environment, log, subprocess.PIPE)
            try:
                said = _first_json(process, folder / "stack.log")
                yield Platform(folder, said["API_URL"], said["DB_URL"], said["ANON_KEY"])
            finally:
                _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_devices(platform: Platform, code: str, count: int) -> Iterator[None]:
    """Run simulated devices in one process until the block ends."""
    arguments = [
        *("agent", "run", "--url", platform.api_url, "--anon-key", platform.anon_key),
        *("--code", code, "--state-dir", str(platform.folder / "devices")),
        *("--simulate", str(count), "--prefix", "laptop", "--starts-per-second", "25"),
        *("--duration", "0.05", "--events", str(platform.events)),
        # A demo is short: come back soon after the gateway was killed.
        *("--poll-seconds", "5", "--reconnect-seconds", "0.5", "--reconnect-limit-seconds", "2"),
        *("--log-file", str(platform.folder / "agent.log")),
    ]
    with (platform.folder / "agent.err").open("wb") as log:
        process = _spawn(arguments, dict(os.environ), log, subprocess.DEVNULL)
        try:
            yield
        finally:
            _end(process)


def _spawn(
    arguments: list[str], environment: dict[str, str], log: IO[bytes], out: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pgfleet", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=log,
        # Ctrl-C is for the demo, which then stops its parts in order.
        start_new_session=True,
    )


def _first_json(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Read the addresses that the platform prints once everything answers."""
    assert process.stdout is not None
    text = ""
    deadline = time.monotonic() + READY_SECONDS
    for line in process.stdout:
        text += line.decode()
        try:
            found: dict[str, Any] = json.loads(text)
            return found
        except ValueError:
            if time.monotonic() > deadline:
                break
    raise Unavailable(
        f"the demo's platform did not start: {log.read_text(errors='replace').strip()[-600:]}",
        reason="stack_failed",
        hint="Try it alone: make up",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
