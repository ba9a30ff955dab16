"""Read a query string into SQL fragments, every value a parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from psycopg import sql

from pgfleet_local.rest.errors import RestError, bad_query, not_served

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
    "sl": sql.SQL("<<"),
    "sr": sql.SQL(">>"),
    "nxr": sql.SQL("&<"),
    "nxl": sql.SQL("&>"),
    "adj": sql.SQL("-|-"),
}
SEARCHES = {
    "fts": sql.SQL("to_tsquery"),
    "plfts": sql.SQL("plainto_tsquery"),
    "phfts": sql.SQL("phraseto_tsquery"),
    "wfts": sql.SQL("websearch_to_tsquery"),
}
# Only these can be asked of any or of all of several values.
QUANTIFIED = ("eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch")
CONDITION = re.compile(
    rf"(?P<not>not\.)?(?:(?P<plain>{'|'.join([*OPERATORS, 'in', 'is'])})"
    rf"|(?P<quantified>{'|'.join(QUANTIFIED)})\((?P<quantifier>any|all)\)"
    rf"|(?P<search>{'|'.join(SEARCHES)})(?:\((?P<language>[A-Za-z0-9_ $]+)\))?)"
    r"\.(?P<value>.*)",
    re.DOTALL,
)
AGGREGATE = re.compile(r"(?:^|\.|:)(?:count|sum|avg|min|max)\(\)(?:::\w+)?$")
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
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
QUOTED_ELEMENT = re.compile(QUOTED.pattern + r"(?=[,)])", re.DOTALL)
BARE_ELEMENT = re.compile(r"[^,)]*")
TYPE_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_ ]*(\[\])?$")


@lru_cache(4096)
def quoted(*names: str) -> sql.Composable:
    """Quote a name; a percent sign in it must not be taken for a placeholder.

    The same few names come in every request, so they are kept as they are written.
    """
    parts = (n.replace("\0", "").replace("%", "%%").replace('"', '""') for n in names)
    return sql.SQL(".".join(f'"{part}"' for part in parts))


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
    return CONDITION.fullmatch(value) is not None


def read(
    items: Iterable[tuple[str, str]],
    source: sql.Composable,
    values: Values,
    types: Mapping[str, str] | None = None,
) -> Query:
    """Read the pairs of a query string, or answer PGRST100.

    `types` has the types of the columns, as far as they are known.
    """
    reader = _Reader(source, values, types or {})
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

    def __init__(self, source: sql.Composable, values: Values, types: Mapping[str, str]) -> None:
        self._source = source
        self._values = values
        self._types = types

    def selected(self, item: str) -> sql.Composable:
        item = item.strip()
        if AGGREGATE.search(item):
            raise RestError(400, "PGRST123", "Use of aggregate functions is not allowed")
        if item.endswith(")"):
            name = item.partition("(")[0].removeprefix("...")
            raise not_served(f"resources that are embedded by select ({name})")
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
        name, *modes = item.strip().split(".")
        if "(" in name:
            raise not_served(f"an order by the column of an embedded resource ({name})")
        if any(mode not in ORDERS for mode in modes):
            raise bad_query(f"failed to parse order ({item})", "expecting asc, desc, nullsfirst")
        return sql.Composed([self._path(name), *(ORDERS[mode] for mode in modes)])

    def condition(self, key: str, value: str, *, quoted: bool = False) -> sql.Composable:
        found = CONDITION.fullmatch(value)
        if found is None:
            raise bad_query(
                f'"failed to parse filter ({value})" (line 1, column 1)',
                f"unexpected {value[:1]!r} expecting operator (eq, gt, ...)",
            )
        name = re.split(r"->>?", key)[0]
        if "." in name and not name.startswith('"'):
            raise not_served(f"filters on embedded resources ({name})")
        operand = found["value"]
        if found["search"]:
            text = unquote(operand) if quoted else operand
            fragment = self._search(key, found["search"], found["language"], text)
        else:
            if found["quantified"]:
                comparison = self._quantified(found["quantified"], found["quantifier"], operand)
            else:
                comparison = self._comparison(found["plain"], operand, quoted)
            fragment = self._path(key) + sql.SQL(" ") + comparison
        return sql.SQL("not ({})").format(fragment) if found["not"] else fragment

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
            listed = list_elements(operand)
            return sql.SQL("= any ({})").format(self._values.add(array_literal(listed)))
        if operator in ("like", "ilike"):
            operand = operand.replace("*", "%")
        value = self._values.add(unquote(operand) if quoted else operand)
        return sql.SQL("{} {}").format(OPERATORS[operator], value)

    def _quantified(self, operator: str, quantifier: str, operand: str) -> sql.Composable:
        """Compare with any or all elements of an array in SQL's notation."""
        if operator in ("like", "ilike"):
            operand = operand.replace("*", "%")
        return sql.SQL("{} {} ({})").format(
            OPERATORS[operator], sql.SQL(quantifier), self._values.add(operand)
        )

    def _search(self, key: str, operator: str, language: str | None, text: str) -> sql.Composable:
        """Search a column's text, or the document that it holds already."""
        column = self._path(key)
        config: sql.Composable = sql.SQL("")
        if language is not None:
            config = sql.SQL("{}::regconfig, ").format(self._values.add(language.strip()))
        if self._types.get(unquote(key)) != "tsvector":
            column = sql.SQL("to_tsvector({}{})").format(config, column)
        return sql.SQL("{} @@ {}({}{})").format(
            column, SEARCHES[operator], config, self._values.add(text)
        )

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
    """Split at the commas that stand outside quotes and parentheses.

    A quote opens only where a name or a value begins; elsewhere it is a letter like any other.
    """
    parts, depth, quoted, escaped, current = [], 0, False, False, ""
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\" and quoted:
            escaped = True
        elif letter == '"' and (quoted or current.strip()[-1:] in ("", ",", "(", ".", ":", ">")):
            quoted = not quoted
        elif not quoted:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(letter, 0)
            if letter == "," and depth == 0:
                parts.append(current)
                current = ""
                continue
        current += letter
    return [*parts, current]


def list_elements(text: str) -> list[str]:
    """Read `(a,"b,c",d)`: an element is quoted as a whole or not at all, else PGRST100."""
    elements: list[str] = []
    if text == "()":
        return elements
    at = 1
    while text.startswith("("):
        found = QUOTED_ELEMENT.match(text, at) or BARE_ELEMENT.match(text, at)
        if found is None:
            break
        elements.append(unquote(found[0]))
        at = found.end() + 1
        if found.end() == len(text) - 1 and text.endswith(")"):
            return elements
        if text[found.end() : at] != ",":
            break
    raise bad_query(f'"failed to parse filter (in.{text})"', 'expecting "(", "," and ")"')


def unquote(text: str) -> str:
    """Take the double quotes off a name or value that is quoted as a whole."""
    if QUOTED.fullmatch(text):
        return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    return text


def array_literal(items: Sequence[str]) -> str:
    """Write an array of unknown type, which Postgres casts to the type of the column."""
    quoted = (re.sub(r'(["\\])', r"\\\1", item) for item in items)
    return "{" + ",".join(f'"{item}"' for item in quoted) + "}"


def _number(key: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,18}", value):
        raise bad_query(f"failed to parse {key} ({value})", "expecting a whole number")
    return int(value)
