"""Read what Postgres commits, through a temporary logical slot, and pass it on in order."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

import psycopg

from pgfleet_local.background import Backoff
from pgfleet_local.realtime.database import Connection, Database
from pgfleet_local.realtime.options import (
    CHANGES_PUBLICATION,
    MESSAGES_PUBLICATION,
    RealtimeOptions,
)
from pgfleet_local.realtime.pgoutput import Change, Decoder, TableShape

logger = logging.getLogger(__name__)

WAKE_CHANNEL = "pgfleet_realtime"
# A publication that appears or goes is noticed this soon.
PUBLICATION_CHECK_SECONDS = 5.0
# A large transaction comes whole; sockets are served in between.
BREATH_EVERY = 500

READ_SLOT = (
    "select data from pg_logical_slot_get_binary_changes("
    "%s, null, %s, 'proto_version', '1', 'publication_names', %s)"
)
# The slot sees what is flushed. A commit that does not wait for the disk is pushed there by another
# commit, one that does wait.
LOG_ENDS = "select pg_current_wal_insert_lsn()::text, pg_current_wal_flush_lsn()::text"
PUSH_OUT = "select pg_logical_emit_message(true, 'pgfleet', '')"
PUBLICATIONS = "select pubname::text from pg_publication where pubname = any (%s) order by 1"


class ChangeReader:
    """The one reader of the stream.

    The slot dies with its connection, so what is committed while the server is away is not
    delivered; listeners are told when the stream is live again and look for themselves.
    """

    def __init__(
        self,
        database: Database,
        options: RealtimeOptions,
        live: asyncio.Event,
        *,
        wanted: Callable[[TableShape], bool],
        on_change: Callable[[Change], None],
        on_live: Callable[[], None],
    ) -> None:
        self._database = database
        self._options = options
        self._live = live
        self._wanted = wanted
        self._on_change = on_change
        self._on_live = on_live
        self._backoff = Backoff()

    async def run(self) -> None:
        """Read for ever; every failure ends in a new connection with a new slot."""
        while True:
            try:
                await self._stream()
            except (psycopg.Error, OSError) as error:
                logger.warning("change stream lost: %s", error)
            except Exception:
                # An unreadable message must not take the gateway down with it.
                logger.exception("change stream failed")
            finally:
                self._live.clear()
            await asyncio.sleep(self._backoff.pause())

    async def _stream(self) -> None:
        """Read one slot until the connection or the set of publications changes."""
        async with await self._database.connect("pgfleet realtime stream") as connection:
            await connection.execute(f"listen {WAKE_CHANNEL}")
            publications = await _publications(connection)
            if not publications:
                logger.info("no publication to read yet")
                return
            slot = f"pgfleet_realtime_{uuid.uuid4().hex[:16]}"
            await connection.execute(
                "select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (slot,)
            )
            self._backoff.reset()
            interrupted = not self._live.is_set()
            self._live.set()
            if interrupted:
                self._on_live()
            await self._follow(connection, slot, publications)

    async def _follow(self, connection: Connection, slot: str, publications: list[str]) -> None:
        loop = asyncio.get_running_loop()
        seen, check_at = "", loop.time() + PUBLICATION_CHECK_SECONDS
        while True:
            woken = await _wait(connection, self._options.poll_interval)
            written, flushed = await _log_ends(connection)
            if written != seen or woken:
                if written != flushed:
                    await connection.execute(PUSH_OUT)
                    written, _ = await _log_ends(connection)
                seen = written
                await self._drain(connection, slot, publications)
            if loop.time() >= check_at:
                check_at = loop.time() + PUBLICATION_CHECK_SECONDS
                if await _publications(connection) != publications:
                    return

    async def _drain(self, connection: Connection, slot: str, publications: list[str]) -> None:
        """Read until the slot is empty."""
        while await self._read(connection, slot, publications):
            pass

    async def _read(self, connection: Connection, slot: str, publications: list[str]) -> bool:
        """Take one batch from the slot and pass its changes on."""
        decoder = Decoder()
        async with connection.cursor(binary=True) as cursor:
            await cursor.execute(
                READ_SLOT, (slot, self._options.changes_per_poll, ",".join(publications))
            )
            rows = await cursor.fetchall()
        for number, (data,) in enumerate(rows):
            if number % BREATH_EVERY == 0:
                await asyncio.sleep(0)
            assert isinstance(data, bytes)
            for table, message in decoder.feed(data):
                if self._wanted(table):
                    self._on_change(decoder.change(table, message))
        return bool(rows)


async def _wait(connection: Connection, seconds: float) -> bool:
    """Wait for the next turn; tell whether a wake-up call cut it short."""
    woken = False
    async for _ in connection.notifies(timeout=seconds, stop_after=1):
        woken = True
    return woken


async def _log_ends(connection: Connection) -> tuple[str, str]:
    """Return how far the log is written, and how far it is flushed."""
    row = await (await connection.execute(LOG_ENDS)).fetchone()
    assert row is not None
    return str(row[0]), str(row[1])


async def _publications(connection: Connection) -> list[str]:
    """Return the publications that exist now."""
    names = [CHANGES_PUBLICATION, MESSAGES_PUBLICATION]
    cursor = await connection.execute(PUBLICATIONS, (names,))
    return [str(row[0]) for row in await cursor.fetchall()]
