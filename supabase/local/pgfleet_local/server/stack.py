"""The whole local platform: database and gateway, prepared, migrated and kept running."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import httpx
import psycopg
from psycopg.types.json import Jsonb

from pgfleet.schema.migrate import migrate
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.bootstrap import prepare_cluster, prepare_database
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.server.processes import command_line, end_process, is_alive, send, spawn
from pgfleet_local.settings import HOST, LocalError, StackSettings

GATEWAY = "pgfleet_local.gateway"
WATCH_SECONDS = 0.2
START_SECONDS = 60.0
STOP_SECONDS = 60.0
LOCK_SECONDS = 0.5
# A part that dies again sooner than this is started again more slowly each time.
STEADY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 10.0

# Ctrl-C, a service manager, and a terminal that is closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


class StackError(LocalError):
    """The local platform cannot start, or cannot be stopped."""


class _StopRequested(BaseException):
    """A signal asked the supervisor to end; no `except Exception` may hold it up."""


class Stack:
    """The local platform of one data folder."""

    def __init__(self, settings: StackSettings, say: Say | None = None) -> None:
        self.settings = settings
        self._say: Say = say or (lambda _: None)
        self._lock_file = settings.data_dir / "stack.lock"
        self._gateway_pid_file = settings.data_dir / "gateway.pid"
        self._gateway_log = settings.data_dir / "gateway.log"
        self._gateway: subprocess.Popen[bytes] | None = None

    def describe(self) -> dict[str, str]:
        """Give the addresses and keys, under the names that the official CLI uses.

        The last two are of the sandbox that stands in for an account of SimpleMDM.
        """
        return {
            "API_URL": self.settings.api_url,
            "DB_URL": self.settings.db_url,
            "ANON_KEY": self.settings.anon_key,
            "SERVICE_ROLE_KEY": self.settings.service_role_key,
            "JWT_SECRET": self.settings.jwt_secret,
            "SIMPLEMDM_URL": self.settings.simplemdm_url,
            "SIMPLEMDM_KEY": self.settings.simplemdm_keys["full"],
        }

    def up(self, ready: Callable[[dict[str, str]], None]) -> None:
        """Run the platform until a signal stops it; call `ready` once everything answers.

        Call it from the main thread: signals arrive there, and the servers end with it.
        Raises StackError when another one runs on the same folder, or when a part cannot start.
        """
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with self._only_one(), _stopping_on_signals():
            cluster = Cluster(self.settings)
            try:
                self._end_leftovers(cluster)
                self._check_ports()
                self._start_database(cluster)
                self._start_gateway()
                ready(self.describe())
                self._watch(cluster)
            except _StopRequested:
                self._say("stopping")
            finally:
                with _deaf_to_signals():
                    self._stop_gateway()
                    cluster.stop()

    def down(self) -> bool:
        """Stop the platform, or what a killed one has left; tell whether there was anything."""
        pid = self._supervisor()
        if pid is None:
            if not self.settings.data_dir.is_dir():
                return False
            with self._only_one():
                return self._end_leftovers(Cluster(self.settings))
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
            "gateway": pid is not None and self._gateway_answers(),
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

    def _end_leftovers(self, cluster: Cluster) -> bool:
        pid = _read_pid(self._gateway_pid_file)
        gateway = pid is not None and is_alive(pid) and self._is_our_gateway(pid)
        if gateway and pid is not None:
            end_process(pid)
        self._gateway_pid_file.unlink(missing_ok=True)
        server = cluster.running_pid() is not None
        cluster.end_leftovers()
        return gateway or server

    def _is_our_gateway(self, pid: int) -> bool:
        words = command_line(pid)
        return GATEWAY in words and str(self.settings.data_dir) in words

    def _check_ports(self) -> None:
        ports = {
            "PGFLEET_LOCAL_DB_PORT": self.settings.db_port,
            "PGFLEET_LOCAL_API_PORT": self.settings.api_port,
        }
        for name, port in ports.items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    raise StackError(
                        f"port {port} is taken by another program ({error.strerror}): "
                        f"choose another one in {name}"
                    ) from error

    def _start_database(self, cluster: Cluster) -> None:
        settings = self.settings
        if not cluster.is_created:
            self._say(f"creating a Postgres {cluster.binaries.version} cluster")
            cluster.create()
        cluster.start()
        prepare_cluster(settings.admin_url)
        prepare_database(settings.admin_url, default_privileges=settings.default_privileges)
        cluster.set_passwords()
        jobs = self._jobs_at_start()
        self._bring_jobs_home(cluster)
        self._say("migrating")
        migrate(settings.db_url)
        self._set_up_functions()
        if self._jobs_at_start() - jobs:
            # pg_cron runs @reboot jobs when the server starts; they are to run from now on.
            cluster.stop()
            cluster.start()

    def _jobs_at_start(self) -> set[tuple[Any, ...]]:
        with psycopg.connect(self.settings.db_url) as connection:
            cursor = connection.execute(
                "select jobname, command, nodename, nodeport from cron.job"
                " where schedule = '@reboot' and active"
            )
            return set(cursor.fetchall())

    def _bring_jobs_home(self, cluster: Cluster) -> None:
        """Let jobs find the server where it is now: each keeps the address that it was made at."""
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

    def _start_gateway(self) -> None:
        with self._gateway_log.open("ab") as log:
            self._gateway = spawn(
                # The folder is there so that a leftover can be told from somebody else's.
                [sys.executable, "-m", GATEWAY, str(self.settings.data_dir)],
                log=log,
                environment={**os.environ, **self.settings.environment()},
            )
        self._gateway_pid_file.write_text(str(self._gateway.pid))
        end = time.monotonic() + START_SECONDS
        while not self._gateway_answers():
            if self._gateway.poll() is not None or time.monotonic() > end:
                raise StackError(f"the gateway did not start:\n{_tail(self._gateway_log)}")
            time.sleep(0.05)

    def _stop_gateway(self) -> None:
        if self._gateway is None:
            return
        self._gateway.terminate()
        try:
            self._gateway.wait(15)
        except subprocess.TimeoutExpired:
            self._gateway.kill()
            self._gateway.wait()
        self._gateway = None
        self._gateway_pid_file.unlink(missing_ok=True)

    def _watch(self, cluster: Cluster) -> NoReturn:
        """Start again whatever ends, until a signal comes."""
        pause, restarted = 0.0, time.monotonic()
        while True:
            time.sleep(WATCH_SECONDS)
            database_ended = not cluster.is_running()
            gateway_ended = self._gateway is None or self._gateway.poll() is not None
            if not database_ended and not gateway_ended:
                continue
            steady = time.monotonic() - restarted > STEADY_SECONDS
            pause = 0.0 if steady else min(pause * 2 or WATCH_SECONDS, LONGEST_PAUSE_SECONDS)
            self._say(f"{'database' if database_ended else 'gateway'} ended, starting it again")
            time.sleep(pause)
            restarted = time.monotonic()
            try:
                if database_ended:
                    cluster.start()
                else:
                    self._start_gateway()
            except Exception as error:
                self._say(f"cannot start it: {error}")

    def _gateway_answers(self) -> bool:
        try:
            return httpx.get(f"{self.settings.api_url}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _database_answers(self) -> bool:
        try:
            psycopg.connect(self.settings.db_url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Turn signals that stop into an exception in the main thread."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _StopRequested

    with _handling(stop):
        yield


@contextlib.contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Let an impatient second Ctrl-C not leave half of the platform running."""
    with _handling(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        raise StackError("the local platform has to run in the main thread")
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


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


def _tail(path: Path, lines: int = 15) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
