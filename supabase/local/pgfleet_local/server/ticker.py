"""The loop that runs the engine's jobs where Postgres has no pg_cron to do it."""

from __future__ import annotations

import threading
import time
from typing import Any, LiteralString

import psycopg

from pgfleet_local.server.report import Say

AT_START = "@reboot"
RETRY_SECONDS = 0.5
STOP_SECONDS = 2.0

# Its own reading of a job's five fields: those are a cron expression as any other.
DUE: LiteralString = """
select j.name
from fleet.jobs() as j
cross join to_timestamp(%(minute)s) as m(at)
where j.schedule <> '@reboot'
  and fleet.next_occurrence(
    fleet.compile_recurrence(
      'cron', jsonb_build_object('cron_expression', j.schedule), 'UTC',
      m.at - interval '1 minute', null
    ),
    m.at - interval '1 second'
  ) = m.at
"""


class Ticker:
    """What pg_cron does for the engine: each of `fleet.jobs()` in a session of its own, in time."""

    name = "ticker"
    patience = 10.0

    def __init__(self, url: str, say: Say) -> None:
        self._url = url
        self._say = say
        self._stopping = threading.Event()
        self._jobs: dict[str, _Job] = {}
        self._clock: threading.Thread | None = None

    def start(self) -> None:
        """Run what runs at a start, and from then on what each minute brings."""
        self._stopping = threading.Event()
        with psycopg.connect(self._url) as connection:
            jobs = connection.execute("select name, schedule, command from fleet.jobs()").fetchall()
        self._jobs = {
            name: _Job(name, command, self._url, self._say, self._stopping)
            for name, _, command in jobs
        }
        for name, schedule, _ in jobs:
            if schedule == AT_START:
                self._jobs[name].wake()
        self._clock = threading.Thread(target=self._keep_time, name="pgfleet-ticker", daemon=True)
        self._clock.start()

    def stop(self) -> None:
        """End what runs, and wait a moment for it."""
        self._stopping.set()
        for job in self._jobs.values():
            job.cancel()
        for job in self._jobs.values():
            job.thread.join(STOP_SECONDS)
        self._clock = None

    def is_running(self) -> bool:
        """Tell whether somebody looks at the clock."""
        return self._clock is not None and self._clock.is_alive()

    def complaint(self) -> str | None:
        """Say nothing: what a job has to complain of, it says itself."""
        return None

    def _keep_time(self) -> None:
        minute = time.time() // 60 * 60 + 60
        while not self._stopping.wait(max(0.0, minute - time.time())):
            for name in self._due(minute):
                self._jobs[name].wake()
            # What was slept through is not made up for: every job looks at all there is to do.
            minute = max(minute + 60, time.time() // 60 * 60)

    def _due(self, minute: float) -> list[str]:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._url, connect_timeout=5) as connection:
                    rows = connection.execute(DUE, {"minute": minute}).fetchall()
                return [name for (name,) in rows if name in self._jobs]
            except psycopg.OperationalError:
                self._stopping.wait(RETRY_SECONDS)
            except psycopg.Error as error:
                # In the middle of a migration, say: the next minute may know better.
                self._say(f"the ticker cannot tell which jobs are due: {error}")
                break
        return []


class _Job:
    """One job: never twice at once, and once more when it was due while it ran."""

    def __init__(
        self, name: str, command: str, url: str, say: Say, stopping: threading.Event
    ) -> None:
        self._name = name
        self._command = command.encode()
        self._url = url
        self._say = say
        self._stopping = stopping
        self._due = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._said = ""
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def wake(self) -> None:
        """Run it now, or as soon as it has ended."""
        self._due.set()

    def cancel(self) -> None:
        """End it, where it runs."""
        self._due.set()
        connection = self._connection
        if connection is not None and not connection.closed:
            connection.cancel_safe(timeout=STOP_SECONDS)

    def _run(self) -> None:
        while True:
            self._due.wait()
            if self._stopping.is_set():
                return
            self._due.clear()
            try:
                self._once()
            except psycopg.OperationalError as error:
                # The server went away, or is not there yet: a job that is run again looks again.
                self._tell(error)
                self._stopping.wait(RETRY_SECONDS)
                self._due.set()
            except psycopg.Error as error:
                self._tell(error)

    def _once(self) -> None:
        with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
            self._connection = connection
            try:
                connection.execute("set statement_timeout = 0")
                connection.execute(self._command)
                self._said = ""
            finally:
                self._connection = None

    def _tell(self, error: psycopg.Error) -> None:
        text = str(error).strip()
        if text != self._said and not self._stopping.is_set():
            self._said = text
            self._say(f"job {self._name}: {text}")
