"""Owners whose webhooks go to receivers that take a request and say nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from tests.helpers.hostile import Hostile, hostile
from tests.helpers.sandbox import wait_until

ENDPOINTS = 25


async def never(_: asyncio.StreamWriter) -> None:
    """Take a request, and say nothing."""
    await asyncio.Event().wait()


def owner_with_endpoints(conn: Any, urls: list[str]) -> str:
    """Make an owner who is told of everything at these addresses; give its id."""
    owner = str(uuid4())
    conn.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    for number, url in enumerate(urls):
        spec = {"owner_id": owner, "url": url, "name": f"hook {number}", "events": ["*"]}
        conn.execute("select create_webhook_endpoint(%s::jsonb)", (json.dumps(spec),))
    return owner


def tell(conn: Any, owner: str, times: int) -> None:
    """Let things happen, and let the tick say that there is something to be told."""
    subjects = [json.dumps({"number": number}) for number in range(times)]
    conn.execute(
        "select fleet.emit_events(%s::uuid[], 'run.failed', %s::jsonb[])",
        ([owner] * times, subjects),
    )
    conn.execute("select fleet.poke('notify-dispatch')")


@contextmanager
def everybody_hangs(conn: Any) -> Iterator[Hostile]:
    """Let one owner have many endpoints that never answer, with much to tell to each."""
    with hostile(never) as server:
        bad = owner_with_endpoints(conn, [f"{server.url}/{n}" for n in range(ENDPOINTS)])
        tell(conn, bad, 8)
        wait_until(lambda: len(server.requests) >= 4)
        yield server
