"""Keep who wants to hear of which rows, and check what they ask for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgfleet_local.realtime.authorize import selectable_columns
from pgfleet_local.realtime.database import Connection, Database
from pgfleet_local.realtime.filters import Filter, FilterError, check_filters, parse_filters
from pgfleet_local.realtime.listener import Listener
from pgfleet_local.realtime.options import CHANGES_PUBLICATION
from pgfleet_local.realtime.protocol import to_json
from pgfleet_local.realtime.relations import load_relation

UNABLE = "Unable to subscribe to changes with given parameters."
ACTIONS = ("INSERT", "UPDATE", "DELETE")
PUBLISHED_TABLES = """
select c.oid
from pg_catalog.pg_publication_tables as p
join pg_catalog.pg_namespace as n on n.nspname = p.schemaname
join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname = p.tablename
where p.pubname = %s
  and (%s::text is null or p.schemaname = %s::text)
  and (%s::text is null or p.tablename = %s::text)
"""


class SubscriptionError(Exception):
    """Raised when a subscription is refused; the text goes to the client as it is."""


@dataclass(frozen=True, slots=True)
class Binding:
    """What a client asked for, one entry of `postgres_changes` in its join."""

    id: int
    asked: Mapping[str, Any]
    # Joined without a config, as clients of years ago do: they know events by their own names.
    is_old: bool = False

    @property
    def action(self) -> str:
        """INSERT, UPDATE, DELETE, or * for whatever else was asked."""
        event = str(self.asked.get("event", "*")).upper()
        return event if event in ACTIONS else "*"

    @property
    def schema(self) -> str | None:
        """The schema, or None for every schema."""
        return self._name("schema")

    @property
    def table(self) -> str | None:
        """The table, or None for every table."""
        return self._name("table")

    @property
    def select(self) -> tuple[str, ...] | None:
        """The columns that were asked for, or None for all."""
        columns = self.asked.get("select")
        return tuple(map(str, columns)) if isinstance(columns, list) and columns else None

    def _name(self, key: str) -> str | None:
        value = self.asked.get(key)
        return None if value in (None, "*", "") else str(value)

    def echo(self) -> dict[str, Any]:
        """Return what clients compare: their own object, unchanged, with the id."""
        return {**self.asked, "id": self.id}


def bind(asked: Mapping[str, Any], is_old: bool = False) -> Binding:
    """Give a request its id, which stays the same across rejoins and is never 0."""
    digest = zlib.crc32(to_json(dict(sorted(asked.items()))).encode()) & 0x7FFFFFF
    return Binding(digest or 1, asked, is_old)


def bind_topic(name: str) -> Binding:
    """Read what a topic asks for by its own name: `schema`, `schema:table` or with a filter."""
    return bind(dict(zip(("schema", "table", "filter"), name.split(":", 2), strict=False)), True)


@dataclass(frozen=True, slots=True)
class Horizon:
    """What was visible when a subscription began; exact, whenever the log reaches the disk."""

    next_xid: int
    running: frozenset[int]

    @classmethod
    def parse(cls, snapshot: str) -> Horizon:
        """Read the text form of a snapshot, `xmin:xmax:running`."""
        _, next_xid, running = snapshot.split(":")
        return cls(int(next_xid), frozenset(int(one) for one in running.split(",") if one))

    def did_not_see(self, xid: int) -> bool:
        """Tell whether this transaction, numbered in 32 bits, had not committed yet."""
        distance = (xid - self.next_xid) & 0xFFFFFFFF
        if distance < 0x80000000:
            return True
        return self.next_xid + distance - 0x100000000 in self.running


@dataclass(frozen=True, slots=True)
class Subscription:
    """A checked binding of a listener, live for what is committed beyond the horizon."""

    listener: Listener
    binding: Binding
    filters: tuple[Filter, ...]
    horizon: Horizon

    @property
    def role(self) -> str:
        """The role under which the listener reads."""
        return self.listener.access.role

    def wants(self, action: str, xid: int) -> bool:
        """Tell whether this kind of change is asked for and young enough."""
        return self.binding.action in ("*", action) and self.horizon.did_not_see(xid)


@dataclass(slots=True)
class Subscriptions:
    """Live subscriptions by table; None stands for any schema or any table."""

    _by_table: dict[tuple[str | None, str | None], list[Subscription]] = field(default_factory=dict)

    def replace(self, listener: Listener, subscriptions: Iterable[Subscription]) -> None:
        """Put a listener's subscriptions in the place of its earlier ones."""
        self.remove(listener)
        for one in subscriptions:
            key = (one.binding.schema, one.binding.table)
            self._by_table.setdefault(key, []).append(one)

    def remove(self, listener: Listener) -> None:
        """Forget a listener."""
        for key, listed in list(self._by_table.items()):
            kept = [one for one in listed if one.listener is not listener]
            if kept:
                self._by_table[key] = kept
            else:
                del self._by_table[key]

    def on_table(self, schema: str, table: str) -> list[Subscription]:
        """Return the subscriptions to a table, by name or by wildcard."""
        keys = ((schema, table), (schema, None), (None, table), (None, None))
        return [one for key in keys for one in self._by_table.get(key, ())]


