"""Decide who hears of a changed row, and write what they hear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pgfleet_local.realtime.authorize import Authorizer, RowKey, selectable_columns
from pgfleet_local.realtime.channels import Channel
from pgfleet_local.realtime.database import Database, Unreachable
from pgfleet_local.realtime.filters import Filter, passes
from pgfleet_local.realtime.pgoutput import Change, Row, Unchanged
from pgfleet_local.realtime.protocol import Outgoing, to_json
from pgfleet_local.realtime.relations import Relation, load_relation
from pgfleet_local.realtime.subscriptions import Subscription, Subscriptions
from pgfleet_local.realtime.values import encode_row

logger = logging.getLogger(__name__)

SMALL_VALUE_BYTES = 64
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


class ChangeDelivery:
    """Works changes off one after another, apart from broadcasts, which never wait for it."""

    def __init__(
        self,
        database: Database,
        authorizer: Authorizer,
        subscriptions: Subscriptions,
        max_record_bytes: int,
    ) -> None:
        self._database = database
        self._authorizer = authorizer
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
                await self._deliver(change)
            except Unreachable as error:
                logger.warning("a change of %s was lost: %s", change.table.name, error)
            except Exception:
                logger.exception("a change of %s was lost", change.table.name)

    async def _deliver(self, change: Change) -> None:
        table = change.table
        listeners = [
            one
            for one in self._subscriptions.on_table(table.schema, table.name)
            if one.wants(change.action, change.xid)
        ]
        if not listeners:
            return
        async with self._database.connection() as connection:
            relation = await load_relation(connection, table.oid)
            if relation is None:
                return
            new, old = _rows(change, relation)
            row = new if new is not None else old
            assert row is not None
            verdicts: dict[tuple[Filter, ...], bool] = {}
            for filters in {one.filters for one in listeners}:
                verdicts[filters] = await passes(connection, relation, row, filters)
            listeners = [one for one in listeners if verdicts[one.filters]]
            if not listeners:
                return
            roles = {one.channel.identity.access.role for one in listeners}
            readable = await selectable_columns(connection, relation, roles)
            if change.action == "DELETE" and relation.row_security:
                # The row is gone, so no policy can be asked: only its key may be told.
                old = {name: value for name, value in row.items() if name in relation.key}
            picture = Picture(
                change,
                relation,
                None if new is None else await encode_row(connection, relation, new),
                None if old is None else await encode_row(connection, relation, old),
                _size(new, old) > self._max_record_bytes,
            )
        await self._send(picture, row, listeners, readable)

    async def _send(
        self,
        picture: Picture,
        row: Row,
        listeners: list[Subscription],
        readable: Mapping[str, set[str]],
    ) -> None:
        """Send errors to those who may not see the table, and the change to those who may."""
        relation, change = picture.relation, picture.change
        if change.action != "DELETE":
            if not relation.key:
                _push(listeners, _error(change, NO_KEY))
                return
            blind = [
                one for one in listeners if not set(relation.key) <= readable[_role(one.channel)]
            ]
            _push(blind, _error(change, UNAUTHORIZED))
            listeners = [one for one in listeners if one not in blind]
            if relation.row_security:
                accesses = {one.channel.identity.access for one in listeners}
                key = RowKey(relation.key, tuple(str(row[name]) for name in relation.key))
                seeing = await self._authorizer.who_sees(relation, key, accesses)
                listeners = [one for one in listeners if one.channel.identity.access in seeing]
        groups: dict[tuple[str, tuple[str, ...] | None], list[Subscription]] = {}
        for one in listeners:
            group = (_role(one.channel), one.binding.select)
            groups.setdefault(group, []).append(one)
        for (role, select), members in groups.items():
            shown = readable[role]
            if select is not None:
                shown = shown & {*select, *relation.key}
            _push(members, _data(picture, shown))


def _role(channel: Channel) -> str:
    return channel.identity.access.role


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


def _push(listeners: Iterable[Subscription], data: str) -> None:
    """Send one frame to each channel, with the ids of all its bindings that match."""
    ids: dict[Channel, list[int]] = {}
    for one in listeners:
        found = ids.setdefault(one.channel, [])
        if one.binding.id not in found:
            found.append(one.binding.id)
    for channel, numbers in ids.items():
        payload = f'{{"ids":{to_json(numbers)},"data":{data}}}'
        message = Outgoing(channel.topic, "postgres_changes", payload)
        channel.deliver(channel.socket.serializer.encode(message))
