"""Bring a database up to date: ordered table migrations, then everything replaceable.

Tables change by migrations, each applied once. Functions, views, triggers and policies live in
`db/sources` and are applied again as a whole whenever one of them has changed, in one
transaction. An advisory lock keeps a second run out; jobs take it shared and so stay away.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgfleet.errors import Conflict, InvalidInput, MigrationFailed, translate_errors
from pgfleet.output import Progress, silent
from pgfleet.schema import applied
from pgfleet.schema.replaceable import apply, apply_with_patience, leftovers, refused
from pgfleet.schema.sources import (
    SqlFile,
    digest_of,
    migration_files,
    source_files,
    sql_folder,
    version_of,
)

LOCK = "pgfleet.migrate"
_LOCK_PATIENCE_SECONDS = 300.0
_POOLER_PORT = "6543"
_OLDEST_SERVER = 15
_ROLES = {
    "anon": "nologin",
    "authenticated": "nologin",
    "service_role": "nologin bypassrls",
}


@dataclass(frozen=True, slots=True)
class Pending:
    """What a migration would do."""

    migrations: list[SqlFile]
    sources: list[SqlFile]

    def __bool__(self) -> bool:
        return bool(self.migrations or self.sources)

    def script(self) -> str:
        """Give the SQL as one text, each file under its name."""
        parts = [f"-- {file.name}\n{file.text.rstrip()}\n" for file in self.migrations]
        if self.sources:
            parts.append("set check_function_bodies = off;\n")
            parts += [f"-- {file.name}\n{file.text.rstrip()}\n" for file in self.sources]
        return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class Status:
    """How a database compares with the files."""

    applied: list[str]
    pending: Pending
    sources_applied_at: datetime | None
    edited: list[str]
    leftovers: list[str]


@dataclass(slots=True)
class MigrateReport:
    """What a migration has done."""

    applied: list[str] = field(default_factory=list)
    """Table migrations applied now, oldest first."""
    marked: list[str] = field(default_factory=list)
    """Table migrations that the Supabase CLI had applied, now known here as well."""
    sources_applied: int = 0
    """How many source files were applied; none when nothing in them has changed."""
    edited: list[str] = field(default_factory=list)
    """Table migrations whose file is not what was applied; the edit is not in this database."""
    leftovers: list[str] = field(default_factory=list)
    """Functions that no file defines any more; drop them in a migration."""

    @property
    def changed(self) -> bool:
        """Tell whether the database is another one than before."""
        return bool(self.applied or self.sources_applied)


def migrate(
    database_url: str,
    *,
    progress: Progress | None = None,
    folder: Path | None = None,
    database_number: int | None = None,
) -> MigrateReport:
    """Apply what is pending and report it. A second run finds nothing to do.

    The SQL is pgfleet's own unless another `folder` with migrations and sources is named. A
    `database_number` lets the ids of this one of several databases begin where no other's are.

    Raises InvalidInput for the transaction pooler and for a server that is too old or has not the
    roles of the API, Conflict while another migration runs, and MigrationFailed, naming the file,
    when the database refuses; what came before stays applied.
    """
    refuse_transaction_pooler(database_url)
    folder = folder or sql_folder()
    report = MigrateReport()
    tell = progress or silent
    with translate_errors(), _connect(database_url) as conn, _migration_lock(conn):
        _refuse_without_roles(conn)
        applied.create(conn)
        with applied.open_backend(database_url) as backend:
            migrations = applied.read(str(folder / "migrations"))
            _apply_tables(conn, backend, migrations, report, tell)
            report.edited = applied.edited_migrations(conn, migration_files(folder))
            with _hint_at_edits(report.edited):
                report.sources_applied = apply_with_patience(conn, source_files(folder), tell)
            report.leftovers = leftovers(conn)
            # yoyo itself runs hooks only where a migration was pending.
            backend.run_post_apply(migrations)
        if database_number is not None:
            conn.execute("select fleet.number_database(%s)", (database_number,))
        conn.execute("notify pgrst, 'reload schema'")
    return report


def pending(database_url: str, *, folder: Path | None = None) -> Pending:
    """Say what a migration would apply, without changing anything."""
    return status(database_url, folder=folder).pending


def status(database_url: str, *, folder: Path | None = None) -> Status:
    """Compare the database with the files, without changing anything."""
    refuse_transaction_pooler(database_url)
    folder = folder or sql_folder()
    files, sources = migration_files(folder), source_files(folder)
    with translate_errors(), _connect(database_url) as conn:
        versions = applied.versions(conn)
        digest = applied.digest(conn)
        return Status(
            applied=[f.path.stem for f in files if version_of(f.name) in versions],
            pending=Pending(
                [f for f in files if version_of(f.name) not in versions],
                sources if digest_of(sources) != digest else [],
            ),
            sources_applied_at=applied.sources_applied_at(conn),
            edited=applied.edited_migrations(conn, files),
            leftovers=leftovers(conn) if digest is not None else [],
        )


def refuse_transaction_pooler(database_url: str) -> None:
    """Refuse port 6543, where no lock and no setting outlives a transaction."""
    try:
        given = conninfo_to_dict(database_url).get("port") or os.environ.get("PGPORT") or ""
        ports = str(given).split(",")
    except psycopg.ProgrammingError as error:
        raise InvalidInput(
            f"database url: {str(error).strip()}",
            reason="database_url",
            hint="Write it as postgresql://user:password@host:5432/postgres",
        ) from error
    if _POOLER_PORT in ports:
        raise InvalidInput(
            "database url: port 6543 is the transaction pooler, where a migration cannot run",
            reason="transaction_pooler",
            hint="Use the direct connection or the session pooler, both on port 5432",
        )


def apply_sources_in_hook(conn: psycopg.Connection[Any]) -> None:
    """Apply the sources inside yoyo's own transaction, for `yoyo apply` without pgfleet."""
    files = source_files(sql_folder())
    if applied.digest(conn) == digest_of(files):
        # So it is inside `pgfleet db migrate`, which holds the lock in another session.
        return
    conn.execute("select pg_advisory_xact_lock(hashtext(%s))", (LOCK,))
    conn.execute("set local search_path = ''")
    applied.create(conn)
    apply(conn, files, silent)


