"""The connection of a command: where to, and what is sent over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgfleet import options, output
from pgfleet.errors import NotFound, Unavailable, translate_errors

Params = dict[str, Any]


class Database:
    """One short transaction: it is committed when the command has done its work."""

    def __init__(self, conn: psycopg.Connection[dict[str, Any]]) -> None:
        self._conn = conn
        self._fill = psycopg.ClientCursor(conn)

    def rows(self, sql: LiteralString, params: Params | None = None) -> list[dict[str, Any]]:
        """Run one statement and give its rows."""
        if options.current().show_sql:
            output.say(self.filled(sql, params))
        return self._conn.execute(sql, params or {}).fetchall()

    def row(self, sql: LiteralString, params: Params | None = None) -> dict[str, Any]:
        """Run one statement that gives exactly one row."""
        rows = self.rows(sql, params)
        if not rows:
            raise NotFound("the database gave no row", reason="not_found")
        return rows[0]

    def script(self, text: str) -> None:
        """Run the statements of a file of ours, which takes no parameters."""
        if options.current().show_sql:
            output.say(text)
        self._conn.execute(text.encode())

    def filled(self, sql: LiteralString, params: Params | None = None) -> str:
        """Give the statement with its parameters in it, ready for the SQL editor."""
        lines = self._fill.mogrify(sql, params or {}).strip("\n").splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        return "\n".join(line[indent:] for line in lines).rstrip() + ";"

    def commit(self) -> None:
        """End the transaction before the command waits: nobody is to wait for a person."""
        self._conn.commit()


@contextmanager
def open_database() -> Iterator[Database]:
    """Connect for one command; what the database refuses becomes a FleetError."""
    with (
        translate_errors(),
        psycopg.connect(
            database_url(),
            row_factory=dict_row,
            application_name="pgfleet",
            client_encoding="utf8",
            connect_timeout=10,
            # Nothing here is run often enough to prepare, and a pooler could not keep it.
            prepare_threshold=None,
        ) as conn,
    ):
        yield Database(conn)


def database_url() -> str:
    """Choose the database: option, environment, else the local stack that is running."""
    chosen = options.current()
    given = chosen.database_url or chosen.running_stack()
    if given is None:
        raise Unavailable(
            "no database was named and no local stack is running here",
            reason="database_url_missing",
            hint="Pass --database-url, set PGFLEET_DATABASE_URL, or start: pgfleet stack up",
        )
    return given


def json_value(value: Any) -> Jsonb:
    """Wrap a value so that it arrives as jsonb."""
    return Jsonb(value)
