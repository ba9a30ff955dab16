"""Read and evaluate the filters of a change subscription, such as `status=eq.queued`."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgfleet_local.realtime.database import Connection
from pgfleet_local.realtime.pgoutput import Row
from pgfleet_local.realtime.protocol import to_json
from pgfleet_local.realtime.relations import Column, Relation
from pgfleet_local.realtime.values import as_told

logger = logging.getLogger(__name__)

MAX_LIST = 100
COMPARISONS = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
}
LIKE = {"like": "~~", "ilike": "~~*"}
MATCH = {"match": "~", "imatch": "~*"}
OPERATORS = (*COMPARISONS, *LIKE, *MATCH, "isdistinct", "in", "is")
IS_VALUES = {"null": None, "unknown": None, "true": "t", "false": "f"}
INTEGER_TYPES = ("int2", "int4", "int8")
# Types whose text form is one-to-one with the value, so that text can be compared for equality.
CANONICAL_TYPES = (*INTEGER_TYPES, "text", "varchar", "uuid", "bool", "date", "timestamptz")

CAST = "select pg_catalog.format('%%s', %s::text::{0}), null"
# The list is an array in SQL's own notation, so its quotes and its nulls are those of arrays.
CAST_LIST = (
    "select coalesce(array_agg(pg_catalog.format('%%s', e.one) order by e.position)"
    " filter (where e.one is not null), '{{}}'), coalesce(bool_or(e.one is null), false)"
    " from unnest(%s::text::{0}[]) with ordinality as e (one, position)"
)
HAS_OPERATOR = (
    "select exists (select from pg_catalog.pg_operator as o"
    " where o.oprname = %s and o.oprleft = %s::regtype"
    " and (not %s or o.oprright = o.oprleft) and o.oprresult = 'boolean'::regtype)"
)


class FilterError(ValueError):
    """Raised when a filter cannot be read or does not fit its table."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one column.

    `values` has one entry except for `in`, whose one entry is the list as it was written until the
    filter has been checked, and the elements afterwards; `has_null` tells whether one of them is
    null.
    """

    column: str
    operator: str
    values: tuple[str, ...]
    negated: bool = False
    has_null: bool = False


def parse_filters(text: str) -> tuple[Filter, ...]:
    """Read conditions joined by commas, or raise `FilterError`."""
    text = text.strip()
    return tuple(_parse_part(part.strip()) for part in _split(text)) if text else ()


def _parse_part(part: str) -> Filter:
    if not part:
        raise FilterError("filter must not contain empty segments (check for extra commas)")
    column, equals, condition = part.partition("=")
    if not equals:
        raise FilterError(to_json([part]))
    negated = condition.startswith("not.")
    condition = condition.removeprefix("not.")
    operator, dot, value = condition.partition(".")
    if not dot or operator not in OPERATORS:
        raise FilterError(to_json([operator, value] if dot else [condition]))
    if operator != "in":
        return Filter(column, operator, (_unquote(value),), negated)
    if not (len(value) >= 2 and value[0] == "(" and value[-1] == ")"):
        raise FilterError("`in` filter value must be wrapped by parentheses")
    return Filter(column, operator, (value[1:-1],), negated)


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses and quotes; a quote opens only where a value begins."""
    parts, current, depth, quoted, escaped = [], "", 0, False, False
    for char in text:
        before = current[-1:]
        if escaped:
            escaped = False
        elif quoted:
            escaped = char == "\\"
            quoted = char != '"'
        elif char == '"' and before in (".", "(", ","):
            quoted = True
        elif char == "," and depth == 0:
            parts.append(current)
            current = ""
            continue
        elif char in "()":
            depth = max(0, depth + (1 if char == "(" else -1))
        current += char
    return [*parts, current]


def _unquote(value: str) -> str:
    """Take the quotes and backslashes off a value that is quoted as a whole."""
    if re.fullmatch(r'"(?:[^"\\]|\\.)*"', value, re.DOTALL):
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value


async def check_filters(
    connection: Connection, relation: Relation, readable: set[str], filters: Sequence[Filter]
) -> tuple[Filter, ...]:
    """Return the filters with values in canonical form, or raise `FilterError`."""
    checked = []
    for one in filters:
        column = relation.find(one.column)
        if column is None or column.name not in readable:
            raise FilterError(f"invalid column for filter {one.column}")
        checked.append(await _check(connection, column, one))
    return tuple(checked)


