"""Decode the messages of Postgres' own logical decoding plugin, protocol version 1, text values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
Action = Literal["INSERT", "UPDATE", "DELETE"]


class Unchanged:
    """The type of the mark for a large value that an update left as it was."""


UNCHANGED = Unchanged()
Value = str | None | Unchanged
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as the stream describes it."""

    oid: int
    schema: str
    name: str
    columns: tuple[str, ...]
    identity_columns: tuple[str, ...]
    full_identity: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One row changed; `identity` is the old row or its key, where the stream has one."""

    action: Action
    table: TableShape
    new: Row | None
    identity: Row | None
    committed_at: datetime
    xid: int


@dataclass(slots=True)
class Decoder:
    """Turn raw messages into changes.

    `wanted` is asked for every table before its rows are taken apart, so that a busy table
    without a listener costs almost nothing.
    """

    tables: dict[int, TableShape] = field(default_factory=dict)
    _xid: int = 0
    _committed_at: datetime = EPOCH

    def feed(self, message: bytes) -> Iterator[tuple[TableShape, bytes]]:
        """Take one message; yield the table and the message when a row changed."""
        kind = message[:1]
        if kind == b"B":
            _, micros, self._xid = struct.unpack_from("!QqI", message, 1)
            self._committed_at = EPOCH + timedelta(microseconds=micros)
        elif kind == b"R":
            table = _read_table(message)
            self.tables[table.oid] = table
        elif kind in (b"I", b"U", b"D"):
            (oid,) = struct.unpack_from("!I", message, 1)
            yield self.tables[oid], message

    def change(self, table: TableShape, message: bytes) -> Change:
        """Take the rows of a message apart that `feed` has just yielded."""
        action: Action = {b"I": "INSERT", b"U": "UPDATE", b"D": "DELETE"}[message[:1]]  # type: ignore[assignment]
        new: Row | None = None
        identity: Row | None = None
        offset = 5
        while offset < len(message):
            part = message[offset : offset + 1]
            row, offset = _read_row(table, message, offset + 1)
            if part == b"N":
                new = row
            else:
                identity = row
        return Change(action, table, new, identity, self._committed_at, self._xid)


def _read_table(message: bytes) -> TableShape:
    (oid,) = struct.unpack_from("!I", message, 1)
    schema, offset = _read_text(message, 5)
    name, offset = _read_text(message, offset)
    identity = message[offset : offset + 1]
    (count,) = struct.unpack_from("!H", message, offset + 1)
    offset += 3
    columns: list[str] = []
    identifying: list[str] = []
    for _ in range(count):
        flags = message[offset]
        column, offset = _read_text(message, offset + 1)
        columns.append(column)
        if flags & 1:
            identifying.append(column)
        offset += 8
    # The stream writes an empty namespace for pg_catalog.
    return TableShape(
        oid, schema or "pg_catalog", name, tuple(columns), tuple(identifying), identity == b"f"
    )


def _read_text(message: bytes, offset: int) -> tuple[str, int]:
    end = message.index(b"\0", offset)
    return message[offset:end].decode(), end + 1


def _read_row(table: TableShape, message: bytes, offset: int) -> tuple[Row, int]:
    (count,) = struct.unpack_from("!H", message, offset)
    offset += 2
    row: Row = {}
    for column in table.columns[:count]:
        kind = message[offset : offset + 1]
        offset += 1
        if kind == b"n":
            row[column] = None
        elif kind == b"u":
            row[column] = UNCHANGED
        else:
            (length,) = struct.unpack_from("!I", message, offset)
            offset += 4
            row[column] = message[offset : offset + length].decode()
            offset += length
    return row, offset
