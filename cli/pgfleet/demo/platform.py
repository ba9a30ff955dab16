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
    simplemdm_url: str
    simplemdm_key: str
    service_role_key: str = ""

    @property
    def drive(self) -> Path:
        """The folder that is drive C: to the devices, with one of its own for each."""
        return self.folder / "c"

    @property
    def events(self) -> Path:
        """The file in which the devices' handlers note that they were entered and left."""
        return self.folder / "events.jsonl"

    def kill_gateway(self) -> int:
        """Kill the gateway the hard way; the platform starts it again. Give the old process id."""
        pid = int((self.folder / "data" / "gateway.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_postgres(self) -> int:
        """Kill the database server the hard way, likewise."""
        pid_file = self.folder / "data" / "postgres" / "postmaster.pid"
        pid = int(pid_file.read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        return pid


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does: what was started is stopped first."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
                yield Platform(
                    folder,
                    api_url=said["API_URL"],
                    db_url=said["DB_URL"],
                    anon_key=said["ANON_KEY"],
                    simplemdm_url=said["SIMPLEMDM_URL"],
                    simplemdm_key=said["SIMPLEMDM_KEY"],
                    service_role_key=said["SERVICE_ROLE_KEY"],
                )
            finally:
                _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Devices:
    """Simulated devices in one process, which can be killed and started again."""

    def __init__(self, platform: Platform, code: str, count: int, *options: str) -> None:
        self._log = platform.folder / "agent.err"
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments = [
            *("agent", "run", "--url", platform.api_url, "--anon-key", platform.anon_key),
            *("--code", code, "--state-dir", str(platform.folder / "devices")),
            *("--simulate", str(count), "--prefix", "laptop", "--starts-per-second", "25"),
            *("--events", str(platform.events), "--log-file", str(platform.folder / "agent.log")),
            *("--reconnect-seconds", "0.5", "--reconnect-limit-seconds", "2", *options),
        ]

    def start(self) -> None:
        """Start all of them; those that enrolled before come back as they were."""
        with self._log.open("ab") as log:
            self._process = _spawn(self._arguments, dict(os.environ), log, subprocess.DEVNULL)

    def kill(self) -> None:
        """End all of them the hard way."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End all of them gracefully."""
        if self._process is not None:
            _end(self._process)


@contextmanager
def running_devices(platform: Platform, code: str, count: int, *options: str) -> Iterator[Devices]:
    """Run simulated devices until the block ends."""
    devices = Devices(platform, code, count, *options)
    devices.start()
    try:
        yield devices
    finally:
        devices.stop()


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
