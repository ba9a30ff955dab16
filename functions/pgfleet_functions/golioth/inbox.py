"""Working on what was pushed: a batch of one integration becomes points, and a row in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from pgfleet_functions.database import Pool, fetch_value
from pgfleet_functions.dispatching import Claim, Ended, Piece
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.golioth.client import moment
from pgfleet_functions.telemetry import Point, Telemetry, written

log = logging.getLogger(__name__)

# Points are to be seen within a second; a batch costs hardly more than a message.
PAUSE_SECONDS = 0.25
FEW = 1000

_CLAIM = "select coalesce(jsonb_agg(c), '[]') from fleet.worker_claim_inbox(%s) as c"
_JUDGE = "select fleet.worker_judge_points(%s)"
_FINISH = "select fleet.worker_finish_inbox(%s, %s, %s)"


class TakenOver(Exception):
    """Another function has the messages by now."""


async def claim_inboxes(pool: Pool, telemetry: Telemetry, shares: Mapping[str, Any]) -> Claim:
    """Claim what was pushed to integrations."""
    claims = await fetch_value(pool, _CLAIM, Jsonb(shares))
    pieces = [
        Piece(one["owner_id"], one["integration_id"], partial(_work, pool, telemetry, one))
        for one in claims
    ]
    return Claim(pieces, wait=0 if pieces else None)


async def _work(pool: Pool, telemetry: Telemetry, claim: Mapping[str, Any]) -> Ended:
    """Store the points of a batch, and that they are, in one transaction."""
    began = time.monotonic()
    messages = claim["messages"]
    points = [_point(one) for one in messages]
    counts = {"messages": len(messages) + claim["aside"], "aside": claim["aside"]}

    async def then(connection: AsyncConnection[Any], result: dict[str, Any]) -> None:
        told = {name: result[name] for name in ("stored", "known", "outside")}
        report = {
            "ids": [one[0] for one in messages],
            "counts": counts | {"points": result["given"]} | told,
            "duration_ms": round((time.monotonic() - began) * 1000),
            "detail": {"unknown_devices": claim["aside_of"]} if claim["aside"] else {},
        }
        values = (claim["integration_id"], claim["held_until"], Jsonb(report))
        row = await (await connection.execute(_FINISH, values)).fetchone()
        if row is None or not row[0]:
            raise TakenOver
        if result["latest"]:
            await connection.execute(_JUDGE, (Jsonb(result["latest"]),))

    try:
        await telemetry.store(
            points,
            owner_id=claim["owner_id"],
            source="push",
            keep_days=int(claim["keep_days"]),
            then=then,
        )
    except TakenOver:
        log.warning("the messages of integration %s were taken over", claim["integration_id"])
        return Ended(is_slow=True)
    except FunctionError as error:
        # They wait, and are taken again when the lease has ended.
        log.warning("messages of %s wait: %s", claim["integration_id"], error.message)
        return Ended(is_slow=True)
    if len(messages) < FEW:
        # What comes meanwhile is worked as one batch, and not each message by itself.
        await asyncio.sleep(PAUSE_SECONDS)
    return Ended({"messages": len(messages)})


def _point(message: list[Any]) -> Point:
    _, device_id, path, at, received_at, digest, data = message
    told = moment(at)
    received = moment(received_at)
    assert received is not None
    # As it is stored, numbers may look other than they came; the digest is of what came.
    text = written(data)
    return Point(device_id, told or received, digest, text, told is None, path)