class SubscriptionCheck:
    """Check bindings against the catalogue, as the hosted platform's trigger does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def subscribe(
        self, listener: Listener, bindings: Iterable[Binding]
    ) -> list[Subscription]:
        """Return what the listener subscribes to, or raise `SubscriptionError`."""
        role = listener.access.role
        checked = [(binding, await self._check(binding, role)) for binding in bindings]
        async with self._database.connection() as connection:
            horizon = await _horizon(connection)
        return [Subscription(listener, binding, found, horizon) for binding, found in checked]

    async def _check(self, binding: Binding, role: str) -> tuple[Filter, ...]:
        try:
            filters = parse_filters(str(binding.asked.get("filter") or ""))
        except FilterError as error:
            raise SubscriptionError(f"Error parsing `filter` params: {error}") from error
        if binding.asked.get("schema") is None and binding.table is None:
            raise SubscriptionError(
                "No subscription params provided. Please provide at least a `schema` or `table`"
                " to subscribe to"
            )
        if binding.table is None and filters:
            raise SubscriptionError("Error parsing `filter` params: a filter needs a table")
        if binding.table is None and binding.select:
            raise SubscriptionError(
                "Column selection is not supported for wildcard subscriptions."
                " Please specify a table"
            )
        try:
            return await self._check_tables(binding, role, filters)
        except FilterError as error:
            raise SubscriptionError(_failed(binding, str(error))) from error

    async def _check_tables(
        self, binding: Binding, role: str, filters: tuple[Filter, ...]
    ) -> tuple[Filter, ...]:
        """Check that a published table fits; filters come back in canonical form."""
        schema, table = binding.schema, binding.table
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                PUBLISHED_TABLES, (CHANGES_PUBLICATION, schema, schema, table, table)
            )
            oids = [int(str(row[0])) for row in await cursor.fetchall()]
            if not oids:
                raise SubscriptionError(
                    f"{UNABLE} Please check Realtime is enabled for the given connect parameters:"
                    f" [{_described(binding)}]"
                )
            if table is None or not (filters or binding.select):
                return ()
            relation = await load_relation(connection, oids[0])
            if relation is None:
                raise SubscriptionError(_failed(binding, "the table is gone"))
            readable = (await selectable_columns(connection, relation, [role]))[role]
            for name in binding.select or ():
                if relation.find(name) is None or name not in readable:
                    raise FilterError(f"invalid column for select {name}")
            return await check_filters(connection, relation, readable, filters)


async def _horizon(connection: Connection) -> Horizon:
    """Return what is visible now: a listener that looks at the table after `system` ok sees it."""
    row = await (await connection.execute("select pg_current_snapshot()::text")).fetchone()
    assert row is not None
    return Horizon.parse(str(row[0]))


def _failed(binding: Binding, why: str) -> str:
    return (
        f"{UNABLE} An exception happened so please check your connect parameters:"
        f" [{_described(binding)}]. Exception: {why}"
    )


def _described(binding: Binding) -> str:
    return ", ".join(f"{key}: {value}" for key, value in binding.asked.items())
