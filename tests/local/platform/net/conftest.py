"""Requests queued by net.http_*, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from pgfleet_local.net import NetWorker

Conn = psycopg.Connection[Any]


@dataclass
class Target:
    """An HTTP server that notes what reaches it; its paths say how it answers."""

    url: str
    received: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: Target

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.target.received.append(
            {
                "method": self.command,
                "path": self.path,
                "headers": self.headers.items(),
                "body": body.decode(),
                "at": time.monotonic(),
            }
        )
        status, reply = 200, b'{"ok": true}'
        if self.path == "/slow":
            self.target.release.wait(30)
        elif self.path == "/empty":
            status, reply = 204, b""
        elif self.path == "/broken":
            status = 500
        elif self.path == "/binary":
            reply = b"\xff\xfe"
        elif self.path == "/moved":
            status = 302
        try:
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/landed")
            self.send_header("Content-Type", "application/json")
            if self.path == "/cookie":
                self.send_header("Set-Cookie", "seen=1; Path=/")
            if status != 204:
                self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)
        except BrokenPipeError:
            self.close_connection = True

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        return


class Server(ThreadingHTTPServer):
    # The default of 5 refuses most of a batch that is sent at once.
    request_queue_size = 512
    daemon_threads = True


@pytest.fixture
def target() -> Iterator[Target]:
    server = Server(("127.0.0.1", 0), Handler)
    made = Target(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Bound", (Handler,), {"target": made})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


Working = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def working(empty_database: Any) -> Working:
    """Give a context in which a worker serves the database, without pauses if not told else."""

    @contextmanager
    def run(**options: Any) -> Iterator[None]:
        options.setdefault("pace", False)
        stop = threading.Event()

        async def serve() -> None:
            async with NetWorker(empty_database.url(), **options).running():
                await asyncio.to_thread(stop.wait)

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        try:
            with empty_database.connect(autocommit=True) as conn:
                conn.execute("set statement_timeout = '10s'; select net.wait_until_running()")
            yield
        finally:
            stop.set()
            thread.join()

    return run


@pytest.fixture
def conn(empty_database: Any) -> Iterator[Conn]:
    with empty_database.connect(autocommit=True) as connection:
        connection.execute("set statement_timeout = '15s'")
        yield connection


def post(conn: Conn, url: str, **arguments: Any) -> int:
    names = "".join(f", {name} => %({name})s" for name in arguments)
    values = {n: json.dumps(v) if isinstance(v, dict) else v for n, v in arguments.items()}
    row = conn.execute(f"select net.http_post(%(url)s{names})", {"url": url, **values}).fetchone()
    assert row is not None
    return int(row[0])


def response(conn: Conn, request_id: int) -> dict[str, Any]:
    conn.execute("select net._await_response(%s)", (request_id,))
    row = conn.execute(
        "select to_jsonb(r) from net._http_response as r where id = %s", (request_id,)
    ).fetchone()
    assert row is not None
    return dict(row[0])
