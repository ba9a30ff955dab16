"""The local platform as a process: started, looked after, and brought back to a common state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import psycopg
from tests.helpers.kept_clusters import copy_kept

from pgfleet_local.server.processes import ending_with_us
from pgfleet_local.settings import StackSettings

PATIENCE_SECONDS = 60.0

LAUNCHER = """
import json, signal, sys
from pgfleet_local.settings import LocalError, StackSettings
from pgfleet_local.server.stack import Stack

# Whoever runs the tests without a terminal may ignore it; here it is what is tested.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def say(text): print(text, file=sys.stderr, flush=True)

try:
    Stack(StackSettings.from_environment(), say).up(lambda d: print(json.dumps(d), flush=True))
except LocalError as error:
    sys.exit(f"Error: {error}")
"""


class RunningStack:
    """A local platform that runs as a process of its own."""

    def __init__(self, settings: StackSettings) -> None:
        self.settings = settings
        self.described: dict[str, str] = {}
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._log = (settings.data_dir / "stack.log").open("a+")
        self.process = subprocess.Popen(
            ending_with_us([sys.executable, "-c", LAUNCHER]),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            # A signal that a test sends to its own group is not meant for it.
            start_new_session=True,
            env={**os.environ, **settings.environment()},
        )

    def wait_ready(self) -> RunningStack:
        """Wait until everything answers."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the platform did not start:\n{self.said()}"
        self.described = json.loads(line)
        return self

    def said(self) -> str:
        """Give what the supervisor has told so far."""
        return (self.settings.data_dir / "stack.log").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the exit code."""
        code = self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return code

    def url(self, role: str = "postgres") -> str:
        """Give the URL for postgres, supabase_admin, authenticator or fleet_worker."""
        return self.settings.url(role)

    def connect(self, role: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """Open a connection, which the caller closes."""
        return psycopg.connect(self.url(role), **options)

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Call the API with the key of the platform's own services."""
        key = self.settings.service_role_key
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        url = self.settings.api_url + path
        return httpx.request(method, url, headers=headers, trust_env=False, timeout=20, **options)

    def token(self, sub: str | UUID, role: str = "authenticated", **claims: Any) -> str:
        """Sign a token of one hour for a caller of the API."""
        known = {"sub": str(sub), "role": role, "exp": int(time.time()) + 3600}
        return jwt.encode({**known, **claims}, self.settings.jwt_secret, algorithm="HS256")

    def complaints(self) -> list[str]:
        """Tell what of the platform does not work: processes, API, net, ticker, change stream."""
        found = []
        if self.process.poll() is not None:
            return [f"the supervisor ended with {self.process.returncode}:\n{self.said()}"]
        for name, works in (
            ("REST", lambda: self.call("GET", "/rest/v1/devices?limit=1").status_code == 200),
            ("functions", lambda: self.call("GET", "/functions/v1/health").status_code == 200),
            ("Realtime", lambda: self.call("GET", "/realtime/v1/faults").json()["live"]),
            ("net", self._net_answers),
            ("ticker", self._ticks),
        ):
            try:
                if not works():
                    found.append(f"{name} does not work")
            except (httpx.HTTPError, psycopg.Error) as error:
                found.append(f"{name}: {error!r}")
        return found

    def wait_well(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until everything works."""
        end = time.monotonic() + seconds
        while complaints := self.complaints():
            dead = self.process.poll() is not None
            assert not dead and time.monotonic() < end, "\n".join(complaints)
            time.sleep(0.2)

    def _net_answers(self) -> bool:
        with self.connect(autocommit=True) as conn:
            conn.execute("set statement_timeout = '10s'")
            url = f"{self.settings.api_url}/health"
            sent = conn.execute("select net.http_get(%s)", (url,)).fetchone()
            conn.execute("select net._await_response(%s)", sent)
        return True

    def _ticks(self) -> bool:
        with self.connect(autocommit=True) as conn:
            age = "select (fleet.worker_health() ->> 'tick_age_seconds')::numeric < 10"
            return conn.execute(age).fetchone() == (True,)


class PreparedStack:
    """The database of a platform that was started once, to copy instead of making it anew."""

    def __init__(self, make: Callable[[], StackSettings]) -> None:
        self._make = make

    def settings(self) -> StackSettings:
        """Give settings for another platform, whose cluster is there already and is up to date."""
        settings = self._make()
        settings.data_dir.mkdir()
        settings.data_dir.chmod(0o711)
        copy_kept("stack", self._started_once, settings.data_dir / "postgres")
        return settings

    def _started_once(self) -> Path:
        first = RunningStack(self._make())
        try:
            first.wait_ready()
        finally:
            first.end()
        return first.settings.data_dir / "postgres"


class SharedStack:
    """What modules of one worker share, and how each finds it as the one before did."""

    def __init__(self, running: RunningStack) -> None:
        self.running = running
        self._settings = self._engine_settings()

    def reset(self) -> None:
        """Take back what is not of one owner: settings of the engine, faults, the sandbox."""
        now = self._engine_settings()
        with self.running.connect() as conn:
            added = list(now.keys() - self._settings.keys())
            conn.execute("delete from fleet.settings where name = any (%s)", (added,))
            for name, value in self._settings.items():
                if now.get(name) != value:
                    conn.execute("select fleet.set_setting(%s, %s::jsonb)", (name, value))
        self.running.call("DELETE", "/realtime/v1/faults").raise_for_status()
        sandbox = "/sandbox/simplemdm/control"
        self.running.call("POST", f"{sandbox}/reset").raise_for_status()
        quiet = {"webhook_url": None, **self.running.settings.simplemdm_keys}
        self.running.call("POST", f"{sandbox}/settings", json=quiet).raise_for_status()

    def _engine_settings(self) -> dict[str, str]:
        with self.running.connect() as conn:
            rows = conn.execute("select name, value::text from fleet.settings").fetchall()
            return {str(name): str(value) for name, value in rows}
