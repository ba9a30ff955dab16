"""Nothing is lost and nothing unsafe happens twice, whatever is killed and whenever.

What happened is counted by the file that the handlers themselves write, not by the database.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgfleet.demo.platform import Devices, Platform, running_devices, running_platform
from pgfleet.demo.report import Entered

DEVICES = 6
SAFE = "lock"
UNSAFE = "buzz"
# Handlers last about as long as the kills are apart, so that many a kill meets one at work.
OPTIONS = ("--duration", "0.4", "--poll-seconds", "1", "--probe-seconds", "2", "--events-fsync")


def test_five_rounds_of_kills_lose_and_repeat_nothing() -> None:
    play_rounds(5, seed=20)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_many_rounds_of_kills_lose_and_repeat_nothing() -> None:
    seed = int(os.environ.get("PGFLEET_SOAK_SEED", str(time.time_ns() % 10_000)))
    rounds = int(os.environ.get("PGFLEET_SOAK_ROUNDS", "50"))
    print(f"\n{rounds} rounds, PGFLEET_SOAK_SEED={seed}")
    play_rounds(rounds, seed)


def play_rounds(rounds: int, seed: int) -> None:
    """Send, kill at a random moment, let recover, again; then account for every command."""
    chance = random.Random(seed)
    with running_platform() as platform:
        code = open_fleet(platform)
        with running_devices(platform, code, DEVICES, *OPTIONS) as devices:
            wait_until(lambda: ask(platform, "select count(*) from devices") == DEVICES, 60)
            for number in range(rounds):
                # Each kind is killed in turn; the moment is chance.
                victim = ("gateway", "agent", "postgres")[number % 3]
                send_commands(platform)
                time.sleep(chance.uniform(0.0, 1.2))
                kill(victim, platform, devices)
                send_commands(platform)
            wait_until(lambda: unfinished(platform) == 0, 120)
        account_for_everything(platform, sent=rounds * 2 * 2 * DEVICES)


def open_fleet(platform: Platform) -> str:
    """Make an owner and a code; leases are short, so that a lost one is soon offered again."""
    with database(platform) as connection:
        owner = connection.execute(
            "insert into owners (name) values ('Soak') returning id::text"
        ).fetchone()
        assert owner is not None
        for name, value in (
            ("default_owner", owner[0]),
            ("lease_seconds", 2),
            ("poll_seconds", 1),
        ):
            connection.execute("select fleet.set_setting(%s, %s)", (name, Jsonb(value)))
        made = connection.execute(
            "select create_enrollment_code(p_max_uses => %s) ->> 'code'", (DEVICES,)
        ).fetchone()
        assert made is not None
        return str(made[0])


def send_commands(platform: Platform) -> None:
    """Send one safe and one unsafe command to every device, as one transaction."""
    with database(platform) as connection:
        connection.execute(
            "select count(send_command(d.id, t.name, p_max_attempts => 1000))"
            " from devices as d cross join unnest(%s::text[]) as t(name)",
            ([SAFE, UNSAFE],),
        )


def kill(victim: str, platform: Platform, devices: Devices) -> None:
    """Kill one part with SIGKILL; the platform, or this test, starts it again."""
    if victim == "gateway":
        platform.kill_gateway()
    elif victim == "postgres":
        platform.kill_postgres()
    else:
        devices.kill()
        devices.start()


def account_for_everything(platform: Platform, sent: int) -> None:
    """Compare the database with the handlers' own file."""
    with database(platform) as connection:
        rows = connection.execute(
            "select id, command_type, status, coalesce(reason, '') from device_commands"
        ).fetchall()
    assert len(rows) == sent
    ends = Counter((kind, status, reason) for _, kind, status, reason in rows)
    print(dict(ends))
    allowed = {
        (SAFE, "completed", ""),
        (UNSAFE, "completed", ""),
        (UNSAFE, "failed", "interrupted"),
    }
    assert set(ends) <= allowed, ends

    entered = Entered(platform.events).look()
    kind_of = {number: kind for number, kind, _, _ in rows}
    twice = [n for n, times in entered.items() if len(times) > 1 and kind_of[n] == UNSAFE]
    assert twice == []
    never = [n for n, _, status, _ in rows if status == "completed" and n not in entered]
    assert never == []


def unfinished(platform: Platform) -> int:
    """Count what is not final."""
    return int(
        ask(platform, "select count(*) from device_commands where status in ('pending', 'running')")
    )


def ask(platform: Platform, statement: str) -> Any:
    """Give one value."""
    with database(platform) as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def database(platform: Platform) -> Iterator[psycopg.Connection[Any]]:
    """Connect, patiently: the server may be on its way back."""
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg.connect(platform.db_url, autocommit=True)
            break
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    with connection:
        yield connection


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something that happens soon, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
