"""An owner goes to another platform while its agents run: nothing is lost, nothing doubled."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.running_stack import RunningStack

from pgfleet.demo.report import Entered

FOLLOW_SECONDS = 60
RUNS = 15
# What is late because of the move is done all the same.
PATIENT = {"overlap": "allow", "max_concurrent": 50, "expires_after": "1 hour"}


@pytest.fixture
def second(prepared_settings: Callable[[], Any]) -> Iterator[RunningStack]:
    """Run another platform, whose ids are its own."""
    running = RunningStack(prepared_settings())
    try:
        running.wait_ready()
        ask(running, "select fleet.number_database(5)")
        yield running
    finally:
        running.end()


def ask(stack: Any, query: str, *values: Any) -> Any:
    with stack.connect(autocommit=True) as conn:
        row = conn.execute(query, values).fetchone()
    return row and row[0]


def until(condition: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.1)
    return found


@contextmanager
def running_agents(stack: Any, code: str, count: int, folder: Path) -> Iterator[Path]:
    """Run simulated devices in one process, and give the file of what they did."""
    events = folder / "events.jsonl"
    words = [
        *("agent", "run", "--url", stack.settings.api_url, "--code", code),
        *("--anon-key", stack.settings.anon_key, "--state-dir", str(folder / "devices")),
        *("--simulate", str(count), "--prefix", "mover", "--events", str(events)),
        *("--duration", "0.5", "--reconnect-seconds", "0.5", "--log-file", str(folder / "log")),
    ]
    with (folder / "agents.err").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgfleet", *words], stderr=log, env=dict(os.environ)
        )
        try:
            yield events
        finally:
            process.terminate()
            process.wait(60)


def pgfleet(stack: Any, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "pgfleet", "-d", stack.url(), *words, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def schedule(stack: Any, owner: UUID, name: str, **spec: Any) -> int:
    whole = {
        "owner_id": str(owner), "name": name, "action_type": "buzz",
        "selector": {"any_tags": ["real"]}, **spec,
    }  # fmt: skip
    return int(ask(stack, "select create_schedule(%s) ->> 'id'", Jsonb(whole)))


def make_owner(stack: Any, devices: int, agents: int) -> UUID:
    owner: UUID = ask(stack, "select id from create_owner(%s)", f"mover {secrets.token_hex(4)}")
    ask(stack, "select fleet.set_setting('poll_seconds', '300')")
    ask(
        stack,
        "insert into devices (owner_id, hostname)"
        " select %s, 'still-' || n from generate_series(1, %s) as n returning id",
        owner,
        devices - agents,
    )
    return owner


def move(stack: Any, second: Any, folder: Path, devices: int, agents: int) -> None:
    """Move an owner in the middle of its work, and account for all of it."""
    owner = make_owner(stack, devices, agents)
    person = ask(stack, "select gen_random_uuid()")
    ask(stack, "insert into owner_members (owner_id, user_id, permissions)"
        " values (%s, %s, '{admin}') returning user_id", owner, person)  # fmt: skip
    code = ask(
        stack,
        "select create_enrollment_code(p_max_uses => %s, p_tags => '{real}', p_owner_id => %s)"
        " ->> 'code'",
        agents,
        owner,
    )
    counted = "select count(*) from devices where owner_id = %s and tags = '{real}'"
    with running_agents(stack, code, agents, folder) as events:
        until(lambda: ask(stack, counted, owner) == agents, 90)
        first = schedule(
            stack,
            owner,
            "every two",
            recurrence_type="interval",
            recurrence_config={"seconds": 2},
            policies={**PATIENT, "catchup": "all", "catchup_limit": 1000, "max_runs": RUNS},
        )
        then = schedule(
            stack, owner, "then", after={"schedule_id": first, "on": "either"},
            policies=PATIENT,
        )  # fmt: skip
        done = "select count(*) from device_commands where owner_id = %s and status = 'completed'"
        until(lambda: ask(stack, done, owner) >= agents, 60)

        key = pgfleet(second, "owner", "arrival-key")["key"]
        file = folder / "owner.pgfleet"
        pgfleet(stack, "owner", "export", str(owner), str(file), "--key", key)
        pgfleet(second, "owner", "import", str(file))
        begun = time.monotonic()
        pgfleet(stack, "owner", "moved-to", str(owner), second.settings.api_url,
                "--anon-key", second.settings.anon_key, "--yes")  # fmt: skip
        came = "select count(*) from devices where owner_id = %s and last_seen > %s"
        now = ask(second, "select clock_timestamp()")
        until(lambda: ask(second, came, owner, now) == agents, FOLLOW_SECONDS)
        print(f"{agents} agents followed within {time.monotonic() - begun:.1f} s")
        pgfleet(stack, "owner", "purge", str(owner), "--yes")
        for table in ("devices", "schedules", "device_commands", "audit_log"):
            assert ask(stack, f"select count(*) from {table} where owner_id = %s", owner) == 0

        status = "select status from schedules where id = %s"
        until(lambda: ask(second, status, first) == "completed", 90)
        ended = "select count(*) from schedule_runs where schedule_id = %s and status = 'completed'"
        until(lambda: ask(second, ended, then) == RUNS, 90)

    with second.connect() as conn:
        rows = conn.execute(
            "select id, status, reason from device_commands where owner_id = %s", (owner,)
        ).fetchall()
        runs = conn.execute(
            "select schedule_id, status, reason, count(*) from schedule_runs where owner_id = %s"
            " group by 1, 2, 3",
            (owner,),
        ).fetchall()
    # Each due second once, and what follows it once.
    assert sorted(runs) == sorted(
        [(first, "completed", None, RUNS), (then, "completed", None, RUNS)]
    )
    assert {(state, why) for _, state, why in rows} == {("completed", None)}
    # By what the handlers themselves noted: each once, whichever platform it was heard from.
    assert Counter({n: len(times) for n, times in Entered(events).look().items()}) == Counter(
        {number: 1 for number, _, _ in rows}
    )
    # A second life of the same process begins where the fleet is now.
    for found in (folder / "devices").rglob("credentials.json"):
        assert json.loads(found.read_text())["url"] == second.settings.api_url


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("devices", "agents"), [(200, 8), (1000, 50)])
def test_an_owner_moves_while_its_agents_work(
    stack: Any, second: RunningStack, tmp_path: Path, devices: int, agents: int
) -> None:
    move(stack, second, tmp_path, devices, agents)
