"""A realtime server of its own for a test, and a client that speaks to it frame by frame."""

from __future__ import annotations

import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
import uvicorn
from pytest_postgresql.janitor import DatabaseJanitor
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.sync.client import ClientConnection, connect

from pgfleet_local.bootstrap import prepare_database
from pgfleet_local.realtime import Realtime, RealtimeOptions, uvicorn_options
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import HOST, StackSettings
from pgfleet_local.tokens import TokenVerifier

SECRET = "a secret of the realtime tests, long enough for HS256"
PATIENCE = 60.0
WITHOUT_DELAYS: dict[str, Any] = {"join_error_delay": 0.0, "resubscribe_delay": 0.0}
SCHEMA = Path(__file__).with_name("schema.sql").read_text()


def sign(
    role: str = "authenticated",
    sub: str | None = None,
    expires_in: float = 3600,
    secret: str = SECRET,
) -> str:
    """Sign a token."""
    claims: dict[str, Any] = {"role": role, "exp": int(time.time() + expires_in)}
    return jwt.encode(claims | ({"sub": sub} if sub else {}), secret)


ANON_KEY = sign("anon")
SERVICE_KEY = sign("service_role")


@dataclass(frozen=True)
class PlatformDatabase:
    """A database and how to enter it."""

    name: str
    settings: StackSettings

    def url(self, role: str = "postgres") -> str:
        """Give the URL of a login role."""
        return self.settings.url(role, self.name)

    def connect(self, role: str = "postgres") -> psycopg.Connection[Any]:
        """Open a connection."""
        return psycopg.connect(self.url(role))


@dataclass
class Message:
    """A frame from the server, whichever version it came in."""

    topic: str
    event: str
    payload: Any
    ref: str | None
    join_ref: str | None = None


@dataclass
class Wire:
    """A raw client."""

    connection: ClientConnection
    vsn: str
    refs: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    unread: list[Message] = field(default_factory=list)

    def send(
        self,
        topic: str,
        event: str,
        payload: Mapping[str, Any],
        *,
        ref: str | None = None,
        join_ref: str | None = None,
    ) -> str:
        """Send a message and return its ref."""
        ref = ref or str(next(self.refs))
        message: Any = {
            "topic": topic,
            "event": event,
            "payload": payload,
            "ref": ref,
            "join_ref": join_ref,
        }
        if self.vsn == "2.0.0":
            message = [join_ref, ref, topic, event, payload]
        self.connection.send(json.dumps(message))
        return ref

    def ask(self, topic: str, event: str, payload: Mapping[str, Any], **refs: Any) -> Any:
        """Send a message and return the payload of the reply to it."""
        ref = self.send(topic, event, payload, **refs)
        return self.expect("phx_reply", lambda one: one.ref == ref).payload

    def join(
        self,
        name: str,
        *,
        access_token: str | None = None,
        changes: list[dict[str, Any]] | None = None,
        **config: Any,
    ) -> Any:
        """Join a topic; with `changes` also wait until they are heard. Return the reply."""
        payload: dict[str, Any] = {"config": {"postgres_changes": changes or [], **config}}
        if access_token is not None:
            payload["access_token"] = access_token
        ref = str(next(self.refs))
        reply = self.ask(f"realtime:{name}", "phx_join", payload, ref=ref, join_ref=ref)
        if changes and reply["status"] == "ok":
            assert self.system(name)["status"] == "ok"
        return reply

    def system(self, name: str) -> Any:
        """Return the payload of the next `system` message of a topic."""
        topic = f"realtime:{name}"
        return self.expect("system", lambda one: one.topic == topic).payload

    def change(self) -> Any:
        """Return the payload of the next changed row."""
        return self.expect("postgres_changes").payload

    def broadcast(self) -> Any:
        """Return the payload of the next broadcast."""
        return self.expect("broadcast").payload

    def expect(
        self, event: str, matches: Callable[[Message], bool] = lambda message: True
    ) -> Message:
        """Return the first message that fits, keeping those before it for later."""
        for index, message in enumerate(self.unread):
            if message.event == event and matches(message):
                return self.unread.pop(index)
        deadline = time.monotonic() + PATIENCE
        while True:
            frame = self.connection.recv(timeout=max(0.0, deadline - time.monotonic()))
            message = self.read(frame)
            if message.event == event and matches(message):
                return message
            self.unread.append(message)

    def read(self, frame: str | bytes) -> Message:
        """Take a frame apart."""
        if isinstance(frame, bytes):
            return _read_binary(frame)
        data = json.loads(frame)
        if self.vsn == "2.0.0":
            join_ref, ref, topic, event, payload = data
            return Message(topic, event, payload, ref, join_ref)
        assert set(data) == {"event", "payload", "ref", "topic"}
        return Message(data["topic"], data["event"], data["payload"], data["ref"])

    def settled(self) -> list[Message]:
        """Return what is unread once the server has answered a heartbeat."""
        self.ask("phoenix", "heartbeat", {})
        unread, self.unread = self.unread, []
        return unread


