"""A small shop behind the REST stand-in, served over real HTTP."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.janitor import DatabaseJanitor
from starlette.applications import Starlette
from starlette.routing import Mount
from supabase import Client, ClientOptions, create_client
from tests.helpers.serving import serving

from pgfleet_local.bootstrap import prepare_database
from pgfleet_local.rest import Rest
from pgfleet_local.server.cluster import Cluster
from pgfleet_local.settings import HOST, StackSettings
from pgfleet_local.tokens import TokenVerifier


@dataclass(frozen=True)
class Shop:
    """A served database: its address, its keys and the way in for the owner."""

    url: str
    db_url: str
    settings: StackSettings
    clients: ExitStack

    def connect(self) -> psycopg.Connection[Any]:
        """Connect as postgres; each statement is committed."""
        return psycopg.connect(self.db_url, autocommit=True)

    def token(self, sub: str = "d1", role: str = "authenticated", seconds: int = 60) -> str:
        """Sign a token as the project does."""
        claims = {"sub": sub, "role": role, "exp": int(time.time()) + seconds}
        return jwt.encode(claims, self.settings.jwt_secret)

    def http(self, token: str | None = None, **headers: str) -> httpx.Client:
        """Give a plain client that sends the anon key, and a token if there is one."""
        known = {"apikey": self.settings.anon_key}
        if token is not None:
            known["Authorization"] = f"Bearer {token}"
        return httpx.Client(base_url=f"{self.url}/rest/v1", headers={**known, **headers})

    def client(self, token: str | None = None) -> Client:
        """Give the official client, signed in with a token if there is one."""
        transport = self.clients.enter_context(httpx.Client())
        options = ClientOptions(httpx_client=transport, auto_refresh_token=False)
        client = create_client(self.url, self.settings.anon_key, options)
        client.postgrest.auth(token or self.settings.anon_key)
        return client


@contextmanager
def _serving_rest(authenticator_url: str, jwt_secret: str, port: int) -> Iterator[str]:
    """Serve the REST stand-in alone for one database."""
    rest = Rest(authenticator_url, TokenVerifier(jwt_secret))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with rest.running():
            yield

    app = Starlette(routes=[Mount("/rest/v1", routes=rest.routes)], lifespan=lifespan)
    with serving(app, port) as url:
        yield url


@pytest.fixture(scope="session")
def serving_rest() -> Any:
    """Give the context manager that serves the stand-in for one database."""
    return _serving_rest


@pytest.fixture(scope="module")
def shop(cluster: Cluster, free_port: Callable[[], int]) -> Iterator[Shop]:
    """Serve one database that holds the shop of `shop.sql`."""
    settings = cluster.settings
    janitor = DatabaseJanitor(
        user="supabase_admin",
        password=settings.password("supabase_admin"),
        host=HOST,
        port=settings.db_port,
        dbname=f"shop_{secrets.token_hex(4)}",
    )
    janitor.init()
    try:
        with janitor.cursor() as cursor:
            name = sql.Identifier(janitor.dbname)
            cursor.execute(sql.SQL("alter database {} owner to postgres").format(name))
        admin = settings.url("supabase_admin", janitor.dbname)
        prepare_database(admin, cron=False, net=False)
        db_url = settings.url("postgres", janitor.dbname)
        with psycopg.connect(db_url) as connection:
            connection.execute((Path(__file__).parent / "shop.sql").read_text())
        authenticator = settings.url("authenticator", janitor.dbname)
        with _serving_rest(authenticator, settings.jwt_secret, free_port()) as url:
            with ExitStack() as clients:
                yield Shop(url, db_url, settings, clients)
    finally:
        janitor.drop()


@pytest.fixture
def http(shop: Any) -> Iterator[httpx.Client]:
    with shop.http(shop.token()) as client:
        yield client
