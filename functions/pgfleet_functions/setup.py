"""Make the database role that the functions log in as."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

WORKER = "fleet_worker"
TIMEOUTS = {"statement_timeout": "30s", "lock_timeout": "10s"}


def ensure_worker_role(conn: psycopg.Connection[Any], password: str) -> None:
    """Create the role or set its password, and let it see the schema fleet.

    It gets nothing else here: `select fleet.grant_worker()`, run as the owner of the functions,
    lets it execute `fleet.worker_*`.
    """
    # Only the verifier travels: a statement may end in the server's log.
    verifier = conn.pgconn.encrypt_password(password.encode(), WORKER.encode(), b"scram-sha-256")
    with conn.transaction():
        # Two setups at once would both find no role.
        conn.execute("select pg_advisory_xact_lock(hashtext('pgfleet.ensure_worker_role'))")
        found = conn.execute("select from pg_roles where rolname = %s", (WORKER,)).fetchone()
        statement = "create role {} with login password {}"
        if found is not None:
            statement = "alter role {} with login password {}"
        role = sql.Identifier(WORKER)
        conn.execute(sql.SQL(statement).format(role, sql.Literal(verifier.decode())))
        # Whatever it is made to ask for ends, and it waits for nobody for long.
        for setting, value in TIMEOUTS.items():
            conn.execute(
                sql.SQL("alter role {} set {} = {}").format(
                    role, sql.Identifier(setting), sql.Literal(value)
                )
            )
        conn.execute(sql.SQL("grant usage on schema fleet to {}").format(role))
