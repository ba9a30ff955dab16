"""From a command to its MDM while receivers of webhooks hang: functions that listen, and pg_net.

pg_net sends in batches and waits for the slowest of each; its stand-in keeps the same pace.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from measure import free_port, row
from psycopg.types.json import Jsonb
from starlette.applications import Starlette

from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.net import NetWorker
from pgfleet_local.sandboxes.simplemdm import create_sandbox
from pgfleet_local.settings import StackSettings

sys.path.insert(0, str(Path(__file__).parents[2]))

TRIES, FEW_TRIES = 8, 3
SLOW_SECONDS = 5
RATE = {"rate_per_second": 100}


def run(connection: psycopg.Connection[Any], settings: StackSettings) -> list[dict[str, Any]]:
    """Measure each way of waking beside an owner whose receivers hang."""
    from tests.conftest import Database
    from tests.helpers.hanging import everybody_hangs
    from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving
    from tests.helpers.simplemdm_account import push_to_many

    with psycopg.connect(settings.admin_url, autocommit=True) as admin:
        ensure_worker_role(admin, settings.password("fleet_worker"))
    connection.execute("select fleet.grant_worker()")
    connection.execute("select fleet.set_setting('webhook_allow_private', 'true')")
    accounts = create_sandbox({"full": FULL, "read_only": READ_ONLY})
    with serving(accounts, free_port()) as url:
        account = Sandbox(url)
        # An MDM lets each device be refreshed but now and then.
        push_to_many(Database("postgres", settings), account, 2 * TRIES + FEW_TRIES, RATE)
        ways = Ways(connection, account)
        with _functions(settings, is_listening=True), everybody_hangs(connection):
            listening = ways.seconds(TRIES)
        with _functions(settings, is_listening=False) as address, _pg_net(settings):
            ways.wake_at(address)
            with everybody_hangs(connection) as slow:
                woken = ways.seconds(TRIES)
                behind = ways.seconds(FEW_TRIES, slow.url)
    return [
        _row("functions that listen", listening, 0.2),
        _row("pg_net alone", woken, 1.2),
        _row(f"pg_net behind a stranger's call of {SLOW_SECONDS} s", behind, SLOW_SECONDS + 1.2),
    ]


class Ways:
    """Sends commands to one device after the other, and sees when their MDM has them."""

    def __init__(self, connection: psycopg.Connection[Any], account: Any) -> None:
        self.connection = connection
        self.account = account
        found = connection.execute("select id from devices order by id").fetchall()
        self.devices = [number for (number,) in found]
        self.count = len(found)

    def wake_at(self, address: str) -> None:
        """Say where the functions are that pg_net is to call."""
        self.connection.execute("select fleet.set_setting('functions_url', %s)", (Jsonb(address),))

    def seconds(self, tries: int, slow_url: str | None = None) -> list[float]:
        """Give how long each took; before each a stranger calls an address that does not answer."""
        from tests.helpers.sandbox import wait_until

        wait_until(lambda: self._pushed() == self.count)
        taken = []
        for _ in range(tries):
            before = len(self._refreshes())
            if slow_url is not None:
                self.connection.execute(
                    "select net.http_post(%s, timeout_milliseconds => %s)",
                    (slow_url, SLOW_SECONDS * 1000),
                )
            began = time.time()
            self.connection.execute("select send_command(%s, 'mdm_refresh')", (self.devices.pop(),))
            wait_until(lambda before=before: len(self._refreshes()) > before)
            taken.append(self._refreshes()[before] - began)
        return taken

    def _pushed(self) -> int:
        return sum("/custom_configuration_profiles/" in one["path"] for one in self._sent())

    def _sent(self) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = self.account.requests()
        return sent

    def _refreshes(self) -> list[float]:
        return [float(one["at"]) for one in self._sent() if one["path"].endswith("/refresh")]


@contextmanager
def _functions(settings: StackSettings, *, is_listening: bool) -> Iterator[str]:
    from tests.helpers.sandbox import serving

    given = FunctionSettings(
        database_url=settings.worker_url,
        jwt_secret=settings.jwt_secret,
        allow_private_addresses=True,
    )
    with serving(create_app(given, listen=is_listening), free_port()) as url:
        yield url


@contextmanager
def _pg_net(settings: StackSettings) -> Iterator[None]:
    from tests.helpers.sandbox import serving

    worker = NetWorker(settings.db_url, pace=True)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with worker.running():
            yield

    with serving(Starlette(lifespan=lifespan), free_port()):
        yield


def _row(what: str, taken: list[float], goal: float) -> dict[str, Any]:
    name = f"command to its MDM beside receivers that hang: {what} (worst {max(taken):.2f} s)"
    return row(name, round(median(taken), 3), "s", goal=f"≤ {goal}")
