"""The functions and the REST stand-in over one migrated database, served over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount
from supabase import Client, ClientOptions, create_client

from pgfleet_functions.app import ROUTES, create_app
from pgfleet_functions.pokes import poked_route
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.rest import Rest
from pgfleet_local.settings import HOST, StackSettings
from pgfleet_local.tokens import TokenVerifier

OWNER = "00000000-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class Site:
    """A served fleet: its address, its keys, and the way in for its owner."""

    url: str
    database: Any
    settings: StackSettings
    clients: ExitStack

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as postgres; each statement is committed."""
        connection: psycopg.Connection[Any] = self.database.connect(autocommit=True)
        return connection

    def value(self, query: Any, *parameters: Any) -> Any:
        """Run a statement as postgres and give its one value."""
        with self.connect() as owner:
            row = owner.execute(query, parameters).fetchone()
        return row[0] if row else None

    def code(self, **options: Any) -> str:
        """Make an enrolment code."""
        with self.connect() as owner:
            row = owner.execute(
                "select create_enrollment_code(p_device_id => %s, p_max_uses => %s) ->> 'code'",
                (options.get("device_id"), options.get("max_uses", 1)),
            ).fetchone()
        assert row is not None
        return str(row[0])

    def post(self, function: str, body: Any, **options: Any) -> httpx.Response:
        """Call a function."""
        return httpx.post(f"{self.url}/functions/v1/{function}", json=body, **options)

    def enroll(self, hostname: str) -> dict[str, Any]:
        """Enrol a new device and give what it was answered."""
        answer = self.post("enroll-device", {"code": self.code(), "hostname": hostname})
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def client(self, token: str) -> Client:
        """Give the official client, signed in with a device token."""
        transport = self.clients.enter_context(httpx.Client())
        options = ClientOptions(httpx_client=transport, auto_refresh_token=False)
        client = create_client(self.url, self.settings.anon_key, options)
        client.postgrest.auth(token)
        return client

    def http(self, token: str, **headers: str) -> httpx.Client:
        """Give a plain client as a device has that knows nothing of ours."""
        known = {"apikey": self.settings.anon_key, "Authorization": f"Bearer {token}"}
        return self.clients.enter_context(
            httpx.Client(base_url=f"{self.url}/rest/v1", headers={**known, **headers})
        )


async def _ring(request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse({"rung": body})


@contextmanager
def serving(app: Starlette, port: int) -> Iterator[str]:
    """Serve an app until the block ends."""
    config = uvicorn.Config(
        app, host=HOST, port=port, log_level="warning", ws="none", proxy_headers=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < end, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def _serving_site(database: Any, port: int, **signing: Any) -> Iterator[Site]:
    """Serve REST and functions for a database, with another signing key if one is given."""
    settings = database.settings
    jwks = signing.pop("jwks", None)
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, settings.password("fleet_worker"))
    with database.connect() as owner:
        owner.execute("select fleet.grant_worker()")
        owner.execute(
            "insert into owners (id, name) values (%s, 'school') on conflict do nothing", (OWNER,)
        )
        owner.execute("select fleet.set_setting('default_owner', to_jsonb(%s::text))", (OWNER,))
    rest = Rest(database.url("authenticator"), TokenVerifier(settings.jwt_secret, jwks))
    functions = create_app(
        FunctionSettings(
            database_url=database.url("fleet_worker"), jwt_secret=settings.jwt_secret, **signing
        ),
        [*ROUTES, poked_route("ring", _ring)],
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with rest.running(), functions.router.lifespan_context(functions):
            yield

    routes = [Mount("/rest/v1", routes=rest.routes), Mount("/functions/v1", app=functions)]
    with serving(Starlette(routes=routes, lifespan=lifespan), port) as url, ExitStack() as clients:
        yield Site(url, database, settings, clients)


@pytest.fixture(scope="session", name="serving")
def serving_app() -> Any:
    """Give the context manager that serves an app."""
    return serving


@pytest.fixture(scope="session")
def serving_site() -> Any:
    """Give the context manager that serves REST and functions for one database."""
    return _serving_site


@pytest.fixture(scope="module")
def site(database: Any, free_port: Callable[[], int]) -> Iterator[Site]:
    """Serve the module's database, tokens signed with the shared secret."""
    with _serving_site(database, free_port()) as served:
        yield served


@pytest.fixture(scope="module")
def signing_key() -> Any:
    """Give an ES256 key as a project imports it: the private JWK and the public JWKS."""
    key = ec.generate_private_key(ec.SECP256R1())
    known = {"kid": "imported-1", "alg": "ES256", "use": "sig"}
    private = {**json.loads(ECAlgorithm.to_jwk(key)), **known}
    public = {**json.loads(ECAlgorithm.to_jwk(key.public_key())), **known}
    return json.dumps(private), {"keys": [public]}
