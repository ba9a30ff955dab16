"""Statements about one thing: read a view, call a function.

All SQL that the command line and the console send to look at something is composed here; names
are always written in the code, values are always parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.numeric import Int8

Row = dict[str, Any]
Name = LiteralString
"""The name of a view, function, table, column or parameter: always written in the code."""
Statement = tuple[sql.Composed, Row]


@dataclass(frozen=True, slots=True)
class Compared:
    """How a column is compared where it is not simply to equal a value."""

    operator: LiteralString
    value: Any


def reading(
    view: Name,
    where: Mapping[Name, Any] | None = None,
    *,
    columns: Sequence[Name] = ("*",),
    order: Sequence[Name] = (),
    limit: int | None = None,
) -> Statement:
    """Read a view; a condition whose value is None is none. `-id` is from the last on."""
    conditions, values = _conditions(where)
    parts = [selected(columns), sql.SQL("from {}").format(qualified(view)), *conditions]
    if order:
        keys = [sql.SQL(f"{k[1:]} desc" if k.startswith("-") else k) for k in order]
        parts.append(sql.SQL("order by {}").format(sql.SQL(", ").join(keys)))
    if limit is not None:
        parts.append(sql.SQL("limit {}").format(sql.Literal(limit)))
    return sql.SQL("\n").join(parts), values


def counting(view: Name, by: Name, where: Mapping[Name, Any]) -> Statement:
    """Count the rows of a view for each value of a column."""
    conditions, values = _conditions(where)
    parts = [
        selected((by, "count(*)")),
        sql.SQL("from {}").format(qualified(view)),
        *conditions,
        sql.SQL("group by {}").format(sql.SQL(by)),
    ]
    return sql.SQL("\n").join(parts), values


def rows_of(function: Name, columns: Sequence[Name], arguments: Row) -> Statement:
    """Call a function for its rows; an argument that is None is left to its default."""
    call, given = called(function, arguments)
    return sql.SQL("{}\nfrom {}").format(selected(columns), call), given


def value_of(function: Name, arguments: Row) -> Statement:
    """Call a function for its value, named answer."""
    call, given = called(function, arguments)
    return sql.SQL("select {} as answer").format(call), given


def called(function: Name, arguments: Row) -> Statement:
    """Write a call; an argument that is None is left to its default."""
    given = {name: _typed(value) for name, value in arguments.items() if value is not None}
    named = [sql.SQL("{} => {}").format(sql.SQL(n), sql.Placeholder(n)) for n in given]
    return sql.SQL("{}({})").format(qualified(function), sql.SQL(", ").join(named)), given


def selected(columns: Sequence[Name]) -> sql.Composed:
    """Write what is selected."""
    return sql.SQL("select {}").format(sql.SQL(", ").join(map(sql.SQL, columns or ("*",))))


def qualified(name: Name) -> sql.SQL:
    """Write a name with its schema."""
    return sql.SQL(name if "." in name else f"public.{name}")


def contains(text: str | None) -> Compared | None:
    """Compare with what has this text in it, in any case."""
    return None if text is None else Compared("ilike {}", f"%{literal(text)}%")


def starting(text: str) -> Compared:
    """Compare with what begins with this text, in any case."""
    return Compared("ilike {}", f"{literal(text)}%")


def same(text: str | None) -> Compared | None:
    """Compare with what is this text, in any case."""
    return None if text is None else Compared("ilike {}", literal(text))


def holding(items: Sequence[str] | None) -> Compared | None:
    """Compare with lists that have all of these items."""
    return Compared("@> {}", list(items)) if items else None


def among(values: Sequence[Any] | None) -> Compared | None:
    """Compare with each of these values."""
    return None if values is None else Compared("= any ({})", list(values))


def since(at: str | None) -> Compared | None:
    """Compare with what is not earlier."""
    return None if at is None else Compared(">= {}", at)


def _conditions(where: Mapping[Name, Any] | None) -> tuple[list[sql.Composed], Row]:
    wanted = {name: value for name, value in (where or {}).items() if value is not None}
    parts = []
    for word, (name, value) in zip(_words("where", "and"), wanted.items(), strict=False):
        operator = value.operator if isinstance(value, Compared) else "= {}"
        test = sql.SQL(operator).format(sql.Placeholder(name))
        parts.append(sql.SQL("{} {} {}").format(sql.SQL(word), sql.SQL(name), test))
    values = {n: _typed(v.value if isinstance(v, Compared) else v) for n, v in wanted.items()}
    return parts, values


def _words(first: LiteralString, other: LiteralString) -> Iterator[LiteralString]:
    yield first
    while True:
        yield other


def _typed(value: Any) -> Any:
    """Let whole numbers in a list be ids; alone they fit wherever a number does."""
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return [Int8(item) for item in value]
    return value


def literal(text: str) -> str:
    """Take the meaning from the signs that stand for anything."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
