"""The process that serves the API: REST, Realtime and the functions behind one address."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from pgfleet_local.server.logs import shorten, tail
from pgfleet_local.server.processes import (
    ProcessError,
    command_line,
    end_process,
    is_alive,
    spawn,
)
from pgfleet_local.settings import StackSettings

PROGRAM = "pgfleet_local.gateway"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


class GatewayServer:
    """The gateway of one data folder."""

    name = "gateway"
    # A busy machine can keep it from answering for long; one that hangs does so for good.
    patience = 60.0

    def __init__(self, settings: StackSettings) -> None:
        self.settings = settings
        self.log = settings.data_dir / "gateway.log"
        self._pid_file = settings.data_dir / "gateway.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers, or raise ProcessError and leave nothing running."""
        shorten(self.log)
        start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = spawn(
                # The folder is there so that a leftover can be told from somebody else's.
                [sys.executable, "-m", PROGRAM, str(self.settings.data_dir)],
                log=log,
                environment={**os.environ, **self.settings.environment()},
            )
        self._pid_file.write_text(str(self._process.pid))
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if not self.is_running() or time.monotonic() > end:
                self.stop()
                raise ProcessError(f"the gateway did not start:\n{tail(self.log, start=start)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, kindly first."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._pid_file.unlink(missing_ok=True)

    def is_running(self) -> bool:
        """Tell whether the process that we started is there."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Tell whether it answers, whoever started it."""
        try:
            return httpx.get(f"{self.settings.api_url}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def complaint(self) -> str | None:
        """Say that it does not answer."""
        shorten(self.log)
        return None if self.answers() else "it does not answer"

    def end_leftover(self) -> bool:
        """End the gateway that an earlier run has left; tell whether there was one."""
        pid = _read_pid(self._pid_file)
        found = pid is not None and is_alive(pid) and self._is_ours(pid)
        if found and pid is not None:
            end_process(pid)
        self._pid_file.unlink(missing_ok=True)
        return found

    def _is_ours(self, pid: int) -> bool:
        words = command_line(pid)
        return PROGRAM in words and str(self.settings.data_dir) in words


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
