"""From an INSERT to the MDM in no time, whoever else hangs: functions that listen, real servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from tests.helpers.hanging import everybody_hangs, owner_with_endpoints, tell
from tests.helpers.hostile import hostile, says
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving, wait_until
from tests.helpers.simplemdm_account import push_to_many

from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.sandboxes.simplemdm import create_sandbox

TRIES = 8


@pytest.fixture
def sandbox(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


@pytest.fixture
def conn(own_database: Any) -> Iterator[psycopg.Connection[Any]]:
    """Connect as postgres, where the functions may log in and receivers are on this machine."""
    with psycopg.connect(own_database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, own_database.settings.password("fleet_worker"))
    with own_database.connect(autocommit=True) as connected:
        connected.execute("select fleet.grant_worker()")
        connected.execute("select fleet.set_setting('webhook_allow_private', 'true')")
        yield connected


@pytest.fixture
def functions(own_database: Any, conn: Any, free_port: Callable[[], int]) -> Any:
    """Give a context manager that serves the functions, in a process that listens."""
    settings = FunctionSettings(
        database_url=own_database.url("fleet_worker"),
        jwt_secret=own_database.settings.jwt_secret,
        allow_private_addresses=True,
    )
    return lambda: serving(create_app(settings, listen=True), free_port())


def test_a_command_is_with_the_mdm_at_once_where_functions_listen_while_receivers_hang(
    own_database: Any, conn: Any, functions: Any, sandbox: Sandbox
) -> None:
    _, owner = push_to_many(own_database, sandbox, 1, {"rate_per_second": 100})
    query = "select send_command(id, 'mdm_refresh', '{}') from devices where owner_id = %s"

    def refreshes() -> list[float]:
        return [one["at"] for one in sandbox.requests() if one["path"].endswith("/refresh")]

    took = []
    with functions(), everybody_hangs(conn):
        wait_until(sandbox.history)
        for number in range(TRIES):
            began = time.time()
            conn.execute(query, (owner,))
            wait_until(lambda number=number: len(refreshes()) > number)
            took.append(refreshes()[number] - began)
    assert min(took) < 0.2, took
    assert sorted(took)[TRIES // 2] < 1, took


def test_endpoints_that_never_answer_keep_no_webhook_of_another_owner_waiting(
    conn: Any, functions: Any
) -> None:
    with ExitStack() as running:
        running.enter_context(functions())
        slow = running.enter_context(everybody_hangs(conn))
        quick = running.enter_context(hostile(says("HTTP/1.1 204 No Content")))
        owner = owner_with_endpoints(conn, [quick.url])
        began = time.monotonic()
        tell(conn, owner, 20)
        wait_until(lambda: len(quick.requests) == 20)
        took = time.monotonic() - began
        held = len(slow.requests)
    assert took < 5
    assert held == 4, "the one who hangs holds its few"
