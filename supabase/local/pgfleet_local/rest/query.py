"""Read a query string into SQL fragments, every value a parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from pgfleet_local.rest.errors import bad_query

RESERVED = frozenset({"select", "order", "limit", "offset", "columns", "on_conflict", "apikey"})
LOGIC = re.compile(r"^(not\.)?(and|or)$")
OPERATORS: dict[str, sql.SQL] = {
    "eq": sql.SQL("="),
    "neq": sql.SQL("<>"),
    "gt": sql.SQL(">"),
    "gte": sql.SQL(">="),
    "lt": sql.SQL("<"),
    "lte": sql.SQL("<="),
    "like": sql.SQL("like"),
    "ilike": sql.SQL("ilike"),
    "match": sql.SQL("~"),
    "imatch": sql.SQL("~*"),
    "cs": sql.SQL("@>"),
    "cd": sql.SQL("<@"),
    "ov": sql.SQL("&&"),
    "isdistinct": sql.SQL("is distinct from"),
}
CONDITION = re.compile(rf"^(not\.)?({'|'.join([*OPERATORS, 'in', 'is'])})\.(.*)$", re.DOTALL)
IS_VALUES = {
    "null": sql.SQL("is null"),
    "not_null": sql.SQL("is not null"),
    "true": sql.SQL("is true"),
    "false": sql.SQL("is false"),
    "unknown": sql.SQL("is unknown"),
}
ORDERS = {
    "asc": sql.SQL(" asc"),
    "desc": sql.SQL(" desc"),
    "nullsfirst": sql.SQL(" nulls first"),
    "nullslast": sql.SQL(" nulls last"),
}
SELECTED = re.compile(r"^(?:(?P<alias>[^:]+):(?!:))?(?P<path>[^:]+)(?:::(?P<type>[^:]+))?$")
TYPE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_ ]*(\[\])?$")


def quoted(*names: str) -> sql.Identifier:
    """Quote a name; a percent sign in it must not be taken for a placeholder."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


