"""Bring a database up to date: ordered table migrations, then everything replaceable.

Tables change by migrations, each applied once. Functions, views, triggers and policies live in
`db/sources` and are applied again as a whole whenever one of them has changed, in one
transaction. An advisory lock keeps a second run out; jobs take it shared and so stay away.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgfleet import ledger
from pgfleet.errors import Conflict, FleetError, InvalidInput, MigrationFailed, translate_errors
from pgfleet.sources import (
    SqlFile,
    digest_of,
    migration_files,
    source_files,
    sql_folder,
    version_of,
)

LOCK = "pgfleet.migrate"
_LOCK_PATIENCE_SECONDS = 300.0
_TRIES = 5
_POOLER_PORT = "6543"

_OWN_FUNCTIONS = """
select p.oid::regprocedure::text, p.xmin::text, n.nspname = 'fleet'
from pg_proc as p
join pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('public', 'fleet')
  and p.proowner = (select r.oid from pg_roles as r where r.rolname = current_user)
  and not exists (
    select from pg_depend as d
    where d.classid = 'pg_proc'::regclass
      and d.objid = p.oid
      and d.deptype = 'e'
  )
"""


class Progress(Protocol):
    """What a caller may pass to hear how far a migration has got."""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Take the name of the step and how many of its parts are done."""


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
    leftovers: list[str] = field(default_factory=list)
    """Functions that no file defines any more; drop them in a migration."""

    @property
    def changed(self) -> bool:
        """Tell whether the database is another one than before."""
        return bool(self.applied or self.sources_applied)


def migrate(
    database_url: str, *, progress: Progress | None = None, folder: Path | None = None
) -> MigrateReport:
    """Apply what is pending and report it. A second run finds nothing to do.

    The SQL is pgfleet's own unless another `folder` with migrations and sources is named.

    Raises InvalidInput for the transaction pooler, Conflict while another migration runs, and
    MigrationFailed, naming the file, when the database refuses; what came before stays applied.
    """
    refuse_transaction_pooler(database_url)
    folder = folder or sql_folder()
    report = MigrateReport()
    tell = progress or _silent
    with translate_errors(), _connect(database_url) as conn, _migration_lock(conn):
        ledger.create(conn)
        with ledger.open_backend(database_url) as backend:
            migrations = ledger.read(str(folder / "migrations"))
            _apply_tables(conn, backend, migrations, report, tell)
            _apply_sources_with_patience(conn, folder, report, tell)
            # yoyo itself runs hooks only where a migration was pending.
            backend.run_post_apply(migrations)
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
        versions = ledger.applied_versions(conn)
        digest = ledger.applied_digest(conn)
        return Status(
            applied=[f.path.stem for f in files if version_of(f.name) in versions],
            pending=Pending(
                [f for f in files if version_of(f.name) not in versions],
                sources if digest_of(sources) != digest else [],
            ),
            sources_applied_at=ledger.applied_at(conn),
            leftovers=leftovers(conn) if digest is not None else [],
        )


def refuse_transaction_pooler(database_url: str) -> None:
    """Refuse port 6543, where no lock and no setting outlives a transaction."""
    try:
        ports = str(conninfo_to_dict(database_url).get("port") or "").split(",")
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
    folder = sql_folder()
    if ledger.applied_digest(conn) == digest_of(source_files(folder)):
        # So it is inside `pgfleet db migrate`, which holds the lock in another session.
        return
    conn.execute("select pg_advisory_xact_lock(hashtext(%s))", (LOCK,))
    conn.execute("set local search_path = ''")
    ledger.create(conn)
    _apply_sources(conn, folder, MigrateReport(), _silent)


def _silent(step: str, done: int, total: int) -> None:
    pass


def _connect(database_url: str) -> psycopg.Connection[Any]:
    conn = psycopg.connect(
        database_url, autocommit=True, application_name="pgfleet migrate", client_encoding="utf8"
    )
    # Names in the catalogue are then written in full, the same in every session.
    conn.execute("set search_path = ''")
    return conn


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
    backend: ledger.LedgerBackend,
    migrations: Any,
    report: MigrateReport,
    tell: Progress,
) -> None:
    pushed = ledger.pushed_versions(conn)
    waiting = backend.to_apply(migrations)
    known = [m for m in waiting if m.id[:14] in pushed]
    backend.mark_migrations(waiting.__class__(known))
    report.marked = [m.id for m in known]

    todo = [m for m in waiting if m.id[:14] not in pushed]
    # Only where a push brought our tables does the Supabase CLI keep account of them.
    follows_push = any(m.id[:14] in pushed for m in migrations)
    for done, migration in enumerate(todo):
        tell(f"migrations/{migration.id}.sql", done, len(todo))
        _apply_one(backend, migration)
        report.applied.append(migration.id)
        if follows_push:
            ledger.record_push(conn, SqlFile(migration.id, Path(migration.path)))


