"""Read and evaluate the filters of a change subscription, such as `status=eq.queued`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgfleet_local.realtime.database import Connection
from pgfleet_local.realtime.pgoutput import Row
from pgfleet_local.realtime.relations import Column, Relation

MAX_LIST = 100
COMPARISONS = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "isdistinct": "is distinct from",
}
PATTERNS = {"like": "~~", "ilike": "~~*", "match": "~", "imatch": "~*"}
OPERATORS = (*COMPARISONS, *PATTERNS, "in", "is")
IS_VALUES = ("null", "true", "false", "unknown")
TEXT_TYPES = ("text", "varchar", "bpchar", "name", "citext")
INTEGER_TYPES = ("int2", "int4", "int8")
# Types whose text form is one-to-one with the value, so that text can be compared for equality.
CANONICAL_TYPES = (*INTEGER_TYPES, "text", "varchar", "uuid", "bool", "date", "timestamptz")
PART = re.compile(r"(?P<column>[^=]+)=(?P<negated>not\.)?(?P<operator>[a-z]+)\.(?P<value>.*)", re.S)


class FilterError(ValueError):
    """Raised when a filter cannot be read or does not fit its table."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one column; `values` has one entry except for `in`."""

    column: str
    operator: str
    values: tuple[str, ...]
    negated: bool = False


def parse_filters(text: str) -> tuple[Filter, ...]:
    """Read conditions joined by commas, or raise `FilterError`."""
    return tuple(_parse_part(part) for part in _split(text)) if text.strip() else ()


def _parse_part(part: str) -> Filter:
    match = PART.fullmatch(part.strip())
    if match is None:
        raise FilterError(f'expected column=operator.value, got "{part}"')
    operator, value = match["operator"], match["value"]
    if operator not in OPERATORS:
        raise FilterError(f'unknown operator "{operator}"')
    values: tuple[str, ...] = (_unquote(value),)
    if operator == "in":
        if not (value.startswith("(") and value.endswith(")")):
            raise FilterError("`in` needs a list in parentheses")
        values = tuple(_unquote(one.strip()) for one in _split(value[1:-1]))
        if len(values) > MAX_LIST:
            raise FilterError(f"too many values for `in` filter. Maximum {MAX_LIST}")
    if operator == "is" and value.lower() not in IS_VALUES:
        raise FilterError(f"`is` takes one of {', '.join(IS_VALUES)}")
    return Filter(match["column"].strip(), operator, values, match["negated"] is not None)


def _split(text: str) -> list[str]:
    """Split at commas that stand outside quotes and parentheses."""
    parts, start, depth, quoted, index = [], 0, 0, False, 0
    while index < len(text):
        char = text[index]
        if quoted and char == "\\":
            index += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted and char in "()":
            depth += 1 if char == "(" else -1
        elif not quoted and depth == 0 and char == ",":
            parts.append(text[start:index])
            start = index + 1
        index += 1
    parts.append(text[start:])
    if quoted or depth:
        raise FilterError("a quote or a parenthesis is not closed")
    return parts


def _unquote(value: str) -> str:
    """Take the double quotes and backslashes off a quoted value."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
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
    if one.operator in PATTERNS and column.type_name not in TEXT_TYPES:
        raise FilterError(
            f"operator {one.operator} requires a text-compatible column type, got {column.sql_type}"
        )
    if one.operator == "is":
        if one.values[0].lower() != "null" and column.type_name != "bool":
            raise FilterError(f"is.{one.values[0]} requires a boolean column")
        return one
    if one.operator in PATTERNS:
        return one
    cast = sql.SQL("select %s::text::{}::text").format(sql.SQL(column.sql_type))
    values = []
    for value in one.values:
        try:
            row = await (await connection.execute(cast, (value,))).fetchone()
        except psycopg.DataError as error:
            raise FilterError(str(error.diag.message_primary)) from error
        assert row is not None
        values.append(str(row[0]))
    return Filter(one.column, one.operator, tuple(values), one.negated)


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
        answer = compare(column, value, one)
        if answer is None and value is not None:
            answer = await _compare_in_sql(connection, column, value, one)
        if not answer:
            return False
    return True


def compare(column: Column, value: str | None, one: Filter) -> bool | None:
    """Decide what can be decided without asking Postgres; None means it must be asked."""
    if one.operator == "is":
        wanted = {"null": None, "unknown": None, "true": "t", "false": "f"}[one.values[0].lower()]
        return (value == wanted) != one.negated
    if one.operator == "isdistinct" and value is None:
        return not one.negated
    if value is None:
        return False
    if column.type_name not in CANONICAL_TYPES:
        return None
    if one.operator in ("eq", "neq", "in", "isdistinct"):
        same = value in one.values
        return (same if one.operator in ("eq", "in") else not same) != one.negated
    if column.type_name in INTEGER_TYPES and one.operator in ("lt", "lte", "gt", "gte"):
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
    if one.operator in PATTERNS:
        expression: sql.Composable = sql.SQL("%s::text " + PATTERNS[one.operator] + " %s::text")
        parameters.append(one.values[0])
    elif one.operator == "in":
        expression = sql.SQL("%s::text::{0} = any (%s::text[]::{0}[])").format(type_name)
        parameters.append(list(one.values))
    else:
        expression = sql.SQL(
            "%s::text::{0} " + COMPARISONS[one.operator] + " %s::text::{0}"
        ).format(type_name)
        parameters.append(one.values[0])
    query = sql.SQL("select ({})").format(expression)
    row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None
    return row[0] is not None and bool(row[0]) != one.negated
