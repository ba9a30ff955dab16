"""Write column values as JSON, the way `to_jsonb` does."""

from __future__ import annotations

import re
from collections.abc import Mapping

from psycopg import sql

from pgfleet_local.realtime.database import Connection
from pgfleet_local.realtime.pgoutput import Row
from pgfleet_local.realtime.protocol import to_json
from pgfleet_local.realtime.relations import Column, Relation

NUMBER_TYPES = ("int2", "int4", "int8", "float4", "float8", "numeric", "oid")
JSON_TYPES = ("json", "jsonb")
TEXT_TYPES = ("text", "varchar", "bpchar", "name", "uuid", "interval", "date", "time", "timetz")
TIMESTAMP_TYPES = ("timestamp", "timestamptz")
FRACTION_TYPES = ("float4", "float8", "numeric")
NO_NUMBERS = ("NaN", "Infinity", "-Infinity")
TIMESTAMP = re.compile(r"(\S+) (\d\d:\d\d:\d\d(?:\.\d+)?)([+-]\d\d)?")


def as_told(type_name: str, value: str | None) -> str | None:
    """Return the text of a value as listeners and filters know it.

    The hosted server gets values as JSON, in which a number that is none is null, and bytes are
    digits alone.
    """
    if value in NO_NUMBERS and type_name in FRACTION_TYPES:
        return None
    if value is not None and type_name == "bytea":
        return value.removeprefix("\\x")
    return value


def encode(type_name: str, value: str | None) -> str | None:
    """Return a value as JSON text, or None when only Postgres knows how its type looks."""
    value = as_told(type_name, value)
    if value is None:
        return "null"
    if type_name == "bool":
        return "true" if value == "t" else "false"
    if type_name in NUMBER_TYPES:
        return value
    if type_name in JSON_TYPES:
        return value
    if type_name in TIMESTAMP_TYPES:
        return to_json(_timestamp(value))
    return to_json(value) if type_name in (*TEXT_TYPES, "bytea") else None


def _timestamp(value: str) -> str:
    """Put a T in the middle and minutes behind the offset."""
    match = TIMESTAMP.fullmatch(value)
    if match is None:
        return value
    day, time, offset = match.groups()
    return f"{day}T{time}" + (f"{offset}:00" if offset else "")


async def encode_row(connection: Connection, relation: Relation, row: Row) -> Mapping[str, str]:
    """Return the row's values as JSON text; columns without a known value are absent."""
    encoded: dict[str, str] = {}
    unknown: list[tuple[Column, str]] = []
    for name, value in row.items():
        column = relation.find(name)
        if column is None or not (value is None or isinstance(value, str)):
            continue
        text = encode(column.type_name, value)
        if text is not None:
            encoded[name] = text
        elif value is not None:
            unknown.append((column, value))
    if unknown:
        encoded.update(await _encode_in_sql(connection, unknown))
    # The order of the table, whichever way a value was written.
    return {name: encoded[name] for name in row if name in encoded}


async def _encode_in_sql(connection: Connection, pairs: list[tuple[Column, str]]) -> dict[str, str]:
    """Let Postgres write enums, arrays, ranges and composites."""
    casts = [
        sql.SQL("pg_catalog.to_jsonb(%s::text::{})::text").format(sql.SQL(column.sql_type))
        for column, _ in pairs
    ]
    query = sql.SQL("select {}").format(sql.SQL(", ").join(casts))
    row = await (await connection.execute(query, [value for _, value in pairs])).fetchone()
    assert row is not None
    return {column.name: str(text) for (column, _), text in zip(pairs, row, strict=True)}
