"""The whole local platform: database and gateway, prepared, migrated and kept running."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg.types.json import Jsonb

from pgfleet.schema.migrate import migrate
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.server.gateway_server import GatewayServer
from pgfleet_local.server.ports import PortTaken, take_ports
from pgfleet_local.server.processes import send
from pgfleet_local.server.report import Report, Say
from pgfleet_local.server.signals import StopRequested, deaf_to_signals, stopping_on_signals
from pgfleet_local.server.ticker import Ticker
from pgfleet_local.server.watch import Part, Watch
from pgfleet_local.settings import HOST, PORTS_FILE, LocalError, StackSettings

STOP_SECONDS = 60.0
LOCK_SECONDS = 0.5


class StackError(LocalError):
    """The local platform cannot start, or cannot be stopped."""


class Stack:
    """The local platform of one data folder."""

    def __init__(self, settings: StackSettings, say: Say | None = None) -> None:
        self.settings = settings
        self._say = Report(say)
        self._lock_file = settings.data_dir / "stack.lock"
        self._ports_file = settings.data_dir / PORTS_FILE

    def describe(self) -> dict[str, str]:
        """Give the addresses and keys, under the names that the official CLI uses.

        The last four are of the sandboxes that stand in for SimpleMDM and Golioth.
        """
        return {
            "API_URL": self.settings.api_url,
            "DB_URL": self.settings.db_url,
            "ANON_KEY": self.settings.anon_key,
            "SERVICE_ROLE_KEY": self.settings.service_role_key,
            "JWT_SECRET": self.settings.jwt_secret,
            "SIMPLEMDM_URL": self.settings.simplemdm_url,
            "SIMPLEMDM_KEY": self.settings.simplemdm_keys["full"],
            "GOLIOTH_URL": self.settings.golioth_url,
            "GOLIOTH_KEY": self.settings.golioth_key,
        }

    def up(self, ready: Callable[[dict[str, str]], None]) -> None:
        """Run the platform until a signal stops it; call `ready` once everything answers.

        Call it from the main thread: signals arrive there, and the servers end with it.
        Raises StackError when another one runs on the same folder, or when a part cannot start.
        """
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with self._say.passing_on(), self._only_one(), stopping_on_signals():
            try:
                self._end_leftovers()
                with self._ports():
                    self._run(ready)
            except StopRequested:
                pass

    def _run(self, ready: Callable[[dict[str, str]], None]) -> None:
        cluster, gateway = Cluster(self.settings), GatewayServer(self.settings)
        parts: list[Part] = [cluster, gateway]
        try:
            self._start_database(cluster)
            if not cluster.has_cron:
                self._say(
                    f"Postgres {cluster.binaries.version} has no pg_cron here: "
                    "the platform ticks by a loop of its own"
                )
                parts.append(Ticker(self.settings.db_url, self._say))
            for part in parts[1:]:
                part.start()
            ready(self.describe())
            Watch(parts, self._say).run()
        except StopRequested:
            self._say("stopping")
        finally:
            with deaf_to_signals():
                for part in reversed(parts):
                    part.stop()

    def down(self) -> bool:
        """Stop the platform, or what a killed one has left; tell whether there was anything."""
        pid = self._supervisor()
        if pid is None:
            if not self.settings.data_dir.is_dir():
                return False
            with self._only_one():
                return self._end_leftovers()
        send(pid, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while self._supervisor() is not None:
            if time.monotonic() > end:
                raise StackError(f"the local platform (process {pid}) does not stop")
            time.sleep(0.05)
        return True

    def status(self) -> dict[str, Any]:
        """Tell whether the platform runs, whether its parts answer, and where it is."""
        pid = self._supervisor()
        return {
            "running": pid is not None,
            "pid": pid,
            "database": pid is not None and self._database_answers(),
            "gateway": pid is not None and GatewayServer(self.settings).answers(),
            "data_dir": str(self.settings.data_dir),
            **self.describe(),
        }

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the folder's lock, which the kernel releases however its holder ends."""
        with self._lock_file.open("a+") as file:
            end = time.monotonic() + LOCK_SECONDS
            while not _lock(file, fcntl.LOCK_EX):
                # Somebody who only looks whether it is held holds it for a moment.
                if time.monotonic() > end:
                    raise StackError(
                        f"a local platform is running already on {self.settings.data_dir} "
                        f"(process {_read_pid(self._lock_file)}): stop it with: pgfleet stack down"
                    )
                time.sleep(0.02)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            file.truncate(0)

    def _supervisor(self) -> int | None:
        """Give the process that runs the platform now."""
        try:
            with self._lock_file.open("r") as file:
                return None if _lock(file, fcntl.LOCK_SH) else _read_pid(self._lock_file)
        except FileNotFoundError:
            return None

    def _end_leftovers(self) -> bool:
        """End what a killed platform has left; tell whether there was anything."""
        cluster = Cluster(self.settings)
        gateway = GatewayServer(self.settings).end_leftover()
        server = cluster.running_pid() is not None
        cluster.end_leftovers()
        return gateway or server

    @contextlib.contextmanager
    def _ports(self) -> Iterator[None]:
        """Keep both ports while the servers come and go, and tell other processes which they are.

        Raises StackError when one cannot be had.
        """
        asked = self.settings
        with contextlib.ExitStack() as holds:
            try:
                ports = take_ports(asked, self._say, holds)
            except PortTaken as error:
                raise StackError(str(error)) from error
            self.settings = replace(asked, db_port=ports["db_port"], api_port=ports["api_port"])
            if asked.any_ports:
                self._ports_file.write_text(json.dumps(ports))
                holds.callback(self._ports_file.unlink, missing_ok=True)
            yield

    def _start_database(self, cluster: Cluster) -> None:
        settings = self.settings
        if not cluster.is_created:
            self._say(f"creating a Postgres {cluster.binaries.version} cluster")
            cluster.create()
        cluster.start()
        prepare_cluster(settings.admin_url)
        prepare_database(
            settings.admin_url,
            default_privileges=settings.default_privileges,
            cron=cluster.has_cron,
        )
        cluster.set_passwords()
        jobs = self._jobs_at_start(cluster)
        self._bring_jobs_home(cluster)
        self._say("migrating")
        migrate(settings.db_url)
        self._set_up_functions()
        if self._jobs_at_start(cluster) - jobs:
            # pg_cron runs @reboot jobs when the server starts; they are to run from now on.
            cluster.stop()
            cluster.start()

    def _jobs_at_start(self, cluster: Cluster) -> set[tuple[Any, ...]]:
        if not cluster.has_cron:
            return set()
        with psycopg.connect(self.settings.db_url) as connection:
            cursor = connection.execute(
                "select jobname, command, nodename, nodeport from cron.job"
                " where schedule = '@reboot' and active"
            )
            return set(cursor.fetchall())

    def _bring_jobs_home(self, cluster: Cluster) -> None:
        """Let jobs find the server where it is now: each keeps the address that it was made at."""
        if not cluster.has_cron:
            return
        here = {"host": str(cluster.socket_dir), "port": self.settings.db_port}
        with psycopg.connect(self.settings.admin_url) as connection:
            connection.execute(
                "update cron.job set nodename = %(host)s, nodeport = %(port)s"
                " where (nodename, nodeport) is distinct from (%(host)s, %(port)s)",
                here,
            )

    def _set_up_functions(self) -> None:
        """Give the functions their login, and the database the functions' address."""
        settings = self.settings
        with psycopg.connect(settings.admin_url) as connection:
            ensure_worker_role(connection, settings.password("fleet_worker"))
        with psycopg.connect(settings.db_url) as connection:
            connection.execute("select fleet.grant_worker()")
            # Functions that a developer runs elsewhere keep their address.
            connection.execute(
                "select fleet.set_setting('functions_url', %s)"
                " where coalesce(fleet.setting('functions_url') #>> '{}', %s) like %s",
                (Jsonb(settings.functions_url), f"http://{HOST}:", f"http://{HOST}:%"),
            )

    def _database_answers(self) -> bool:
        try:
            psycopg.connect(self.settings.db_url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
