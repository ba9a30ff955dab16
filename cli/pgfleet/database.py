"""The connection of a command: where to, and what is sent over it.

A command reads views, calls functions and writes rows, each in a statement about that one thing;
what there is to be joined, counted or decided, the database does, for everybody alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgfleet import inputs, options, output, statements
from pgfleet.errors import NotFound, Unavailable, translate_errors
from pgfleet.statements import Name, Row


class Database:
    """One short transaction: it is committed when the command has done its work."""

    def __init__(self, conn: psycopg.Connection[dict[str, Any]]) -> None:
        self._conn = conn
        self._fill = psycopg.ClientCursor(conn)
        self._touched = 0

    def find(
        self,
        view: Name,
        where: Mapping[Name, Any] | None = None,
        *,
        columns: Sequence[Name] = ("*",),
        order: Sequence[Name] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Read a view; a condition whose value is None is none. `-id` is from the last on."""
        return self._run(
            *statements.reading(view, where, columns=columns, order=order, limit=limit)
        )

    def call(self, function: Name, *columns: Name, **arguments: Any) -> list[Row]:
        """Call a function for its rows; an argument that is None is left to its default."""
        return self._run(*statements.rows_of(function, columns, arguments))

    def stream(self, function: Name, *columns: Name, **arguments: Any) -> Iterator[Row]:
        """Call a function for its rows as they come, however many there are."""
        query, given = statements.rows_of(function, columns, arguments)
        if options.current().show_sql:
            output.show_sql(f"{self._fill.mogrify(query, given)};")
        with self._conn.cursor(name="stream") as cursor:
            yield from cursor.execute(query, given)

    def snapshot(self) -> None:
        """See one state of everything in the next transaction; a dry run stays in its own."""
        if self._conn.info.transaction_status == TransactionStatus.IDLE:
            self._conn.isolation_level = IsolationLevel.REPEATABLE_READ

    def row(self, function: Name, *columns: Name, **arguments: Any) -> Row:
        """Call a function that gives exactly one row."""
        rows = self.call(function, *columns, **arguments)
        if not rows:
            raise NotFound("the database gave no row", reason="not_found")
        return rows[0]

    def value(self, function: Name, **arguments: Any) -> Any:
        """Call a function for its value; an argument that is None is left to its default."""
        return self._run(*statements.value_of(function, arguments))[0]["answer"]

    def exact(self, function: Name, **arguments: Any) -> Any:
        """Call a function for its JSON, with every digit of its numbers."""
        called, given = statements.called(function, arguments)
        rows = self._run(sql.SQL("select ({})::text as answer").format(called), given)
        return inputs.read_json(rows[0]["answer"])

    def insert(self, table: Name, values: Mapping[Name, Any], *columns: Name) -> Row:
        """Add a row and give its columns; a value that is None is left to its default."""
        given = {name: value for name, value in values.items() if value is not None}
        query = sql.SQL("insert into {} ({})\nvalues ({})\nreturning {}").format(
            statements.qualified(table),
            sql.SQL(", ").join(map(sql.SQL, given)),
            sql.SQL(", ").join(map(sql.Placeholder, given)),
            sql.SQL(", ").join(map(sql.SQL, columns)),
        )
        return self._run(query, given)[0]

    def delete(self, table: Name, row_id: int, *columns: Name) -> list[Row]:
        """Delete the row with this id and give its columns; nothing, where there is none."""
        query = sql.SQL("delete from {}\nwhere id = {}\nreturning {}").format(
            statements.qualified(table),
            sql.Placeholder("id"),
            sql.SQL(", ").join(map(sql.SQL, columns)),
        )
        return self._run(query, {"id": row_id})

    def _run(self, query: sql.Composed, values: Row) -> list[Row]:
        """Run one statement and give its rows."""
        person = options.current().acting_as
        if person is not None and self._conn.info.transaction_status == TransactionStatus.IDLE:
            # For each transaction anew: behind a pooler the next one may be somebody else's.
            called, given = statements.called("fleet.act_as", {"p_person": person})
            self._execute(sql.SQL("select {}").format(called), given)
        return self._execute(query, values)

    def _execute(self, query: sql.Composed, values: Row) -> list[Row]:
        if options.current().show_sql:
            output.show_sql(f"{self._fill.mogrify(query, values)};")
        return self._conn.execute(query, values).fetchall()

    def script(self, text: str) -> None:
        """Run the statements of a file of ours, which takes no parameters."""
        if options.current().show_sql:
            output.show_sql(text)
        self._conn.execute(text.encode())

    def commit(self) -> None:
        """End the transaction before the command waits: nobody is to wait for a person."""
        if not options.current().dry_run:
            self._conn.commit()

    def touches(self, kind: str, *ids: int) -> None:
        """Count, for a dry run, the devices that a change of these things reaches."""
        if options.current().dry_run:
            self._touched += self.value(
                "count_touched_devices", p_kind=kind, p_ids=[int(one) for one in ids]
            )

    def take_back(self) -> None:
        """End a dry run: nothing of it stays, and the person hears what it would have reached."""
        self._conn.rollback()
        count = f"{self._touched} device{'' if self._touched == 1 else 's'}"
        output.say(f"Dry run: nothing was changed. It would touch {count}.")


@contextmanager
def open_database(timeout: int = 10, url: str | None = None) -> Iterator[Database]:
    """Connect for one command; what the database refuses becomes a FleetError.

    To the database that was chosen, or its replica, unless another one is named.
    """
    with (
        translate_errors(),
        psycopg.connect(
            url or _url_of_verb(),
            row_factory=dict_row,
            application_name="pgfleet",
            client_encoding="utf8",
            connect_timeout=timeout,
            # Nothing here is run often enough to prepare, and a pooler could not keep it.
            prepare_threshold=None,
        ) as conn,
    ):
        db = Database(conn)
        yield db
        if options.current().dry_run:
            db.take_back()


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


def _url_of_verb() -> str:
    """Choose the replica for a verb that only reads, where there is one."""
    chosen = options.current()
    replica = None if chosen.changes else chosen.read_database_url
    return replica or database_url()


def json_value(value: Any) -> Jsonb:
    """Wrap a value so that it arrives as jsonb."""
    return Jsonb(value, dumps=inputs.to_json)