async def _check(connection: Connection, column: Column, one: Filter) -> Filter:
    if one.operator == "is":
        return _check_is(column, one)
    if one.operator in LIKE or one.operator in MATCH:
        await _check_pattern(connection, column, one)
        return one
    is_list = one.operator == "in"
    query = sql.SQL(CAST_LIST if is_list else CAST).format(sql.SQL(column.sql_type))
    value = f"{{{one.values[0]}}}" if is_list else one.values[0]
    try:
        row = await (await connection.execute(query, (value,))).fetchone()
    except (psycopg.DataError, psycopg.ProgrammingError) as error:
        raise FilterError(str(error.diag.message_primary)) from error
    assert row is not None
    if not is_list:
        return Filter(one.column, one.operator, (str(row[0]),), one.negated)
    values = tuple(str(value) for value in row[0])  # type: ignore[attr-defined]
    has_null = bool(row[1])
    if len(values) + has_null > MAX_LIST:
        raise FilterError(f"too many values for `in` filter. Maximum {MAX_LIST}")
    return Filter(one.column, "in", values, one.negated, has_null)


def _check_is(column: Column, one: Filter) -> Filter:
    value = one.values[0]
    if value not in IS_VALUES:
        raise FilterError("invalid value for is filter: must be null, true, false, or unknown")
    if value != "null" and column.type_name != "bool":
        raise FilterError(f"is {value} filter requires a boolean column, got {column.sql_type}")
    return one


async def _check_pattern(connection: Connection, column: Column, one: Filter) -> None:
    """Refuse types that have no such operator, and expressions that cannot be read."""
    symbol = {**LIKE, **MATCH}[one.operator]
    wanted = (symbol, column.sql_type, one.operator in MATCH)
    row = await (await connection.execute(HAS_OPERATOR, wanted)).fetchone()
    if row != (True,):
        raise FilterError(
            f"operator {one.operator} requires a text-compatible column type, got {column.sql_type}"
        )
    if one.operator in MATCH:
        try:
            await connection.execute("select '' ~ %s", (one.values[0],))
        except psycopg.DataError as error:
            raise FilterError(
                f"invalid regular expression for {one.operator} filter:"
                f" {error.diag.message_primary}"
            ) from error


async def passes(
    connection: Connection, relation: Relation, row: Row, filters: Sequence[Filter]
) -> bool:
    """Tell whether a row meets every condition; a column that the row lacks meets none."""
    for one in filters:
        column = relation.find(one.column)
        if column is None or one.column not in row:
            return False
        value = row[one.column]
        if not (value is None or isinstance(value, str)):
            return False
        value = as_told(column.type_name, value)
        answer = compare(column, value, one)
        if answer is None and value is not None:
            try:
                answer = await _compare_in_sql(connection, column, value, one)
            except (psycopg.DataError, psycopg.ProgrammingError) as error:
                # A type without such an operator: nobody hears, as it is refused elsewhere.
                logger.warning("a filter of %s cannot be decided: %s", column.name, error)
                return False
        if not answer:
            return False
    return True


def compare(column: Column, value: str | None, one: Filter) -> bool | None:
    """Decide what can be decided without asking Postgres; None means it must be asked."""
    if one.operator == "is":
        return (value == IS_VALUES[one.values[0]]) != one.negated
    if one.operator == "isdistinct" and value is None:
        return not one.negated
    if value is None:
        return False
    if column.type_name not in CANONICAL_TYPES:
        return None
    if one.operator == "in":
        if value not in one.values and one.has_null:
            return False
        return (value in one.values) != one.negated
    if one.operator in ("eq", "neq", "isdistinct"):
        return ((value == one.values[0]) == (one.operator == "eq")) != one.negated
    if column.type_name in INTEGER_TYPES and one.operator in COMPARISONS:
        left, right = int(value), int(one.values[0])
        answer = {
            "lt": left < right,
            "lte": left <= right,
            "gt": left > right,
            "gte": left >= right,
        }[one.operator]
        return answer != one.negated
    return None


async def _compare_in_sql(connection: Connection, column: Column, value: str, one: Filter) -> bool:
    """Let Postgres compare, by the rules of the column's type."""
    type_name = sql.SQL(column.sql_type)
    parameters: list[Any] = [value]
    if one.operator == "in":
        expression = sql.SQL("%s::text::{0} = any (%s::text[]::{0}[])").format(type_name)
        parameters.append([*one.values, *([None] if one.has_null else [])])
    else:
        symbols = {**COMPARISONS, **LIKE, **MATCH, "isdistinct": "is distinct from"}
        right = sql.SQL("text" if one.operator in (*LIKE, *MATCH) else column.sql_type)
        if one.operator in LIKE and column.type_name == "bytea":
            right = type_name
        expression = sql.SQL("%s::text::{0} " + symbols[one.operator] + " %s::text::{1}").format(
            type_name, right
        )
        parameters.append(one.values[0])
    query = sql.SQL("select ({})").format(expression)
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None
    return row[0] is not None and bool(row[0]) != one.negated