def _connect(database_url: str) -> psycopg.Connection[Any]:
    conn = psycopg.connect(
        database_url, autocommit=True, application_name="pgfleet migrate", client_encoding="utf8"
    )
    # Names in the catalogue are then written in full, the same in every session.
    conn.execute("set search_path = ''")
    _refuse_old_server(conn)
    return conn


def _refuse_old_server(conn: psycopg.Connection[Any]) -> None:
    """Refuse a server that lacks what the tables need, before anything is written there."""
    row = conn.execute("select current_setting('server_version_num')::integer / 10000").fetchone()
    if row and row[0] < _OLDEST_SERVER:
        conn.close()
        raise InvalidInput(
            f"database url: the server is PostgreSQL {row[0]}, and pgfleet needs {_OLDEST_SERVER}",
            reason="server_too_old",
            hint="Upgrade the server, to PostgreSQL 15 to 18, or name another one",
        )


def _refuse_without_roles(conn: psycopg.Connection[Any]) -> None:
    """Refuse a server without the roles of the API, which is one that nobody has prepared."""
    found = conn.execute("select rolname from pg_roles where rolname = any (%s)", (list(_ROLES),))
    there = {name for (name,) in found}
    missing = [f"create role {name} {how}" for name, how in _ROLES.items() if name not in there]
    if missing:
        raise InvalidInput(
            "database url: the server lacks roles that the API of a hosted project has",
            reason="roles_missing",
            hint=f"Make them, as a superuser: {'; '.join(missing)}",
        )


@contextlib.contextmanager
def _migration_lock(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Hold the advisory lock of migrations.

    The wait is cut into short ones: a session that waits has a snapshot, and the holder may be
    building an index concurrently, which waits for every snapshot to end.
    """
    conn.execute("set statement_timeout = 0")
    conn.execute("set lock_timeout = '2s'")
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            conn.execute("select pg_advisory_lock(hashtext(%s))", (LOCK,))
            break
        except psycopg.errors.LockNotAvailable as error:
            if time.monotonic() > deadline:
                raise Conflict(
                    "another migration has been running for five minutes",
                    reason="migration_running",
                    hint="See who it is: select * from pg_locks where locktype = 'advisory'",
                ) from error
    try:
        yield
    finally:
        if not conn.closed:
            conn.execute("select pg_advisory_unlock(hashtext(%s))", (LOCK,))


def _apply_tables(
    conn: psycopg.Connection[Any],
    backend: applied.AppliedBackend,
    migrations: Any,
    report: MigrateReport,
    tell: Progress,
) -> None:
    pushed = applied.pushed_versions(conn)
    waiting = backend.to_apply(migrations)
    known = [m for m in waiting if m.id[:14] in pushed]
    backend.mark_migrations(waiting.__class__(known))
    report.marked = [m.id for m in known]

    todo = [m for m in waiting if m.id[:14] not in pushed]
    # Only where a push brought our tables does the Supabase CLI keep account of them.
    follows_push = any(m.id[:14] in pushed for m in migrations)
    for done, migration in enumerate(todo):
        tell(f"migrations/{migration.id}.sql", done, len(todo))
        file = SqlFile(migration.id, Path(migration.path))
        _apply_one(backend, migration)
        applied.record_checksum(conn, file)
        report.applied.append(migration.id)
        if follows_push:
            applied.record_push(conn, file)


@contextlib.contextmanager
def _hint_at_edits(edited: list[str]) -> Iterator[None]:
    """Name the likely cause where sources meet tables that were edited too late."""
    try:
        yield
    except MigrationFailed as error:
        if edited:
            error.hint = (
                f"{', '.join(edited)} was edited after it was applied here; "
                "change tables in a new migration, or start with an empty database"
            )
        raise


def _apply_one(backend: applied.AppliedBackend, migration: Any) -> None:
    """Apply one migration and mark it in the same transaction, where it allows one."""
    try:
        # A migration that selects would print its rows among the data of the command.
        with contextlib.redirect_stdout(sys.stderr):
            migration.load()
            if not migration.use_transactions:
                backend.apply_one(migration)
                return
            with backend.copy() as session, session.transaction():
                migration.process_steps(session, "apply")
                session.mark_one(migration, log=False)
                session.log_migration(migration, "apply")
    except psycopg.Error as error:
        raise refused(f"migrations/{migration.id}.sql", None, error) from error
