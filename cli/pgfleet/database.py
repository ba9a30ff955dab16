"""The connection of a command: where to, and what is sent over it.

A command reads views, calls functions and writes rows, each in a statement about that one thing;
what there is to be joined, counted or decided, the database does, for everybody alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8

from pgfleet import inputs, options, output
from pgfleet.errors import NotFound, Unavailable, translate_errors

Row = dict[str, Any]
Name = LiteralString
"""The name of a view, function, table, column or parameter: always written in the code."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How a column is compared where it is not simply to equal a value."""

    operator: LiteralString
    value: Any


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
        wanted = {name: value for name, value in (where or {}).items() if value is not None}
        parts = [_selected(columns), sql.SQL("from {}").format(_qualified(view))]
        for word, (name, value) in zip(_words("where", "and"), wanted.items(), strict=False):
            operator = value.operator if isinstance(value, Compared) else "= {}"
            test = sql.SQL(operator).format(sql.Placeholder(name))
            parts.append(sql.SQL("{} {} {}").format(sql.SQL(word), sql.SQL(name), test))
        if order:
            keys = [sql.SQL(f"{k[1:]} desc" if k.startswith("-") else k) for k in order]
            parts.append(sql.SQL("order by {}").format(sql.SQL(", ").join(keys)))
        if limit is not None:
            parts.append(sql.SQL("limit {}").format(sql.Literal(limit)))
        values = {n: _typed(v.value if isinstance(v, Compared) else v) for n, v in wanted.items()}
        return self._run(sql.SQL("\n").join(parts), values)

    def call(self, function: Name, *columns: Name, **arguments: Any) -> list[Row]:
        """Call a function for its rows; an argument that is None is left to its default."""
        called, given = _called(function, arguments)
        return self._run(sql.SQL("{}\nfrom {}").format(_selected(columns), called), given)

    def stream(self, function: Name, *columns: Name, **arguments: Any) -> Iterator[Row]:
        """Call a function for its rows as they come, however many there are."""
        called, given = _called(function, arguments)
        query = sql.SQL("{}\nfrom {}").format(_selected(columns), called)
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
        called, given = _called(function, arguments)
        return self._run(sql.SQL("select {} as answer").format(called), given)[0]["answer"]

    def exact(self, function: Name, **arguments: Any) -> Any:
        """Call a function for its JSON, with every digit of its numbers."""
        called, given = _called(function, arguments)
        rows = self._run(sql.SQL("select ({})::text as answer").format(called), given)
        return inputs.read_json(rows[0]["answer"])

    def insert(self, table: Name, values: Mapping[Name, Any], *columns: Name) -> Row:
        """Add a row and give its columns; a value that is None is left to its default."""
        given = {name: value for name, value in values.items() if value is not None}
        query = sql.SQL("insert into {} ({})\nvalues ({})\nreturning {}").format(
            _qualified(table),
            sql.SQL(", ").join(map(sql.SQL, given)),
            sql.SQL(", ").join(map(sql.Placeholder, given)),
            sql.SQL(", ").join(map(sql.SQL, columns)),
        )
        return self._run(query, given)[0]

    def delete(self, table: Name, row_id: int, *columns: Name) -> list[Row]:
        """Delete the row with this id and give its columns; nothing, where there is none."""
        query = sql.SQL("delete from {}\nwhere id = {}\nreturning {}").format(
            _qualified(table), sql.Placeholder("id"), sql.SQL(", ").join(map(sql.SQL, columns))
        )
        return self._run(query, {"id": row_id})

    def _run(self, query: sql.Composed, values: Row) -> list[Row]:
        """Run one statement and give its rows."""
        person = options.current().acting_as
        if person is not None and self._conn.info.transaction_status == TransactionStatus.IDLE:
            # For each transaction anew: behind a pooler the next one may be somebody else's.
            called, given = _called("fleet.act_as", {"p_person": person})
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


def contains(text: str | None) -> Compared | None:
    """Compare with what has this text in it, in any case."""
    return None if text is None else Compared("ilike {}", f"%{_literal(text)}%")


def starting(text: str) -> Compared:
    """Compare with what begins with this text, in any case."""
    return Compared("ilike {}", f"{_literal(text)}%")


def same(text: str | None) -> Compared | None:
    """Compare with what is this text, in any case."""
    return None if text is None else Compared("ilike {}", _literal(text))


def holding(items: Sequence[str] | None) -> Compared | None:
    """Compare with lists that have all of these items."""
    return Compared("@> {}", list(items)) if items else None


def among(values: Sequence[Any] | None) -> Compared | None:
    """Compare with each of these values."""
    return None if values is None else Compared("= any ({})", list(values))


def since(at: str | None) -> Compared | None:
    """Compare with what is not earlier."""
    return None if at is None else Compared(">= {}", at)


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


def _called(function: Name, arguments: Row) -> tuple[sql.Composed, Row]:
    given = {name: _typed(value) for name, value in arguments.items() if value is not None}
    named = [sql.SQL("{} => {}").format(sql.SQL(n), sql.Placeholder(n)) for n in given]
    return sql.SQL("{}({})").format(_qualified(function), sql.SQL(", ").join(named)), given


def _selected(columns: Sequence[Name]) -> sql.Composed:
    return sql.SQL("select {}").format(sql.SQL(", ").join(map(sql.SQL, columns or ("*",))))


def _qualified(name: Name) -> sql.SQL:
    return sql.SQL(name if "." in name else f"public.{name}")


def _words(first: LiteralString, other: LiteralString) -> Iterator[LiteralString]:
    yield first
    while True:
        yield other


def _typed(value: Any) -> Any:
    """Let whole numbers in a list be ids; alone they fit wherever a number does."""
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return [Int8(item) for item in value]
    return value


def _literal(text: str) -> str:
    """Take the meaning from the signs that stand for anything."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
