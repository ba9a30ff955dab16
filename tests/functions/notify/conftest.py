"""The functions over a migrated database, and receivers that take what they send."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest
import uvicorn
from psycopg.types.json import Jsonb
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pgfleet_functions.app import create_app
from pgfleet_functions.outgoing.mail import MailServer
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.settings import HOST, StackSettings


def wait_until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for something to become true, and give it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


@dataclass
class Receiver:
    """A real HTTP server that keeps what it was sent and answers as it is told."""

    port: int
    path: str = "/hook"
    # The answers to come, in turn; the last one stays.
    answers: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    # Cleared, it holds each answer back until it is set again.
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Give the address."""
        return f"http://{HOST}:{self.port}{self.path}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Give what was sent, read as JSON."""
        return [json.loads(body) for _, body in self.requests]

    def take(self, headers: dict[str, str], body: bytes) -> Response:
        """Keep a request and give the next answer."""
        self.requests.append((headers, body))
        self.open.wait(30)
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Response(status_code=status, headers=self.headers)


@dataclass
class Site:
    """The functions, served, and the way into their database."""

    url: str
    database: Any
    settings: StackSettings

    def run(self, query: Any, *args: Any) -> list[Any]:
        """Run a statement as postgres, committed, and give its rows."""
        with self.database.connect(autocommit=True) as conn:
            found = conn.execute(query, args)
            return list(found.fetchall()) if found.description else []

    def value(self, query: Any, *args: Any) -> Any:
        """Run a statement as postgres and give its one value."""
        rows = self.run(query, *args)
        return rows[0][0] if rows else None

    def owner(self) -> UUID:
        """Make an owner, so that tests do not hear each other's events."""
        owner = uuid4()
        self.run("insert into owners (id, name) values (%s, 'school')", owner)
        return owner

    def endpoint(self, owner: UUID, verified: bool = True, **spec: Any) -> dict[str, Any]:
        """Make an endpoint as postgres and give it with its secret."""
        made: dict[str, Any] = self.value(
            "select create_webhook_endpoint(%s)", Jsonb({"owner_id": str(owner), **spec})
        )
        if "email" in spec and verified:
            code = "select code from fleet.mailbox_codes where endpoint_id = %s"
            self.value("select verify_webhook_endpoint(%s, %s)", made["id"],
                       self.value(code, made["id"]))  # fmt: skip
            self.run("delete from webhook_deliveries where endpoint_id = %s", made["id"])
        return made

    def emit(self, owner: UUID, event: str = "run.failed", **subject: Any) -> None:
        """Let something happen."""
        self.run("select fleet.emit_events(array[%s], %s, %s)", owner, event, [Jsonb(subject)])

    def poke(self, function: str = "notify-dispatch") -> dict[str, Any]:
        """Poke the function by hand, and give what came of it once all is done."""
        answer = self._poke(function, Prefer="wait=60")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wake(self, function: str = "notify-dispatch") -> int:
        """Poke the function as the tick does, and give the status of the answer."""
        return self._poke(function).status_code

    def _poke(self, function: str, **headers: str) -> httpx.Response:
        body = json.dumps({"at": "now"})
        token = self.value("select fleet.sign_poke(%s, %s)", function, body)
        known = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        return httpx.post(
            f"{self.url}/{function}", content=body, headers={**known, **headers}, timeout=90
        )

    def delivery(self, endpoint: dict[str, Any]) -> dict[str, Any]:
        """Give the only message to an endpoint."""
        rows = self.run(
            "select to_jsonb(d) from webhook_deliveries as d where endpoint_id = %s",
            endpoint["id"],
        )
        assert len(rows) == 1, rows
        found: dict[str, Any] = rows[0][0]
        return found

    def hurry(self) -> None:
        """Let the time pass after which waiting messages and leases are due."""
        self.run(
            "update webhook_deliveries set next_attempt_at = clock_timestamp()"
            " where next_attempt_at is not null"
        )

    def token(self, user: UUID) -> str:
        """Sign the access token of a person."""
        claims = {"sub": str(user), "role": "authenticated", "exp": int(time.time()) + 600}
        return jwt.encode(claims, self.settings.jwt_secret, algorithm="HS256")


@contextmanager
def serving(app: Starlette, port: int) -> Iterator[str]:
    """Serve an app until the block ends."""
    config = uvicorn.Config(app, host=HOST, port=port, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def serve() -> Callable[[Starlette, int], Any]:
    """Give a context manager that serves another app."""
    return serving


@pytest.fixture(scope="module")
def mail_port(free_port: Callable[[], int]) -> int:
    """Give the port at which the mail server of this module is, once it is started."""
    return free_port()


@pytest.fixture(scope="module")
def site(database: Any, free_port: Callable[[], int], mail_port: int) -> Iterator[Site]:
    """Serve the functions for the module's database; receivers may be on this machine."""
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    with database.connect() as owner:
        owner.execute("select fleet.grant_worker()")
        owner.execute("select fleet.set_setting('webhook_allow_private', 'true')")
    app = create_app(
        FunctionSettings(
            database_url=database.url("fleet_worker"),
            jwt_secret=database.settings.jwt_secret,
            mail_server=MailServer(HOST, mail_port, "pgfleet <pgfleet@example.com>"),
        )
    )
    with serving(app, free_port()) as url:
        yield Site(url, database, database.settings)


@pytest.fixture
def receive(free_port: Callable[[], int]) -> Iterator[Callable[..., Receiver]]:
    """Give a function that starts another receiver."""
    with ExitStack() as running:

        def start(*answers: int, **headers: str) -> Receiver:
            receiver = Receiver(free_port(), answers=list(answers) or [200], headers=headers)
            receiver.open.set()

            async def take(request: Request) -> Response:
                body = await request.body()
                return await run_in_threadpool(receiver.take, dict(request.headers), body)

            app = Starlette(routes=[Route("/{path:path}", take, methods=["POST"])])
            running.enter_context(serving(app, receiver.port))
            running.callback(receiver.open.set)
            return receiver

        yield start


@pytest.fixture
def owner(site: Site) -> Iterator[UUID]:
    """Give an owner that no other test uses; nothing of it is left to be delivered."""
    made = site.owner()
    yield made
    site.run("delete from webhook_endpoints where owner_id = %s", made)


@pytest.fixture(scope="session")
def waiting() -> Callable[..., Any]:
    """Give the function that waits for a condition."""
    return wait_until
