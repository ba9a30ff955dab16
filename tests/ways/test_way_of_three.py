"""Three processes of the functions behind one address share the work, whoever of them is killed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from tests.helpers.hostile import hostile
from tests.helpers.sandbox import wait_until

from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.server.ports import connections
from pgfleet_local.settings import HOST

PROCESSES = 3
EVENTS_A_ROUND = 12
HOOKS = 6
SECRET = "a secret of thirty-two bytes or more"


class Functions:
    """Processes that serve the functions, each on a port of its own."""

    def __init__(self, url: str, ports: list[int]) -> None:
        self._url = url
        self.ports = ports
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int) -> None:
        words = ["-m", "pgfleet", "functions", "run", "--port", str(port)]
        self._running[port] = subprocess.Popen(
            [sys.executable, *words],
            env={
                **os.environ,
                "PGFLEET_FUNCTIONS_DATABASE_URL": self._url,
                "PGFLEET_JWT_SECRET": SECRET,
                "PGFLEET_ALLOW_PRIVATE_ADDRESSES": "on",
            },
            stderr=subprocess.DEVNULL,
        )

    def pid(self, port: int) -> int:
        return self._running[port].pid

    def kill(self, port: int) -> None:
        self._running[port].kill()
        self._running[port].wait()

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


@contextmanager
def balancer(ports: list[int]) -> Iterator[str]:
    """Give one address behind which each connection goes to the next that takes it."""
    turns = itertools.cycle(ports)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in ports:
            with suppress(OSError):
                inner, outer = await asyncio.open_connection(HOST, next(turns))
                await asyncio.gather(pass_on(reader, outer), pass_on(inner, writer))
                return
        writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, HOST, 0)

    async def stop() -> None:
        server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


class Receiver:
    """Counts how often it was told something, by which process."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.by: Counter[int] = Counter()

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        self.by.update(self._holders({f"socket:[{one.inode}]" for one in connections(port)}))
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _holders(self, sockets: set[str]) -> Iterator[int]:
        for pid in self.pids:
            with suppress(OSError):
                if any(
                    link.readlink().name in sockets for link in Path(f"/proc/{pid}/fd").iterdir()
                ):
                    yield pid


@pytest.fixture
def conn(own_database: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(own_database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, own_database.settings.password("fleet_worker"))
    with own_database.connect(autocommit=True) as connected:
        connected.execute("select fleet.grant_worker()")
        connected.execute("select fleet.set_setting('webhook_allow_private', 'true')")
        yield connected


@pytest.fixture
def functions(own_database: Any, conn: Any, free_port: Callable[[], int]) -> Iterator[Functions]:
    made = Functions(own_database.url("fleet_worker"), [free_port() for _ in range(PROCESSES)])
    try:
        for port in made.ports:
            made.start(port)
        yield made
    finally:
        made.end()


@pytest.mark.skipif(sys.platform != "linux", reason="tells processes apart by /proc")
def test_each_does_its_share_and_what_a_killed_one_had_is_done_by_the_others(
    conn: Any, functions: Functions
) -> None:
    owner, receiver = str(uuid4()), Receiver()
    conn.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    with hostile(receiver.answer) as server, balancer(functions.ports) as address:
        for number in range(HOOKS):
            spec = {
                "owner_id": owner,
                "url": f"{server.url}/{number}",
                "name": f"hook {number}",
                "events": ["*"],
            }
            conn.execute("select create_webhook_endpoint(%s::jsonb)", (json.dumps(spec),))

        def answers() -> bool:
            with suppress(httpx.HTTPError):
                return httpx.get(f"{address}/health", trust_env=False).status_code in (200, 503)
            return False

        def listeners() -> bool:
            query = "select count(*) from pg_stat_activity where datname = current_database()"
            found = conn.execute(f"{query} and application_name = 'functions listen'").fetchone()
            return bool(found[0] == PROCESSES)

        wait_until(answers)
        for port in functions.ports:
            wait_until(listeners)
            receiver.pids.update(functions.pid(one) for one in functions.ports)
            subjects = [json.dumps({"number": number}) for number in range(EVENTS_A_ROUND)]
            conn.execute(
                "select fleet.emit_events(%s::uuid[], 'run.failed', %s::jsonb[])",
                ([owner] * EVENTS_A_ROUND, subjects),
            )
            conn.execute("select fleet.poke('notify-dispatch')")
            victim = functions.pid(port)
            wait_until(lambda victim=victim: receiver.by[victim] >= 3)
            functions.kill(port)
            # The address answers all the same, and the work goes on.
            assert answers()
            before = sum(receiver.by.values())
            wait_until(lambda before=before: sum(receiver.by.values()) > before + 10, seconds=90)
            functions.start(port)

        def is_done() -> bool:
            # What a killed one held comes back when its lease ends, a minute on; here it is as soon
            # as nobody can be at it any more.
            conn.execute(
                "update webhook_deliveries set next_attempt_at = now()"
                " where status = 'pending'"
                " or status = 'running' and last_attempt_at < now() - interval '15 seconds'"
            )
            conn.execute("select fleet.poke('notify-dispatch')")
            time.sleep(0.5)
            left = "select count(*) from webhook_deliveries where status <> 'delivered'"
            return bool(conn.execute(left).fetchone()[0] == 0)

        wait_until(is_done, 60)
        told = Counter(
            (head.split()[1], found.group(1))
            for head in server.requests
            if (found := re.search(r"(?im)^webhook-id: *(\S+)", head))
        )

    assert len(receiver.by) >= PROCESSES
    assert len(told) == HOOKS * PROCESSES * EVENTS_A_ROUND
    # Told again is only what was being told when its process was killed: four at an endpoint.
    assert told.total() - len(told) <= 4 * HOOKS * PROCESSES
