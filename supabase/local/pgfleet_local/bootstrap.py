"""Giving a plain cluster the manners of a hosted project.

Roles belong to the whole cluster, everything else to one database; so a test session prepares the
cluster once and as many template databases as it likes. Both run as the superuser and leave
`postgres` without superuser rights.
"""

from __future__ import annotations

from importlib.resources import files
from typing import LiteralString

import psycopg

from pgfleet_local.settings import DatabasePrivileges, LocalError

# Order matters: schemas and default privileges first, guards after what they guard.
DATABASE_FILES = (
    "schemas.sql",
    "auth.sql",
    "realtime.sql",
    "realtime_policies.sql",
    "storage.sql",
    "vault.sql",
    "event_triggers.sql",
)


class BootstrapError(LocalError):
    """The server lacks something without which it cannot behave as a hosted project."""


def prepare_cluster(admin_dsn: str) -> None:
    """Create the roles of a hosted project, or bring them back to what they should be."""
    with psycopg.connect(admin_dsn) as connection:
        _run(connection, "roles.sql")


def prepare_database(
    admin_dsn: str,
    *,
    default_privileges: DatabasePrivileges = "new",
    cron: bool = True,
    net: bool = True,
) -> None:
    """Prepare one database, once: one that is prepared already only gets what it lacks.

    `cron` works only in the database that pg_cron serves. `net` takes the real pg_net where it
    serves this database, and a stand-in everywhere else.
    """
    with psycopg.connect(admin_dsn) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtext('pgfleet_local.bootstrap'))")
        if _exists(connection, "select from pg_namespace where nspname = 'pgfleet_local'"):
            if not _exists(connection, "select where to_regclass('storage.objects') is not null"):
                # Prepared before there was a storage.
                _run(connection, "storage.sql")
            return
        for name in DATABASE_FILES:
            _run(connection, name)
        if cron:
            _create_cron(connection)
        if net:
            _create_net(connection)
        if default_privileges == "new":
            _run(connection, "default_privileges_new.sql")


def _create_cron(connection: psycopg.Connection) -> None:
    if not _exists(connection, "select from pg_available_extensions where name = 'pg_cron'"):
        raise BootstrapError(
            "pg_cron is not installed for this Postgres: install it "
            "(Debian and Ubuntu: postgresql-NN-cron, scripts/setup does it)"
        )
    _run(connection, "cron.sql")


def _create_net(connection: psycopg.Connection) -> None:
    if _exists(
        connection,
        "select from pg_available_extensions"
        " where name = 'pg_net' and current_setting('pg_net.database_name', true)"
        " = current_database()",
    ):
        connection.execute("create extension pg_net")
    else:
        _run(connection, "net.sql")


def _exists(connection: psycopg.Connection, query: LiteralString) -> bool:
    return connection.execute(query).fetchone() is not None


def _run(connection: psycopg.Connection, name: str) -> None:
    connection.execute((files("pgfleet_local") / "bootstrap" / name).read_text())