def _read_binary(frame: bytes) -> Message:
    """Take a binary broadcast apart."""
    kind, *lengths, encoding = frame[:5]
    assert kind == 4
    parts, offset = [], 5
    for length in lengths:
        parts.append(frame[offset : offset + length].decode())
        offset += length
    topic, event, meta = parts
    body = json.loads(frame[offset:]) if encoding else frame[offset:]
    payload = {"type": "broadcast", "event": event, "payload": body}
    return Message(topic, "broadcast", payload | ({"meta": json.loads(meta)} if meta else {}), None)


@dataclass
class Server:
    """A running realtime server and the database behind it."""

    realtime: Realtime
    port: int
    database: Any
    stack: ExitStack

    anon_key = ANON_KEY
    service_key = SERVICE_KEY
    sign = staticmethod(sign)
    wait_until = staticmethod(lambda condition: wait_until(condition))

    @property
    def url(self) -> str:
        """The address that official clients are given."""
        return f"http://127.0.0.1:{self.port}"

    def open(self, apikey: str = ANON_KEY, vsn: str | None = "1.0.0") -> Wire:
        """Connect a raw client, which the fixture closes."""
        query = f"apikey={apikey}" + (f"&vsn={vsn}" if vsn else "")
        address = f"ws://127.0.0.1:{self.port}/realtime/v1/websocket?{query}"
        connection = connect(address, close_timeout=1, max_size=None)
        self.stack.callback(connection.close)
        return Wire(connection, vsn or "1.0.0")

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run and commit a statement as postgres."""
        with self.database.connect() as connection:
            cursor = connection.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def faults(self, **body: Any) -> Any:
        """Break the server, through its route."""
        return httpx.post(
            f"{self.url}/realtime/v1/faults", json=body, headers={"apikey": SERVICE_KEY}
        ).json()

    def wait_until_live(self) -> None:
        """Return when changes are being read."""
        wait_until(self.realtime.live.is_set)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds, or fail."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came to hold"
        time.sleep(0.01)


@contextmanager
def serve(database: Any, options: RealtimeOptions) -> Iterator[Server]:
    """Run a realtime server in a thread of its own."""
    realtime = Realtime(database.url("supabase_admin"), TokenVerifier(SECRET), options)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        async with realtime.running():
            yield

    app = Starlette(routes=[Mount("/realtime/v1", routes=realtime.routes)], lifespan=lifespan)
    config = uvicorn.Config(app, log_level="warning", **uvicorn_options())
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with ExitStack() as stack:
            yield Server(realtime, listener.getsockname()[1], database, stack)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def _platform_database(settings: StackSettings) -> Iterator[PlatformDatabase]:
    """Create a database with hosted manners and the tables and policies of schema.sql."""
    name = f"realtime_{secrets.token_hex(6)}"
    janitor = DatabaseJanitor(
        user="supabase_admin",
        password=settings.password("supabase_admin"),
        host=HOST,
        port=settings.db_port,
        dbname=name,
    )
    janitor.init()
    try:
        with janitor.cursor() as cursor:
            cursor.execute(f"alter database {name} owner to postgres")
        made = PlatformDatabase(name, settings)
        prepare_database(made.url("supabase_admin"), cron=False, net=False)
        with made.connect() as connection:
            connection.execute(SCHEMA)
        yield made
    finally:
        janitor.drop()


@pytest.fixture(scope="module")
def realtime_database(cluster: Cluster) -> Iterator[PlatformDatabase]:
    """Share one database among the tests of a module."""
    with _platform_database(cluster.settings) as made:
        yield made


@pytest.fixture(scope="module")
def shared_server(realtime_database: PlatformDatabase) -> Iterator[Server]:
    """Run one healthy server for the tests of a module."""
    with serve(realtime_database, RealtimeOptions(**WITHOUT_DELAYS)) as running:
        running.wait_until_live()
        yield running


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """Give the module's server; the test's connections end with the test."""
    yield shared_server
    shared_server.stack.close()


@pytest.fixture
def run_server(realtime_database: PlatformDatabase) -> Iterator[Callable[..., Server]]:
    """Give a function that runs a server with options of its own."""
    with ExitStack() as stack:

        def run(database: Any = realtime_database, **options: Any) -> Server:
            given = RealtimeOptions(**WITHOUT_DELAYS | options)
            return stack.enter_context(serve(database, given))

        yield run


@pytest.fixture
def own_server(cluster: Cluster) -> Iterator[Server]:
    """Run a server with a database that the test may change for good."""
    with _platform_database(cluster.settings) as made:
        with serve(made, RealtimeOptions(**WITHOUT_DELAYS)) as running:
            running.wait_until_live()
            yield running
