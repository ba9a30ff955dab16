"""Pipelines: what a device reports is pushed to a webhook, in one of three shapes, never again."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpcore

from pgfleet_local.sandboxes.golioth.project import PROJECT, Point, Project

AT_ONCE = 64
SECONDS = 10.0
_CHANCE = random.Random(11)


async def push(project: Project, points: Sequence[Point]) -> None:
    """Push points, some of them never and some of them twice, as the faults have it."""
    if not project.webhook["url"]:
        return
    gate = asyncio.Semaphore(AT_ONCE)
    # Without the layer of httpx: tests let a hundred thousand points be pushed.
    async with httpcore.AsyncConnectionPool(max_connections=AT_ONCE) as client:

        async def send(point: Point) -> None:
            async with gate:
                await _send(project, client, point)

        await asyncio.gather(*(send(one) for one in points))


async def _send(project: Project, client: httpcore.AsyncConnectionPool, point: Point) -> None:
    if _CHANCE.random() < project.faults.drop_share:
        project.pushed["dropped"] += 1
        return
    told, body = message(point, project.webhook["shape"])
    headers = {"Content-Type": "application/json"} | told | project.webhook["headers"]
    content = json.dumps(body).encode()
    seconds = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
    times = 1 + (_CHANCE.random() < project.faults.double_share)
    project.pushed["doubled"] += times - 1
    for _ in range(times):
        project.pushed["sent"] += 1
        try:
            answer = await client.request(
                *("POST", project.webhook["url"]),
                headers=headers,
                content=content,
                extensions={"timeout": seconds},
            )
            project.pushed["failed"] += not 200 <= answer.status < 300
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
            project.pushed["failed"] += 1
        except AttributeError:
            # A connection that is reset at once has no socket any more: uvloop tells it by None.
            project.pushed["failed"] += 1


def message(point: Point, shape: str) -> tuple[dict[str, str], Any]:
    """Give headers and body: "raw" with id and time, "bare" without, "metadata" in the body."""
    headers = {
        "Ce-Source": point.device_id,
        "Ce-Subject": PROJECT,
        "Ce-Type": f"io.golioth.data.v1/.s{point.path}",
    }
    if shape == "bare":
        return headers, point.data
    if shape == "metadata":
        seconds, micros = divmod(point.micros, 1_000_000)
        return headers, {
            "data": point.data,
            "device_id": point.device_id,
            "project_id": PROJECT,
            "timestamp": {"seconds": seconds, "nanos": micros * 1000},
        }
    moment = datetime.fromtimestamp(point.micros // 1_000_000, UTC)
    moment = moment.replace(microsecond=point.micros % 1_000_000)
    told = {
        "Ce-Id": str(uuid4()),
        "Ce-Specversion": "1.0",
        "Ce-Time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    return headers | told, point.data
