"""Decide who hears of a changed row, and write what they hear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgfleet_local.realtime.authorize import RowKey, selectable_columns, who_sees
from pgfleet_local.realtime.database import Connection, Database, Unreachable
from pgfleet_local.realtime.filters import Filter, passes
from pgfleet_local.realtime.listener import Listener
from pgfleet_local.realtime.pgoutput import Change, Row, Unchanged
from pgfleet_local.realtime.protocol import Outgoing, to_json
from pgfleet_local.realtime.relations import Relation, load_relation
from pgfleet_local.realtime.subscriptions import Subscription, Subscriptions
from pgfleet_local.realtime.values import encode_row

logger = logging.getLogger(__name__)

SMALL_VALUE_BYTES = 64
# So long may a change of grants or of a table go unnoticed; policies are asked for every row.
TURN_SECONDS = 0.2
NO_KEY = "Error 400: Bad Request, no primary key"
UNAUTHORIZED = "Error 401: Unauthorized"
TOO_LARGE = "Error 413: Payload Too Large"


@dataclass(frozen=True, slots=True)
class Picture:
    """A change with its values as JSON text; `old` is None for an INSERT."""

    change: Change
    relation: Relation
    new: Mapping[str, str] | None
    old: Mapping[str, str] | None
    too_large: bool


class Turn:
    """One connection for a short while, and what the catalogue said in that while."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._relations: dict[int, Relation | None] = {}
        self._readable: dict[tuple[int, str], set[str]] = {}

    async def relation(self, oid: int) -> Relation | None:
        """Return a table, or None when it is gone."""
        if oid not in self._relations:
            self._relations[oid] = await load_relation(self.connection, oid)
        return self._relations[oid]

    async def readable(self, relation: Relation, roles: Iterable[str]) -> dict[str, set[str]]:
        """Return the columns that each role may read."""
        found: dict[str, set[str]] = {}
        for role in roles:
            key = (relation.oid, role)
            if key not in self._readable:
                columns = await selectable_columns(self.connection, relation, [role])
                self._readable[key] = columns[role]
            found[role] = self._readable[key]
        return found


