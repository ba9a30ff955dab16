"""Pushed messages: so many a second for half a minute, none lost, and how long each answer took."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from measure import row, value

from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.settings import StackSettings

SECONDS = int(os.environ.get("PGFLEET_BENCH_SECONDS", "30"))
STRAIGHT, BEHIND_GATEWAY = 500, 150
DEVICES, CONNECTIONS = 100, 32
FUNCTIONS = "import sys; from pgfleet.main import app; app(sys.argv[1:])"


def run(connection: psycopg.Connection[Any], settings: StackSettings) -> list[dict[str, Any]]:
    """Post straight to the functions, then through the local gateway."""
    with psycopg.connect(settings.admin_url) as admin:
        ensure_worker_role(admin, settings.password("fleet_worker"))
    connection.execute("select fleet.grant_worker()")
    port = _free_port()
    environment = os.environ | {
        "PGFLEET_FUNCTIONS_DATABASE_URL": settings.worker_url,
        "SUPABASE_JWT_SECRET": settings.jwt_secret,
    }
    run_functions = [FUNCTIONS, "functions", "run", "--port", str(port), "--poll", "1"]
    with _process(run_functions, environment, port) as process:
        straight = _measured(connection, f"http://127.0.0.1:{port}", "", STRAIGHT, process)
    gateway = ["from pgfleet_local.gateway import main; main()"]
    with _process(gateway, os.environ | settings.environment(), settings.api_port) as process:
        behind = _measured(connection, settings.api_url, "/functions/v1", BEHIND_GATEWAY, process)
    return [*straight, *behind]


def _measured(
    connection: psycopg.Connection[Any], base: str, prefix: str, rate: int, process: int
) -> list[dict[str, Any]]:
    path, devices = _connected(connection)
    # A handful first: whatever is made at the first use is made by then.
    asyncio.run(_post(base, prefix + path, devices, 50, 1))
    worked = _processor_seconds(process)
    waits, statuses = asyncio.run(_post(base, prefix + path, devices, rate, SECONDS))
    worked = _processor_seconds(process) - worked
    sent = rate * SECONDS + 50
    stored = value(
        connection,
        "select count(*) from fleet.webhook_inbox as b join device_integrations as i"
        " on i.id = b.integration_id where i.name = %s",
        path,
    )
    ended = time.monotonic() + 60
    query = (
        "select count(*) from telemetry.points as p join device_links as l on l.device_id ="
        " p.device_id join device_integrations as i on i.id = l.integration_id where i.name = %s"
    )
    while value(connection, query, path) < sent and time.monotonic() < ended:
        time.sleep(0.2)
    points = value(connection, query, path)
    waits.sort()
    middle, late = (waits[int(len(waits) * share)] * 1000 for share in (0.5, 0.99))
    where = "through the gateway" if prefix else "straight to the functions"
    said = f"{rate} posts a second for {SECONDS} s {where}"
    refused = {status: count for status, count in statuses.items() if status != 202}
    return [
        row(f"{said}: lost of {sent}", sent - min(stored, points), "", goal="0"),
        row(f"{said}: p99 of the answers", round(late, 1), "ms", round(middle, 1), "≤ 100 ms"),
        # However much else the machine has to do.
        row(f"{said}: processor time a post", round(worked / len(waits) * 1000, 2), "ms"),
        *([row(f"{said}: not taken", json.dumps(refused), "")] if refused else []),
    ]


def _connected(connection: psycopg.Connection[Any]) -> tuple[str, list[str]]:
    """Connect a project whose devices are known; its name is the path to push to."""
    owner = value(connection, "insert into owners (name) values ('bench') returning id::text")
    spec = {
        "name": str(uuid4()),
        "integration_type": "golioth",
        "owner_id": owner,
        "settings": {"projectId": "bench", "syncEnabled": False},
    }
    made = value(connection, "select id from create_integration(%s)", json.dumps(spec))
    path = value(connection, "select create_integration_webhook(%s) ->> 'path'", made)
    connection.execute("update device_integrations set name = %s where id = %s", (path, made))
    names = [f"{uuid4().hex[:24]}" for _ in range(DEVICES)]
    connection.execute(
        "with made as (insert into devices (owner_id, hostname) select %s, x"
        " from unnest(%s::text[]) as x returning id, hostname)"
        " insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select m.id, %s, %s, m.hostname from made as m",
        (owner, names, made, owner),
    )
    return path, names


async def _post(
    base: str, path: str, devices: list[str], rate: int, seconds: int
) -> tuple[list[float], dict[int, int]]:
    """Post at an even pace; a wait counts from when its post was due, not from when it began."""
    where = urlsplit(base)
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    waits: list[float] = []
    statuses: dict[int, int] = {}

    async def sender() -> None:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        while True:
            at, request = await due.get()
            if not request:
                writer.close()
                return
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
            await reader.readexactly(length)
            waits.append(time.monotonic() - at)
            status = int(head.split(b" ", 2)[1])
            statuses[status] = statuses.get(status, 0) + 1

    senders = [asyncio.create_task(sender()) for _ in range(CONNECTIONS)]
    began = time.monotonic()
    for number in range(rate * seconds):
        at = began + number / rate
        if (pause := at - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        due.put_nowait((at, _request(path, devices[number % len(devices)], number)))
    for _ in senders:
        due.put_nowait((0, b""))
    await asyncio.gather(*senders)
    return waits, statuses


def _request(path: str, device: str, number: int) -> bytes:
    body = json.dumps({"t": 20.5, "n": number}).encode()
    told = datetime.now(UTC).isoformat(timespec="microseconds")
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Ce-Source: {device}\r\nCe-Id: {uuid4()}\r\nCe-Time: {told}\r\n"
        f"Ce-Type: io.golioth.data.v1/.s/sensor\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


@contextmanager
def _process(code: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", *code], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        ended = time.monotonic() + 60
        while time.monotonic() < ended:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _processor_seconds(process: int) -> float:
    """Tell how long a process was worked on, by Linux; elsewhere nothing is measured."""
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
