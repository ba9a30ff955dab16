"""The console's way into the database: as the person who looks, one transaction a request.

Each statement reads one view or calls one function, composed by `pgfleet.statements`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from pgfleet import statements
from pgfleet.errors import NotFound, translate_errors
from pgfleet.statements import Name, Row, Statement
from pgfleet_console.viewers import PERMISSIONS, Viewer

Pool = AsyncConnectionPool[AsyncConnection[Row]]
ACQUIRE_SECONDS = 5.0
# What a page asks for is cut off before a person gives up, and long before it hurts others.
STATEMENT_SECONDS = 15

_BEGIN = """
select
  set_config('request.jwt.claims', %s, true),
  set_config('statement_timeout', %s, true),
  set_config('timezone', 'UTC', true),
  set_config('transaction_read_only', %s, true),
  set_config('role', %s, true)
"""


def make_pool(url: str, *, size: int = 6) -> Pool:
    """Return a pool that is not open yet; it finds its way back after a restart of Postgres."""
    return AsyncConnectionPool(
        url,
        min_size=1,
        max_size=size,
        open=False,
        timeout=ACQUIRE_SECONDS,
        kwargs={
            "autocommit": True,
            # Poolers between us and Postgres may not keep prepared statements.
            "prepare_threshold": None,
            "application_name": "console",
            "client_encoding": "utf8",
            "row_factory": dict_row,
        },
        check=AsyncConnectionPool.check_connection,
        reconnect_timeout=2.0,
    )


class Database:
    """One transaction of one viewer."""

    def __init__(self, conn: AsyncConnection[Row], viewer: Viewer) -> None:
        self._conn = conn
        self._viewer = viewer
        self._may: dict[str, frozenset[UUID]] = {}

    async def find(
        self,
        view: Name,
        where: Mapping[Name, Any] | None = None,
        *,
        columns: Sequence[Name] = ("*",),
        order: Sequence[Name] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """Read a view; a condition whose value is None is none. `-id` is from the last on."""
        return await self._run(
            statements.reading(view, where, columns=columns, order=order, limit=limit)
        )

    async def one(self, view: Name, kind: str, row_id: Any, *, key: Name = "id") -> Row:
        """Read the row with an id, or raise `NotFound`."""
        rows = await self.find(view, {key: row_id}, limit=1)
        if not rows:
            raise NotFound(f"{kind} {row_id} was not found", reason="not_found")
        return rows[0]

    async def counts(self, view: Name, by: Name, where: Mapping[Name, Any]) -> dict[str, int]:
        """Count the rows of a view for each value of a column."""
        rows = await self._run(statements.counting(view, by, where))
        return {str(row[by]): row["count"] for row in rows}

    async def call(self, function: Name, *columns: Name, **arguments: Any) -> list[Row]:
        """Call a function for its rows; an argument that is None is left to its default."""
        return await self._run(statements.rows_of(function, columns, arguments))

    async def value(self, function: Name, **arguments: Any) -> Any:
        """Call a function for its value; an argument that is None is left to its default."""
        return (await self._run(statements.value_of(function, arguments)))[0]["answer"]

    @staticmethod
    def json(value: Any) -> Jsonb:
        """Wrap a value so that it arrives as jsonb."""
        return Jsonb(value)

    async def may(self, permission: Name, owner_id: Any) -> bool:
        """Tell whether the viewer has a permission in an owner, to show only what will work."""
        return self._viewer.is_operator or owner_id in await self._owners(permission)

    async def may_begin(self, permission: Name) -> bool:
        """Tell whether the viewer has a fleet to make something in.

        Whoever is in none gets one of their own with what they make first; one's own is not offered
        to people who only look at another, until there is something in it.
        """
        if self._viewer.is_operator:
            return True
        owners = await self.find(
            "owner_list", columns=("id", "is_personal", "is_default", "devices"), limit=50
        )
        mine = await self._owners(permission)
        return not owners or any(
            row["id"] in mine and (row["is_default"] or not row["is_personal"] or row["devices"])
            for row in owners
        )

    async def _owners(self, permission: Name) -> frozenset[UUID]:
        assert permission in PERMISSIONS
        if permission not in self._may:
            rows = await self.call("fleet.my_owners", "my_owners", p_permission=permission)
            self._may[permission] = frozenset(row["my_owners"] for row in rows)
        return self._may[permission]

    async def _run(self, statement: Statement) -> list[Row]:
        with translate_errors():
            return await (await self._conn.execute(*statement)).fetchall()


@asynccontextmanager
async def looking(pool: Pool, viewer: Viewer, *, changes: bool = False) -> AsyncIterator[Database]:
    """Open one transaction as a viewer; one that changes nothing cannot."""
    with translate_errors():
        async with pool.connection() as conn, conn.transaction():
            await conn.execute(
                _BEGIN,
                (
                    viewer.claims,
                    f"{STATEMENT_SECONDS}s",
                    "off" if changes else "on",
                    viewer.role,
                ),
            )
            yield Database(conn, viewer)


async def claims_of(pool: Pool, whom: str) -> str:
    """Give the claims with which a person, named by address or id, would come."""
    with translate_errors():
        async with pool.connection() as conn, conn.transaction(force_rollback=True):
            await conn.execute(*statements.value_of("fleet.act_as", {"p_person": whom}))
            cursor = await conn.execute(*statements.value_of("fleet.jwt_claims", {}))
            row = await cursor.fetchone()
    assert row is not None
    return json.dumps(row["answer"])
