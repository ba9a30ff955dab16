"""Functions that stay up hear from the database at once that there is work."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgfleet_functions import listening as module
from pgfleet_functions.listening import listening
from pgfleet_functions.setup import ensure_worker_role

NAMES = ("mdm-dispatch", "notify-dispatch")


async def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def url(own_database: Any) -> str:
    with psycopg.connect(own_database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, own_database.settings.password("fleet_worker"))
    found: str = own_database.url("fleet_worker")
    return found


def hearing(url: str, test: Callable[[Counter[str]], Any]) -> None:
    """Listen, and run a test with what was woken how often."""
    woken: Counter[str] = Counter()

    async def run() -> None:
        wakes = {name: lambda name=name: woken.update([name]) for name in NAMES}
        async with listening(url, wakes):
            # What was said before it listened is lost, so it looks once by itself.
            await until(lambda: woken == dict.fromkeys(NAMES, 1))
            await test(woken)

    asyncio.run(run())


def test_a_poke_is_heard_at_commit_by_the_function_that_it_is_for(
    own_database: Any, url: str
) -> None:
    async def test(woken: Counter[str]) -> None:
        with own_database.connect() as conn:
            conn.execute("select fleet.poke('mdm-dispatch')")
            conn.execute("select fleet.poke('mdm-dispatch', '{\"n\": 2}')")
            conn.execute("select pg_notify('pgfleet_poke', 'no-such-function')")
            await asyncio.sleep(0.1)
            assert woken["mdm-dispatch"] == 1
            began = time.monotonic()
            conn.commit()
        await until(lambda: woken["mdm-dispatch"] == 2)
        assert time.monotonic() - began < 1
        await asyncio.sleep(0.1)
        assert woken == {"mdm-dispatch": 2, "notify-dispatch": 1}

    hearing(url, test)


def test_a_connection_that_is_cut_is_made_again_and_all_look_for_what_they_missed(
    own_database: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.05)

    async def test(woken: Counter[str]) -> None:
        for times in (2, 3):
            with psycopg.connect(own_database.url("supabase_admin")) as admin:
                cut = admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'functions listen' and datname = current_database()"
                ).fetchall()
            assert cut == [(True,)]
            await until(lambda times=times: woken == dict.fromkeys(NAMES, times))
        with own_database.connect() as conn:
            conn.execute("select fleet.poke('notify-dispatch')")
        await until(lambda: woken["notify-dispatch"] == 4)

    hearing(url, test)


def test_a_database_that_is_not_there_yet_is_waited_for(
    own_database: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.1)
    with psycopg.connect(own_database.url("supabase_admin"), autocommit=True) as admin:
        admin.execute("alter role fleet_worker nologin")
        woken: Counter[str] = Counter()

        async def run() -> None:
            async with listening(url, {"mdm-dispatch": lambda: woken.update(["mdm-dispatch"])}):
                await asyncio.sleep(0.3)
                assert not woken
                admin.execute("alter role fleet_worker login")
                await until(lambda: woken)

        try:
            asyncio.run(run())
        finally:
            admin.execute("alter role fleet_worker login")


def test_it_looks_by_itself_now_and_then(
    own_database: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.1)

    async def test(woken: Counter[str]) -> None:
        await until(lambda: woken["mdm-dispatch"] >= 3)

    hearing(url, test)
