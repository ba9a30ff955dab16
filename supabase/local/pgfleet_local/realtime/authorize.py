"""Ask Postgres what a listener may read, under the listener's own role and claims."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgfleet_local.realtime.database import Connection, Database
from pgfleet_local.realtime.identity import Access
from pgfleet_local.realtime.relations import Relation

logger = logging.getLogger(__name__)

INSERT_MESSAGES = (
    "insert into realtime.messages (id, topic, extension, event, private)"
    " select gen_random_uuid(), %s, e.extension, 'pgfleet-probe', true"
    " from unnest(%s::text[]) as e (extension)"
)
BECOME = (
    "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
    " set_config('request.jwt.claim.sub', %s, true), set_config('request.jwt.claim.role', %s, true)"
)
COLUMNS = (
    "select a.attname from pg_catalog.pg_attribute as a"
    " where a.attrelid = %s::oid and a.attnum > 0 and not a.attisdropped"
    " and pg_catalog.has_column_privilege(%s::name, a.attrelid, a.attnum, 'select')"
)


@dataclass(frozen=True, slots=True)
class RowKey:
    """The primary key of one row, as text."""

    columns: tuple[str, ...]
    values: tuple[str, ...]


class Authorizer:
    """Answers from row security. Nothing is cached: policies and grants may change at any time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def readable(
        self, access: Access, topic: str, extensions: Collection[str]
    ) -> frozenset[str]:
        """Tell what of a private topic the policies let this listener read.

        Probe messages are inserted, looked for under the listener's role, and rolled back.
        """
        async with self._database.connection() as connection:
            async with connection.transaction(force_rollback=True):
                cursor = await connection.execute(
                    INSERT_MESSAGES + " returning id", (topic, list(extensions))
                )
                probes = [row[0] for row in await cursor.fetchall()]
                try:
                    await _become_on_topic(connection, access, topic)
                    found = await connection.execute(
                        "select extension from realtime.messages where id = any (%s)", (probes,)
                    )
                    return frozenset(str(row[0]) for row in await found.fetchall())
                except psycopg.errors.InsufficientPrivilege:
                    return frozenset()

    async def may_write(self, access: Access, topic: str, extension: str) -> bool:
        """Tell whether the policies let this listener send such messages to a private topic."""
        async with self._database.connection() as connection:
            async with connection.transaction(force_rollback=True):
                try:
                    await _become_on_topic(connection, access, topic)
                    await connection.execute(INSERT_MESSAGES, (topic, [extension]))
                except psycopg.errors.InsufficientPrivilege:
                    return False
                return True


async def who_sees(
    connection: Connection, relation: Relation, key: RowKey, listeners: Collection[Access]
) -> set[Access]:
    """Return the listeners whose policies show them the row as it is now."""
    ordered = sorted(listeners, key=lambda access: access.role)
    if not ordered:
        return set()
    query = _row_exists(relation, key)
    try:
        return await _ask_together(connection, query, key, ordered)
    except psycopg.DatabaseError as error:
        if connection.closed:
            raise
        logger.warning("row security of %s raised: %s", relation.qualified_name, error)
        return await _ask_one_by_one(connection, query, key, ordered)


async def selectable_columns(
    connection: Connection, relation: Relation, roles: Iterable[str]
) -> dict[str, set[str]]:
    """Return the columns that each role may read; a role that does not exist reads none."""
    found: dict[str, set[str]] = {}
    for role in roles:
        try:
            cursor = await connection.execute(COLUMNS, (relation.oid, role))
            found[role] = {str(row[0]) for row in await cursor.fetchall()}
        except psycopg.errors.UndefinedObject:
            found[role] = set()
    return found


async def _become_on_topic(connection: Connection, access: Access, topic: str) -> None:
    """Set the topic first: a listener's role might not be able to."""
    await connection.execute(
        "select set_config('realtime.topic', %s, true), set_config('request.headers', '{}', true)",
        (topic,),
    )
    await _become(connection, access)


async def _become(connection: Connection, access: Access) -> None:
    """Take the listener's role and claims for the rest of the transaction."""
    await connection.execute(BECOME, (access.role, access.claims, access.subject, access.role))


def _row_exists(relation: Relation, key: RowKey) -> sql.Composed:
    """Write the test for one row by its primary key."""
    conditions = [
        sql.SQL("{} = %s::{}").format(
            sql.Identifier(column), sql.SQL(relation.column(column).sql_type)
        )
        for column in key.columns
    ]
    return sql.SQL("select exists (select 1 from {} where {})").format(
        sql.Identifier(relation.schema, relation.name), sql.SQL(" and ").join(conditions)
    )


async def _ask_together(
    connection: Connection, query: sql.Composed, key: RowKey, listeners: Sequence[Access]
) -> set[Access]:
    """Ask for all listeners in one round trip; one failing policy fails them all."""
    cursors = []
    async with connection.pipeline(), connection.transaction(force_rollback=True):
        for access in listeners:
            await _become(connection, access)
            cursors.append(await connection.execute(query, key.values))
    answers = [await cursor.fetchone() for cursor in cursors]
    pairs = zip(listeners, answers, strict=True)
    return {access for access, answer in pairs if answer is not None and answer[0]}


async def _ask_one_by_one(
    connection: Connection, query: sql.Composed, key: RowKey, listeners: Sequence[Access]
) -> set[Access]:
    """Ask for each listener alone, so that one whose policy raises silences only itself."""
    seen: set[Access] = set()
    for access in listeners:
        try:
            async with connection.transaction(force_rollback=True):
                await _become(connection, access)
                cursor = await connection.execute(query, key.values)
                answer = await cursor.fetchone()
        except psycopg.DatabaseError:
            if connection.closed:
                raise
            continue
        if answer is not None and answer[0]:
            seen.add(access)
    return seen
