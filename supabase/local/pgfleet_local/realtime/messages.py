"""Turn rows of `realtime.messages` into broadcasts, and keep the table's daily partitions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import psycopg

from pgfleet_local.realtime.database import Database, Unreachable
from pgfleet_local.realtime.pgoutput import Change, Row, TableShape
from pgfleet_local.realtime.protocol import Broadcast, to_json
from pgfleet_local.realtime.topics import Topics, wire_topic

logger = logging.getLogger(__name__)

JANITOR_SECONDS = 3600.0
RETRY_SECONDS = 1.0
MAINTAIN = "select pgfleet_local.maintain_messages()"


def is_message(table: TableShape) -> bool:
    """Tell whether a table of the stream is the one that holds messages."""
    return table.schema == "realtime" and table.name == "messages"


def publish_message(topics: Topics, change: Change) -> None:
    """Hand a stored message to its topic, once, however many listen."""
    row = change.new
    if row is None or row.get("extension") != "broadcast":
        return
    topic, event = row.get("topic"), row.get("event")
    payload = _payload(row)
    if not isinstance(topic, str) or payload is None:
        return
    broadcast = Broadcast(
        wire_topic(topic),
        event if isinstance(event, str) else "",
        payload,
        meta=to_json({"id": row.get("id")}),
        compact=True,
    )
    topics.publish(topic, row.get("private") == "t", broadcast)


def _payload(row: Mapping[str, object] | Row) -> str | bytes | None:
    """Return what the message carries: JSON text, else bytes."""
    payload, binary = row.get("payload"), row.get("binary_payload")
    if isinstance(payload, str):
        return payload
    if isinstance(binary, str):
        return bytes.fromhex(binary.removeprefix("\\x"))
    return None


class PartitionJanitor:
    """Asks for the partitions of the coming days, and for old ones to be dropped.

    Without a partition for today `realtime.send` only warns, and the message is lost.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Ask every hour; a database that is away is asked again soon."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await connection.execute(MAINTAIN)
            except Unreachable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except psycopg.Error as error:
                logger.warning("cannot keep the partitions of realtime.messages: %s", error)
            await asyncio.sleep(JANITOR_SECONDS)
