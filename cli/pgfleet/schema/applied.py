"""What the database remembers of earlier migrations: schema `fleet_ledger`.

yoyo keeps its tables there, out of sight of the API, and beside them are ours: the digest
of the sources that were applied last, every function that they defined, and the checksum of
each migration.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from yoyo import internalmigrations  # type: ignore[import-untyped]
from yoyo.backends.core.postgresql import (  # type: ignore[import-untyped]
    PostgresqlPsycopgBackend,
)
from yoyo.migrations import (  # type: ignore[import-untyped]
    MigrationList,
    default_migration_table,
    read_migrations,
)

from pgfleet.schema.sources import SqlFile, checksum, mended_checksums, version_of

SCHEMA = "fleet_ledger"

_CREATE = """
create schema if not exists fleet_ledger;
revoke all on schema fleet_ledger from public;
comment on schema fleet_ledger is
  'What pgfleet has applied to this database; written by pgfleet db migrate only.';

create table if not exists fleet_ledger.sources (
  id int primary key default 1,
  digest text not null,
  applied_at timestamptz not null default now(),
  constraint sources_has_one_row check (id = 1)
);
comment on table fleet_ledger.sources is 'Digest of db/sources as last applied.';

create table if not exists fleet_ledger.functions (
  signature text primary key,
  digest text not null
);
create table if not exists fleet_ledger.migrations (
  version text primary key,
  checksum text not null
);
comment on table fleet_ledger.migrations is
  'The checksum of each table migration as it was applied; yoyo and Supabase know only names.';

comment on table fleet_ledger.functions is
  'Every function that sources have defined, with the digest that defined it last.';
"""


class AppliedBackend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo on psycopg 3, with any connection string and our session settings.

    yoyo's own parser of URLs knows neither `key=value` strings nor several hosts, and a hosted
    project ends every statement after two minutes, which building an index may take.
    """

    schema = SCHEMA

    def connect(self, dburi: str) -> psycopg.Connection[Any]:
        """Open a session in autocommit, as yoyo expects it."""
        return psycopg.connect(
            dburi, autocommit=True, application_name="pgfleet migrate", client_encoding="utf8"
        )

    def init_connection(self, connection: psycopg.Connection[Any]) -> None:
        """Set the search path of yoyo's tables, and the timeouts of a migration."""
        super().init_connection(connection)
        connection.execute("set statement_timeout = 0")
        connection.execute("set lock_timeout = '30s'")

    def list_tables(self, **kwargs: Any) -> list[str]:
        """List the tables that are there, by which yoyo tells its own version."""
        rows = self.execute("select tablename from pg_tables where schemaname = current_schema")
        return [name for (name,) in rows.fetchall()]


def open_backend(conninfo: str) -> AppliedBackend:
    """Connect yoyo, and bring its tables up to date.

    The caller holds the migration lock: yoyo's own is a row that a killed process leaves behind.
    """
    backend = AppliedBackend(conninfo, default_migration_table)
    try:
        if internalmigrations.needs_upgrading(backend):
            internalmigrations.upgrade(backend)
    except BaseException:
        backend.connection.close()
        raise
    return backend


def read(folder: str) -> MigrationList:
    """Read the migrations of a folder the way yoyo does."""
    return read_migrations(folder)


def create(conn: psycopg.Connection[Any]) -> None:
    """Create the schema and our tables in it, if they are missing."""
    conn.execute(_CREATE)


def versions(conn: psycopg.Connection[Any]) -> set[str]:
    """List the versions that yoyo or the Supabase CLI has recorded."""
    found: set[str] = set()
    if _exists(conn, "fleet_ledger._yoyo_migration"):
        rows = conn.execute("select migration_id from fleet_ledger._yoyo_migration").fetchall()
        found.update(version_of(name) for (name,) in rows)
    return found | pushed_versions(conn)


def pushed_versions(conn: psycopg.Connection[Any]) -> set[str]:
    """List the versions that `supabase db push` has recorded."""
    if not _exists(conn, "supabase_migrations.schema_migrations"):
        return set()
    rows = conn.execute("select version from supabase_migrations.schema_migrations").fetchall()
    return {version for (version,) in rows}


def record_push(conn: psycopg.Connection[Any], file: SqlFile) -> None:
    """Tell the Supabase CLI of a migration that we applied, so that it does not push it again."""
    conn.execute(
        """
        insert into supabase_migrations.schema_migrations (version, name, statements)
        values (%s, %s, array[%s])
        on conflict (version) do nothing
        """,
        (version_of(file.name), file.path.stem[15:], file.text),
    )


def record_checksum(conn: psycopg.Connection[Any], file: SqlFile) -> None:
    """Keep what a migration looked like when it was applied."""
    conn.execute(
        """
        insert into fleet_ledger.migrations (version, checksum) values (%s, %s)
        on conflict (version) do update set checksum = excluded.checksum
        """,
        (version_of(file.name), checksum(file)),
    )


def edited_migrations(conn: psycopg.Connection[Any], files: list[SqlFile]) -> list[str]:
    """Name the migrations that were edited after they had been applied here."""
    if not _exists(conn, "fleet_ledger.migrations"):
        return []
    rows = conn.execute("select version, checksum from fleet_ledger.migrations").fetchall()
    recorded = {str(version): str(known) for version, known in rows}
    return [
        file.path.stem
        for file in files
        if recorded.get(version_of(file.name), checksum(file))
        not in (checksum(file), *mended_checksums(file))
    ]


def digest(conn: psycopg.Connection[Any]) -> str | None:
    """Give the digest of the sources as last applied; none on a new database."""
    if not _exists(conn, "fleet_ledger.sources"):
        return None
    row = conn.execute("select digest from fleet_ledger.sources").fetchone()
    return None if row is None else str(row[0])


def sources_applied_at(conn: psycopg.Connection[Any]) -> datetime | None:
    """Give the time at which the sources were applied last."""
    if not _exists(conn, "fleet_ledger.sources"):
        return None
    row = conn.execute("select applied_at from fleet_ledger.sources").fetchone()
    return None if row is None else row[0]


def _exists(conn: psycopg.Connection[Any], table: str) -> bool:
    row = conn.execute("select to_regclass(%s) is not null", (table,)).fetchone()
    return row is not None and bool(row[0])