class Values:
    """Collect the parameters of one statement under names of their own."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}

    def add(self, value: Any) -> sql.Placeholder:
        """Keep a value and return the placeholder that stands for it."""
        name = f"v{len(self.parameters)}"
        self.parameters[name] = value
        return sql.Placeholder(name)


@dataclass(slots=True)
class Query:
    """What a query string asks for; `source` names the relation it asks it of."""

    source: sql.Composable
    select: list[sql.Composable] = field(default_factory=list)
    conditions: list[sql.Composable] = field(default_factory=list)
    order: list[sql.Composable] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] | None = None

    def projection(self) -> sql.Composable:
        """Return the select list."""
        if not self.select:
            return sql.SQL("{}.*").format(self.source)
        return sql.SQL(", ").join(self.select)

    def where(self) -> sql.Composable:
        """Return the WHERE clause, empty without a filter."""
        if not self.conditions:
            return sql.SQL("")
        return sql.SQL(" where ") + sql.SQL(" and ").join(self.conditions)

    def tail(self, max_rows: int) -> sql.Composable:
        """Return ORDER BY, LIMIT and OFFSET."""
        limit = max_rows if self.limit is None else min(self.limit, max_rows)
        order = (
            sql.SQL(" order by ") + sql.SQL(", ").join(self.order) if self.order else sql.SQL("")
        )
        return order + sql.SQL(" limit {} offset {}").format(limit, self.offset)


def is_condition(value: str) -> bool:
    """Tell a filter (`eq.5`) from the plain argument of a function (`5`)."""
    return CONDITION.match(value) is not None


def read(items: Iterable[tuple[str, str]], source: sql.Composable, values: Values) -> Query:
    """Read the pairs of a query string, or answer PGRST100."""
    reader = _Reader(source, values)
    query = Query(source)
    for key, value in items:
        if key == "select":
            query.select = [reader.selected(item) for item in split(value) if item]
        elif key == "order":
            query.order = [reader.ordered(item) for item in split(value) if item]
        elif key in ("limit", "offset"):
            setattr(query, key, _number(key, value))
        elif key in ("columns", "on_conflict"):
            setattr(query, key, tuple(unquote(item) for item in split(value) if item))
        elif key in RESERVED:
            continue
        elif LOGIC.match(key):
            query.conditions.append(reader.logic(key, value))
        else:
            query.conditions.append(reader.condition(key, value))
    return query


class _Reader:
    """Build fragments for one source, with its values."""

    def __init__(self, source: sql.Composable, values: Values) -> None:
        self._source = source
        self._values = values

    def selected(self, item: str) -> sql.Composable:
        if "(" in item:
            raise bad_query(
                f"failed to parse select parameter ({item})",
                "embedded resources are not served by the local platform",
            )
        if item == "*":
            return sql.SQL("{}.*").format(self._source)
        found = SELECTED.match(item)
        if found is None:
            raise bad_query(f"failed to parse select parameter ({item})")
        alias, path, target = found.group("alias", "path", "type")
        fragment = self._path(path)
        if target is not None:
            if not TYPE_NAME.match(target):
                raise bad_query(f"failed to parse select parameter ({item})", "not a type name")
            fragment = sql.SQL("cast({} as {})").format(fragment, sql.SQL(target))
        name = unquote(alias or re.split(r"->>?", path)[-1])
        return sql.SQL("{} as {}").format(fragment, quoted(name))

    def ordered(self, item: str) -> sql.Composable:
        name, *modes = item.split(".")
        if any(mode not in ORDERS for mode in modes):
            raise bad_query(f"failed to parse order ({item})", "expecting asc, desc, nullsfirst")
        return sql.Composed([self._path(name), *(ORDERS[mode] for mode in modes)])

    def condition(self, key: str, value: str, *, quoted: bool = False) -> sql.Composable:
        found = CONDITION.match(value)
        if found is None:
            raise bad_query(
                f'"failed to parse filter ({value})" (line 1, column 1)',
                f"unexpected {value[:1]!r} expecting operator (eq, gt, ...)",
            )
        negated, operator, operand = found.groups()
        fragment = self._path(key) + sql.SQL(" ") + self._comparison(operator, operand, quoted)
        return sql.SQL("not ({})").format(fragment) if negated else fragment

    def logic(self, key: str, value: str) -> sql.Composable:
        found = LOGIC.match(key)
        if found is None or not (value.startswith("(") and value.endswith(")")):
            raise bad_query(f'"failed to parse logic tree ({value})" (line 1, column 1)')
        parts = [self._branch(item) for item in split(value[1:-1])]
        joiner = sql.SQL(f" {found.group(2)} ")
        tree = sql.SQL("({})").format(joiner.join(parts))
        return sql.SQL("not {}").format(tree) if found.group(1) else tree

    def _branch(self, item: str) -> sql.Composable:
        nested = re.match(r"^((?:not\.)?(?:and|or))(\(.*\))$", item, re.DOTALL)
        if nested:
            return self.logic(nested.group(1), nested.group(2))
        key, _, condition = item.partition(".")
        return self.condition(key, condition, quoted=True)

    def _comparison(self, operator: str, operand: str, quoted: bool) -> sql.Composable:
        if operator == "is":
            if operand.lower() not in IS_VALUES:
                raise bad_query(
                    f'"failed to parse filter (is.{operand})"', "expecting null or true"
                )
            return IS_VALUES[operand.lower()]
        if operator == "in":
            if not (operand.startswith("(") and operand.endswith(")")):
                raise bad_query(f'"failed to parse filter (in.{operand})"', 'expecting "("')
            listed = [unquote(item) for item in split(operand[1:-1])] if operand != "()" else []
            return sql.SQL("= any ({})").format(self._values.add(array_literal(listed)))
        if operator in ("like", "ilike"):
            operand = operand.replace("*", "%")
        value = self._values.add(unquote(operand) if quoted else operand)
        return sql.SQL("{} {}").format(OPERATORS[operator], value)

    def _path(self, path: str) -> sql.Composable:
        name, *steps = re.split(r"(->>?)", path)
        if not name:
            raise bad_query(f'"failed to parse column ({path})"', "expecting a column name")
        fragment: sql.Composable = sql.SQL("{}.{}").format(self._source, quoted(unquote(name)))
        for arrow, step in zip(steps[::2], steps[1::2], strict=True):
            number = re.fullmatch(r"-?\d+", step)
            key = sql.SQL("{}::{}").format(
                self._values.add(step), sql.SQL("int4") if number else sql.SQL("text")
            )
            fragment = sql.SQL("({} {} {})").format(fragment, sql.SQL(arrow), key)
        return fragment


def split(text: str) -> list[str]:
    """Split at the commas that stand outside quotes and parentheses."""
    parts, depth, quoted, escaped, current = [], 0, False, False, ""
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\" and quoted:
            escaped = True
        elif letter == '"':
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(letter, 0)
            if letter == "," and depth == 0:
                parts.append(current)
                current = ""
                continue
        current += letter
    return [*parts, current]


def unquote(text: str) -> str:
    """Take the double quotes off a name or value that has them."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def array_literal(items: Sequence[str]) -> str:
    """Write an array of unknown type, which Postgres casts to the type of the column."""
    quoted = (re.sub(r'(["\\])', r"\\\1", item) for item in items)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"


def _number(key: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,18}", value):
        raise bad_query(f"failed to parse {key} ({value})", "expecting a whole number")
    return int(value)
