"""The functions as a process of their own that is killed again and again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

FUNCTIONS = """
import sys
from pgfleet.main import app
app(["functions", "run", "--port", sys.argv[1], "--poll", "0.2"])
"""


class Killed:
    """The functions as a process that is killed again and again, and started anew each time.

    So many seconds after it has begun to answer, so many times at most; without seconds whenever
    somebody says `strike`.
    """

    def __init__(
        self, environment: dict[str, str], port: int, seconds: float | None = None, most: int = 0
    ) -> None:
        self._environment = environment
        self._port = port
        self._seconds = seconds
        self._most = most
        self._over = threading.Event()
        self._struck = threading.Semaphore(0)
        self.kills = 0

    def strike(self) -> None:
        """Kill the process that runs now."""
        self._struck.release()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run, kill and start it for as long as the block lasts."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._struck.release()
            thread.join(30)

    def _wait_answered(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not self._over.wait(0.05):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.5):
                return

    def _run(self) -> None:
        while not self._over.is_set():
            process = subprocess.Popen(
                [sys.executable, "-c", FUNCTIONS, str(self._port)],
                env=self._environment,
                stderr=subprocess.DEVNULL,
            )
            if self._seconds is not None:
                # A process that is killed before it can work shows nothing.
                self._wait_answered(process)
            last = self._seconds is not None and self.kills == self._most
            self._struck.acquire(timeout=None if last else self._seconds)
            self.kills += not self._over.is_set()
            process.send_signal(signal.SIGKILL)
            process.wait()
