"""The rows of buckets and objects, read and written as the caller."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from pgfleet_local.storage.bodies import Upload
from pgfleet_local.storage.callers import Caller
from pgfleet_local.storage.errors import (
    StorageError,
    from_database,
    invalid,
    missing_bucket,
    missing_object,
)

Row = dict[str, Any]
_COLUMNS = (
    "id, bucket_id, name, owner, owner_id, metadata, user_metadata, version, created_at, updated_at"
)


class Objects:
    """Look up and change rows of `storage`; row security decides for whom."""

    def __init__(self, authenticator_url: str) -> None:
        self._url = authenticator_url
        self._pool: AsyncConnectionPool[AsyncConnection[Row]] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep connections; a database that is down is waited for at each request."""
        pool: AsyncConnectionPool[AsyncConnection[Row]] = AsyncConnectionPool(
            self._url,
            min_size=0,
            max_size=8,
            open=False,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "application_name": "storage",
                "prepare_threshold": None,
            },
            check=AsyncConnectionPool.check_connection,
            reconnect_timeout=2.0,
        )
        async with pool:
            self._pool = pool
            yield
        self._pool = None

    @asynccontextmanager
    async def acting(self, caller: Caller) -> AsyncIterator[AsyncConnection[Row]]:
        """Give a transaction of the caller."""
        assert self._pool is not None
        try:
            async with self._pool.connection(timeout=10) as connection, connection.transaction():
                await connection.execute(
                    "select set_config('role', %s, true),"
                    " set_config('request.jwt.claims', %s, true)",
                    (caller.role, caller.claims_text),
                )
                yield connection
        except psycopg.Error as error:
            raise from_database(error) from error

    async def bucket(self, name: str) -> Row:
        """Give a bucket, whoever asks."""
        async with self.acting(Caller("service_role", {"role": "service_role"})) as connection:
            cursor = await connection.execute(
                "select * from storage.buckets where id = %s", (name,)
            )
            row = await cursor.fetchone()
        if row is None:
            raise missing_bucket()
        return row

    async def find(self, caller: Caller, bucket: str, name: str) -> Row:
        """Give the row of an object that the caller may see."""
        async with self.acting(caller) as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS} from storage.objects where bucket_id = %s and name = %s",  # noqa: S608
                (bucket, name),
            )
            row = await cursor.fetchone()
        if row is None:
            raise missing_object()
        return row

    async def require_writable(
        self, caller: Caller, bucket: str, name: str, *, upsert: bool
    ) -> None:
        """Refuse early what the caller may not write; nothing is kept of the attempt."""
        async with self.acting(caller) as connection:
            async with connection.transaction(force_rollback=True):
                await self._write(connection, caller, bucket, name, {}, {}, upsert=upsert)

    async def put(
        self,
        caller: Caller,
        bucket: str,
        name: str,
        upload: Upload,
        version: str,
        etag: str,
        *,
        upsert: bool,
    ) -> Row:
        """Write the row of what was uploaded; `replaced` is the version that it had before."""
        metadata = {
            "eTag": etag,
            "size": upload.size,
            "mimetype": upload.content_type,
            "cacheControl": f"max-age={upload.fields.get('cacheControl', '3600')}",
            "contentLength": upload.size,
            "httpStatusCode": 200,
        }
        try:
            own = json.loads(upload.fields.get("metadata", "{}"))
        except ValueError as error:
            raise invalid("metadata is not JSON") from error
        async with self.acting(caller) as connection:
            return await self._write(
                connection, caller, bucket, name, metadata, own, upsert=upsert, version=version
            )

    async def _write(
        self,
        connection: AsyncConnection[Row],
        caller: Caller,
        bucket: str,
        name: str,
        metadata: Row,
        own: Row,
        *,
        upsert: bool,
        version: str = "",
    ) -> Row:
        conflict = (
            " on conflict (bucket_id, name) do update set version = excluded.version,"
            " metadata = excluded.metadata, user_metadata = excluded.user_metadata,"
            " updated_at = now()"
            if upsert
            else ""
        )
        cursor = await connection.execute(
            "insert into storage.objects"  # noqa: S608
            " (bucket_id, name, owner_id, metadata, user_metadata, version)"
            f" values (%s, %s, %s, %s, %s, %s){conflict} returning {_COLUMNS}",
            (bucket, name, caller.owner_id, Jsonb(metadata), Jsonb(own), version or str(uuid4())),
        )
        row = await cursor.fetchone()
        assert row is not None
        return row

    async def remove(self, caller: Caller, bucket: str, names: list[str]) -> list[Row]:
        """Delete rows of objects."""
        async with self.acting(caller) as connection:
            cursor = await connection.execute(
                "delete from storage.objects"  # noqa: S608
                f" where bucket_id = %s and name = any (%s) returning {_COLUMNS}",
                (bucket, names),
            )
            return await cursor.fetchall()

    async def rename(self, caller: Caller, bucket: str, name: str, to: tuple[str, str]) -> None:
        """Give an object another name, or another bucket."""
        async with self.acting(caller) as connection:
            cursor = await connection.execute(
                "update storage.objects set bucket_id = %s, name = %s, updated_at = now()"
                " where bucket_id = %s and name = %s",
                (*to, bucket, name),
            )
            if cursor.rowcount == 0:
                raise missing_object()

    async def below(self, caller: Caller, bucket: str, prefix: str) -> list[Row]:
        """List the objects whose names begin with the prefix."""
        async with self.acting(caller) as connection:
            cursor = await connection.execute(
                f"select {_COLUMNS} from storage.objects"  # noqa: S608
                " where bucket_id = %s and starts_with(name, %s) order by name limit 10000",
                (bucket, prefix),
            )
            return await cursor.fetchall()

    async def buckets(self, caller: Caller, text: str, *values: Any) -> list[Row]:
        """Run a statement about buckets."""
        async with self.acting(caller) as connection:
            cursor = await connection.execute(text.encode(), values)
            return await cursor.fetchall() if cursor.description else []


def require_name(name: str) -> str:
    """Refuse names that could lead out of a bucket, or that no store takes."""
    parts = name.split("/")
    if (
        not name
        or len(name) > 1024
        or any(part in ("", ".", "..") for part in parts)
        or any(ord(letter) < 32 for letter in name)
    ):
        raise StorageError(400, "InvalidKey", f"Invalid key: {name[:100]}")
    return name