def _apply_one(backend: ledger.LedgerBackend, migration: Any) -> None:
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
        raise _failed(f"migrations/{migration.id}.sql", None, error) from error


def _apply_sources_with_patience(
    conn: psycopg.Connection[Any], folder: Path, report: MigrateReport, tell: Progress
) -> None:
    """Apply the sources; give way and try again where somebody holds a table for long."""
    for left in reversed(range(_TRIES)):
        try:
            with conn.transaction():
                _apply_sources(conn, folder, report, tell)
            return
        except MigrationFailed as error:
            cause = error.__cause__
            busy = isinstance(
                cause, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected
            )
            if not busy or not left:
                raise


def _apply_sources(
    conn: psycopg.Connection[Any], folder: Path, report: MigrateReport, tell: Progress
) -> None:
    """Apply every source file unless none has changed, and find what none defines any more."""
    files = source_files(folder)
    digest = digest_of(files)
    if ledger.applied_digest(conn) != digest:
        before = _own_functions(conn)
        _execute_files(conn, files, tell)
        _record_functions(conn, before, digest)
        conn.execute(
            """
            insert into fleet_ledger.sources (digest) values (%s)
            on conflict (id) do update set digest = excluded.digest, applied_at = now()
            """,
            (digest,),
        )
        report.sources_applied = len(files)
    _after_migrate(conn)
    report.leftovers = leftovers(conn)


def _execute_files(conn: psycopg.Connection[Any], files: list[SqlFile], tell: Progress) -> None:
    # Bodies may name what a later file defines; a lock that is not had soon is tried again.
    conn.execute("set local check_function_bodies = off")
    conn.execute("set local lock_timeout = '5s'")
    for done, file in enumerate(files):
        tell(file.name, done, len(files))
        text = file.text
        try:
            conn.execute(text.encode())
        except psycopg.Error as error:
            raise _failed(file.name, text, error) from error
    tell("sources", len(files), len(files))
    conn.execute("set local check_function_bodies = on")


def _own_functions(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Map each function of ours to the transaction that wrote it last."""
    return {signature: xmin for signature, xmin, _ in conn.execute(_OWN_FUNCTIONS)}


def _record_functions(conn: psycopg.Connection[Any], before: dict[str, str], digest: str) -> None:
    defined = [
        signature
        for signature, xmin in _own_functions(conn).items()
        if before.get(signature) != xmin
    ]
    conn.execute(
        """
        insert into fleet_ledger.functions (signature, digest)
        select unnest(%s::text[]), %s
        on conflict (signature) do update set digest = excluded.digest
        """,
        (defined, digest),
    )
    conn.execute(
        "delete from fleet_ledger.functions where not signature = any (%s::text[])",
        (list(_own_functions(conn)),),
    )


def leftovers(conn: psycopg.Connection[Any]) -> list[str]:
    """List the functions that no source defines any more.

    In `fleet` that is every function not written by the last sources; in `public`, which a
    project shares with us, only one that sources have defined before.
    """
    digest = ledger.applied_digest(conn)
    recorded = dict(conn.execute("select signature, digest from fleet_ledger.functions").fetchall())
    return sorted(
        signature
        for signature, _, is_fleet in conn.execute(_OWN_FUNCTIONS)
        if (signature in recorded or is_fleet) and recorded.get(signature) != digest
    )


def _after_migrate(conn: psycopg.Connection[Any]) -> None:
    """Let the database bring its jobs, publications and time zones in line."""
    row = conn.execute("select to_regprocedure('fleet.after_migrate()') is not null").fetchone()
    if row is None or not row[0]:
        return
    try:
        conn.execute("select fleet.after_migrate()")
    except psycopg.Error as error:
        raise _failed("fleet.after_migrate()", None, error) from error


def _failed(name: str, text: str | None, error: psycopg.Error) -> FleetError:
    """Say which file, and where in it, the database refused."""
    position = error.diag.statement_position
    line = ""
    if text is not None and position is not None:
        line = f" line {text.count(chr(10), 0, int(position)) + 1}"
    message = error.diag.message_primary or str(error).strip()
    return MigrationFailed(
        f"{name}{line}: {message}",
        reason=error.diag.message_detail or error.sqlstate,
        hint=error.diag.message_hint or "Nothing of this file was applied",
    )