class ChangeDelivery:
    """Works changes off one after another, apart from broadcasts, which never wait for it."""

    def __init__(
        self, database: Database, subscriptions: Subscriptions, max_record_bytes: int
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._max_record_bytes = max_record_bytes
        self._queue: asyncio.Queue[Change] = asyncio.Queue()

    def enqueue(self, change: Change) -> None:
        """Take a change to deliver later."""
        self._queue.put_nowait(change)

    async def run(self) -> None:
        """Deliver for ever; a change that cannot be delivered is lost alone."""
        while True:
            change = await self._queue.get()
            try:
                async with self._database.connection() as connection:
                    await self._take_turn(Turn(connection), change)
            except Unreachable as error:
                logger.warning("a change of %s was lost: %s", change.table.name, error)

    async def _take_turn(self, turn: Turn, first: Change) -> None:
        """Deliver a change and what is waiting behind it, for as long as the catalogue holds."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + TURN_SECONDS
        change = first
        while True:
            try:
                await self._deliver(turn, change)
            except Unreachable:
                raise
            except Exception:
                logger.exception("a change of %s was lost", change.table.name)
            if self._queue.empty() or loop.time() >= ends:
                return
            change = self._queue.get_nowait()

    async def _deliver(self, turn: Turn, change: Change) -> None:
        table = change.table
        listeners = [
            one
            for one in self._subscriptions.on_table(table.schema, table.name)
            if one.wants(change.action, change.xid)
        ]
        relation = await turn.relation(table.oid) if listeners else None
        if relation is None:
            return
        new, old = _rows(change, relation)
        row = new if new is not None else old
        assert row is not None
        verdicts: dict[tuple[Filter, ...], bool] = {}
        for filters in {one.filters for one in listeners}:
            verdicts[filters] = await passes(turn.connection, relation, row, filters)
        listeners = [one for one in listeners if verdicts[one.filters]]
        if not listeners:
            return
        if change.action == "DELETE" and relation.row_security:
            # The row is gone, so no policy can be asked: only its key may be told.
            old = {name: value for name, value in row.items() if name in relation.key}
        picture = Picture(
            change,
            relation,
            None if new is None else await encode_row(turn.connection, relation, new),
            None if old is None else await encode_row(turn.connection, relation, old),
            _size(new, old) > self._max_record_bytes,
        )
        readable = await turn.readable(relation, {one.role for one in listeners})
        if change.action != "DELETE":
            listeners = await _allowed(turn, picture, row, listeners, readable)
        _send(picture, listeners, readable)


async def _allowed(
    turn: Turn,
    picture: Picture,
    row: Row,
    listeners: list[Subscription],
    readable: Mapping[str, set[str]],
) -> list[Subscription]:
    """Return who may see the row; who may not see the table is told so."""
    relation, change = picture.relation, picture.change
    if not relation.key:
        _push(listeners, change, _error(change, NO_KEY))
        return []
    blind = [one for one in listeners if not set(relation.key) <= readable[one.role]]
    _push(blind, change, _error(change, UNAUTHORIZED))
    listeners = [one for one in listeners if one not in blind]
    if not relation.row_security:
        return listeners
    accesses = {one.listener.access for one in listeners}
    key = RowKey(relation.key, tuple(str(row[name]) for name in relation.key))
    seeing = await who_sees(turn.connection, relation, key, accesses)
    return [one for one in listeners if one.listener.access in seeing]


def _send(
    picture: Picture, listeners: list[Subscription], readable: Mapping[str, set[str]]
) -> None:
    """Send the change, each role and list of columns its own view of it."""
    groups: dict[tuple[str, tuple[str, ...] | None], list[Subscription]] = {}
    for one in listeners:
        groups.setdefault((one.role, one.binding.select), []).append(one)
    for (role, select), members in groups.items():
        shown = readable[role]
        if select is not None:
            shown = shown & {*select, *picture.relation.key}
        _push(members, picture.change, _data(picture, shown))


def _rows(change: Change, relation: Relation) -> tuple[Row | None, Row | None]:
    """Return the new and the old row, each with what is known of it."""
    table, identity = change.table, change.identity
    old: Row | None = None
    if identity is not None:
        names = table.columns if table.full_identity else table.identity_columns
        old = {name: identity[name] for name in names if name in identity}
    new = change.new
    if new is not None:
        new = {
            name: (old or {}).get(name, value) if isinstance(value, Unchanged) else value
            for name, value in new.items()
        }
        new = {name: value for name, value in new.items() if not isinstance(value, Unchanged)}
    if change.action == "UPDATE" and old is None and new is not None:
        # An update that leaves the key alone does not repeat it.
        old = {name: new[name] for name in relation.key if name in new}
    return new, None if change.action == "INSERT" else old


def _size(*rows: Row | None) -> int:
    return sum(
        len(value) for row in rows if row for value in row.values() if isinstance(value, str)
    )


def _data(picture: Picture, shown: set[str]) -> str:
    """Write the `data` of a change with the columns that may be shown."""
    change, relation = picture.change, picture.relation
    columns = [
        {"name": column.name, "type": column.type_name}
        for column in relation.columns
        if column.name in shown
    ]
    stamp = change.committed_at.strftime("%Y-%m-%dT%H:%M:%S.") + (
        f"{change.committed_at.microsecond // 1000:03d}Z"
    )
    parts = {
        "columns": to_json(columns),
        "commit_timestamp": to_json(stamp),
        "errors": to_json([TOO_LARGE]) if picture.too_large else "null",
        "schema": to_json(relation.schema),
        "table": to_json(relation.name),
        "type": to_json(change.action),
    }
    if picture.new is not None:
        parts["record"] = _record(picture.new, shown, picture.too_large)
    if picture.old is not None:
        parts["old_record"] = _record(picture.old, shown, picture.too_large)
    return _object(parts)


def _record(values: Mapping[str, str], shown: set[str], too_large: bool) -> str:
    """Write a row; of one that is too large only the small values are kept."""
    kept = {name: text for name, text in values.items() if name in shown}
    if too_large:
        kept = {
            name: text
            for name, text in kept.items()
            if text != "null" and len(text) <= SMALL_VALUE_BYTES
        }
    return _object(kept)


def _object(parts: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{to_json(name)}:{text}" for name, text in parts.items()) + "}"


def _error(change: Change, message: str) -> str:
    """Write the `data` of a change that may not be shown."""
    return to_json(
        {
            "schema": change.table.schema,
            "table": change.table.name,
            "type": change.action,
            "errors": [message],
            "columns": [],
            "record": {},
            "commit_timestamp": None,
        }
    )


def _push(listeners: Iterable[Subscription], change: Change, data: str) -> None:
    """Send one frame to each listener, with the ids of all its bindings that match."""
    ids: dict[Listener, list[int]] = {}
    for one in listeners:
        if one.binding.is_old:
            old = Outgoing(one.listener.topic, change.action, data)
            one.listener.deliver(one.listener.serializer.encode(old))
            continue
        found = ids.setdefault(one.listener, [])
        if one.binding.id not in found:
            found.append(one.binding.id)
    for listener, numbers in ids.items():
        payload = f'{{"ids":{to_json(numbers)},"data":{data}}}'
        message = Outgoing(listener.topic, "postgres_changes", payload)
        listener.deliver(listener.serializer.encode(message))
