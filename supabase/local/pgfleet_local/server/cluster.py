"""A private Postgres cluster: its own folder, its own socket, reachable from this machine only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import PGconn, Ping

from pgfleet_local.server.binaries import Binaries, find_binaries
from pgfleet_local.server.logs import shorten, tail
from pgfleet_local.server.processes import (
    as_account,
    command_line,
    end_process,
    is_alive,
    running_in,
    send,
    server_account,
    spawn,
    wait_gone,
)
from pgfleet_local.settings import HOST, LocalError, StackSettings, is_reachable

ADMIN = "supabase_admin"
StopMode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
# A socket's path has room for about 100 bytes, of which "/.s.PGSQL.65535" takes 15.
LONGEST_SOCKET_FOLDER = 85
# After a crash the server reads its log first; as long as it says so it is waited for.
RECOVERY_SECONDS = 900.0
SCHEDULER_SECONDS = 5.0
SCHEDULER_RUNS = "select from pg_stat_activity where backend_type = 'pg_cron launcher'"


class ClusterError(LocalError):
    """The cluster could not be created, started or stopped."""


class Cluster:
    """One data folder and the server that runs on it.

    Start it from a thread that lives as long as the server should: on Linux the kernel stops
    the server when that thread is gone.
    """

    name = "database"
    # A scheduler that can come back by itself has done so by then.
    patience = 10.0

    def __init__(self, settings: StackSettings, binaries: Binaries | None = None) -> None:
        self.settings = settings
        self.folder = settings.data_dir / "postgres"
        self.binaries = binaries or find_binaries(self._made_with())
        self.account = server_account()
        self.log = settings.data_dir / "postgres.log"
        self.socket_dir = self._socket_folder()
        self._server: subprocess.Popen[bytes] | None = None
        self._had_scheduler = False

    @property
    def is_created(self) -> bool:
        """Tell whether the data folder holds a complete cluster."""
        return (self.folder / "pgfleet.conf").exists()

    @property
    def has_cron(self) -> bool:
        """Tell whether pg_cron serves it; elsewhere something else has to tick."""
        return self.binaries.has_library("pg_cron")

    @property
    def socket_admin_dsn(self) -> str:
        """Give the way in that needs no password; only the server's account can pass there."""
        return f"host={self.socket_dir} port={self.settings.db_port} user={ADMIN} dbname=postgres"

    def create(self) -> None:
        """Create the data folder; one that was left half made is made again."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self._prepare_folders()
        command = [
            *(self.binaries.program("initdb"), "-D", str(self.folder), "-U", ADMIN),
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8"),
            f"--locale={'C.UTF-8' if sys.platform == 'linux' else 'C'}",
        ]
        with tempfile.NamedTemporaryFile("w", dir=self.socket_dir) as password:
            password.write(self.settings.password(ADMIN))
            password.flush()
            self._own(Path(password.name))
            command.append(f"--pwfile={password.name}")
            if not self.settings.durable:
                command.append("--no-sync")
            self._run(command)
        with (self.folder / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'pgfleet.conf'\n")
        # Written last: it is the mark of a complete cluster.
        self._write_configuration()

    def start(self, seconds: float = 60) -> None:
        """Start the server, after ending what an earlier run left, and wait until it answers."""
        if self.is_running():
            raise ClusterError(f"the server in {self.folder} is running already")
        self._prepare_folders()
        self.end_leftovers()
        self._write_configuration()
        shorten(self.log)
        start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._server = spawn(
                [self.binaries.program("postgres"), "-D", str(self.folder)],
                log=log,
                account=self.account,
                environment=self._environment(),
                death_signal="INT",
            )
        self._wait_ready(time.monotonic() + seconds, start)
        self.set_passwords()
        self._had_scheduler = self._wait_for_scheduler()

    def stop(self, mode: StopMode = "fast", seconds: float = 30) -> None:
        """Stop the server, whoever started it, and wait until it is gone."""
        pid = self._server.pid if self._server else self.running_pid()
        if pid is not None:
            send(pid, STOP_SIGNALS[mode])
            if not self._wait_exit(pid, seconds):
                send(pid, signal.SIGQUIT)
                self._wait_exit(pid, seconds)
        self._server = None
        self.end_leftovers()

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        pid = self._server.pid if self._server else self.running_pid()
        if pid is not None:
            send(pid, signal.SIGKILL)
            self._wait_exit(pid, 10)
        self._server = None

    def is_running(self) -> bool:
        """Tell whether the server that we started is up."""
        return self._server is not None and self._server.poll() is None

    def complaint(self) -> str | None:
        """Say that pg_cron has ended, for then nothing ticks though the server answers.

        Its older releases are not started again by the server once their backend was terminated,
        as happens to all of them when somebody ends every connection of the database.
        """
        shorten(self.log)
        try:
            runs = self._scheduler_runs()
        except psycopg.Error:
            # It recovers, or is full: to stop it would make nothing better.
            return None
        return "pg_cron has ended" if self._had_scheduler and not runs else None

    def _scheduler_runs(self) -> bool:
        with psycopg.connect(self.socket_admin_dsn, connect_timeout=2) as connection:
            return connection.execute(SCHEDULER_RUNS).fetchone() is not None

    def _wait_for_scheduler(self) -> bool:
        """Tell whether pg_cron is at work, which it is at once or not at all."""
        end = time.monotonic() + SCHEDULER_SECONDS
        while self.has_cron and time.monotonic() < end:
            if self._scheduler_runs():
                return True
            time.sleep(0.02)
        return False

    def running_pid(self) -> int | None:
        """Give the process that serves the data folder, whoever started it."""
        try:
            pid = int((self.folder / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        words = command_line(pid)
        is_ours = str(self.folder) in words and any("postgres" in word for word in words[:1])
        return pid if is_alive(pid) and is_ours else None

    def end_leftovers(self) -> None:
        """End a server and backends that outlived their supervisor, and drop stale lock files."""
        pid = self.running_pid()
        if pid is not None:
            end_process(pid, signal.SIGINT)
        survivors = running_in(self.folder, "postgres")
        for survivor in survivors:
            send(survivor, signal.SIGQUIT)
        if not wait_gone(survivors, 5):
            for survivor in survivors:
                send(survivor, signal.SIGKILL)
            wait_gone(survivors, 5)
        # The number in them may belong to a stranger by now; Postgres would refuse to start.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        for file in self.socket_dir.glob(".s.PGSQL.*"):
            file.unlink(missing_ok=True)

    def _made_with(self) -> int | None:
        """Give the version that made the data folder; no other one can serve it."""
        try:
            return int((self.folder / "PG_VERSION").read_text())
        except (OSError, ValueError):
            return None

    def _socket_folder(self) -> Path:
        folder = self.settings.data_dir / "socket"
        if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER:
            return folder
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        return Path("/tmp") / f"pgfleet-{name}"

    def _prepare_folders(self) -> None:
        data_dir = self.settings.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        if self.account is not None:
            data_dir.chmod(0o711)
            if not is_reachable(data_dir):
                raise ClusterError(
                    f"the account {self.account.pw_name} cannot reach {data_dir}: "
                    "choose a folder in PGFLEET_LOCAL_DATA_DIR that every account can pass to"
                )
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        self._own(self.socket_dir)
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            self._own(self.folder)

    def _own(self, path: Path) -> None:
        owner = self.account.pw_uid if self.account else os.geteuid()
        if path.is_symlink() or path.stat().st_uid not in (os.geteuid(), owner):
            raise ClusterError(f"{path} belongs to somebody else")
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _write_configuration(self) -> None:
        path = self.folder / "pgfleet.conf"
        path.write_text("".join(f"{name} = {value}\n" for name, value in self._configuration()))
        self._own(path)

    def _configuration(self) -> list[tuple[str, str]]:
        wanted = ("pg_stat_statements", "pg_cron", "pg_net")
        libraries = [name for name in wanted if self.binaries.has_library(name)]
        lines = [
            ("listen_addresses", f"'{HOST}'"),
            ("port", str(self.settings.db_port)),
            ("unix_socket_directories", f"'{self.socket_dir}'"),
            ("shared_preload_libraries", f"'{','.join(libraries)}'"),
            ("max_connections", str(self.settings.max_connections)),
            ("max_worker_processes", "6"),
            ("max_replication_slots", "5"),
            ("max_wal_senders", "10"),
            ("wal_level", "logical"),
            ("max_slot_wal_keep_size", "4GB"),
            ("password_encryption", "'scram-sha-256'"),
            ("statement_timeout", "'2min'"),
            ("timezone", "'UTC'"),
            ("log_timezone", "'UTC'"),
            ("log_line_prefix", "'%m [%p] %q%u@%d '"),
        ]
        if self.has_cron:
            lines += [
                ("cron.database_name", "'postgres'"),
                # Background workers of pg_cron 1.4 hold back every job while a long one runs.
                ("cron.use_background_workers", "off"),
                ("cron.host", f"'{self.socket_dir}'"),
            ]
        if "output_plugin_libraries" in self.binaries.settings:
            lines.append(("output_plugin_libraries", "'pgoutput, test_decoding, wal2json'"))
        if not self.settings.durable:
            lines += [(name, "off") for name in ("fsync", "synchronous_commit", "full_page_writes")]
        return lines

    def _environment(self) -> dict[str, str]:
        # The server's time zone and messages must not depend on who starts it.
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            as_account(self.account, command),
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if done.returncode != 0:
            raise ClusterError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")

    def _wait_ready(self, end: float, log_start: int) -> None:
        longest = end + RECOVERY_SECONDS
        dsn = self.socket_admin_dsn.encode()
        while True:
            found = PGconn.ping(dsn)
            if found == Ping.OK:
                with contextlib.suppress(psycopg.OperationalError):
                    psycopg.connect(self.socket_admin_dsn, connect_timeout=5).close()
                    return
            now = time.monotonic()
            if not self.is_running() or now > (longest if found == Ping.REJECT else end):
                self.stop("immediate")
                said = tail(self.log, lines=10, start=log_start)
                raise ClusterError(f"Postgres did not start:\n{said}\n(log: {self.log})")
            time.sleep(0.05)

    def set_passwords(self) -> None:
        """Give the login roles that exist the passwords that the settings name."""
        query: LiteralString = "select rolname from pg_roles where rolname = any (%s)"
        roles = [ADMIN, "postgres", "authenticator", "fleet_worker"]
        with psycopg.connect(self.socket_admin_dsn) as connection:
            for (role,) in connection.execute(query, (roles,)).fetchall():
                connection.execute(
                    sql.SQL("alter role {} password {}").format(
                        sql.Identifier(role), sql.Literal(self.settings.password(role))
                    )
                )

    def _wait_exit(self, pid: int, seconds: float) -> bool:
        if self._server is None or self._server.pid != pid:
            return wait_gone([pid], seconds)
        try:
            self._server.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
