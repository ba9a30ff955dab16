"""Several sessions at once: nothing twice, nothing lost, nobody in another's way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from tests.helpers.fleet import Fleet

BASE = datetime(2031, 1, 1, tzinfo=UTC)
Connect = Callable[..., Fleet]


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Make the calls at the same moment, each in a thread, and give their answers."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(10)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_two_ticks_at_once_make_each_run_once(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    device = first.device()
    made = [
        first.minutely([device], BASE, policies={"overlap": "allow", "max_concurrent": 1000})["id"]
        for _ in range(5)
    ]
    for minute in range(12):
        now = BASE + timedelta(minutes=minute)
        at_once(partial(first.tick, now), partial(second.tick, now))
        # Whatever one of them found locked is there for the next.
        first.tick_until_idle(now)
    for schedule_id in made:
        runs = first.runs(schedule_id)
        assert [run["scheduled_for"] for run in runs] == [
            BASE + timedelta(minutes=minute) for minute in range(12)
        ]
        assert Counter(c["run_id"] for c in first.commands(schedule_id)) == Counter(
            run["id"] for run in runs
        )
        assert first.schedule(schedule_id)["execution_count"] == 12


def test_two_sessions_expand_one_large_run_without_overlap_or_gap(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    for name in ("expand_chunk_size", "expand_chunk_size_published"):
        first.run("select fleet.set_setting(%s, '25')", name)
    devices = first.devices(400)
    made = [
        first.create(selector={}, start_time=BASE.isoformat(), policies={"overlap": "allow"})
        for _ in range(2)
    ]

    def drain(fleet: Fleet) -> None:
        for _ in range(60):
            fleet.tick(BASE)

    at_once(lambda: drain(first), lambda: drain(second))
    first.tick_until_idle(BASE)
    for schedule in made:
        reached = [command["device_id"] for command in first.commands(schedule["id"])]
        assert sorted(reached) == devices
        (run,) = first.runs(schedule["id"])
        assert run["targeted"] == len(devices)


def test_overlap_holds_between_sessions(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    made = first.minutely(first.devices(5), BASE)
    for _ in range(10):
        at_once(
            lambda: first.run("select run_schedule(%s)", made["id"]),
            lambda: second.run("select run_schedule(%s)", made["id"]),
        )
    unfinished = Counter(command["device_id"] for command in first.commands(made["id"]))
    assert set(unfinished.values()) == {1}


def test_a_tick_does_not_wait_for_another_that_is_open(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    made = first.create(device_ids=first.devices(2), start_time=BASE.isoformat())
    second.run("set statement_timeout = '2s'")
    with first.conn.transaction(force_rollback=True):
        first.tick(BASE)
        answer = second.tick(BASE)
        assert (answer["runs"], answer["commands"], answer["more"]) == (0, 0, False)
    assert second.tick(BASE)["runs"] == 1
    assert len(second.commands(made["id"])) == 2


def test_the_same_key_at_once_gives_one_run_and_one_command(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    device = first.device()
    made = first.create(device_ids=[device], start_time=BASE.isoformat())

    def run(fleet: Fleet) -> int:
        found: int = fleet.value("select (run_schedule(%s, 'key')).id", made["id"])
        return found

    def send(fleet: Fleet) -> int:
        found: int = fleet.send(device, p_idempotency_key="key")["id"]
        return found

    assert len(set(at_once(lambda: run(first), lambda: run(second)))) == 1
    assert len(set(at_once(lambda: send(first), lambda: send(second)))) == 1
    assert len(first.runs(made["id"])) == 1
    assert first.value("select count(*) from device_commands where idempotency_key = 'key'") == 1


def test_eight_claimants_get_each_command_once(connect: Connect) -> None:
    fleet = connect()
    device = fleet.device()
    with fleet.conn.transaction():
        for _ in range(120):
            fleet.send(device, "lock")
    sessions = [connect(owner=fleet) for _ in range(8)]

    def claim_all(session: Fleet) -> list[int]:
        taken: list[int] = []
        for _ in range(120):
            with session.conn.transaction():
                claimed = session.claim(device, 3)
            taken += [row["command_id"] for row in claimed]
            if not claimed and session.value(
                "select not exists (select 1 from device_commands where status = 'pending')"
            ):
                break
        return taken

    calls = [lambda s=session: claim_all(s) for session in sessions]
    taken = [command_id for part in at_once(*calls) for command_id in part]
    assert len(taken) == len(set(taken)) == 120
    assert fleet.value("select max(attempt) from device_commands") == 1


def test_many_devices_finish_at_once_and_the_run_counts_all(connect: Connect) -> None:
    fleet = connect()
    devices = fleet.devices(40)
    made = fleet.create(device_ids=devices)
    sessions = [connect(owner=fleet) for _ in range(4)]

    def work(session: Fleet, mine: list[int]) -> None:
        for device in mine:
            with session.conn.transaction():
                (claimed,) = session.claim(device)
            with session.conn.transaction():
                session.finish(device, claimed)
            session.tick()

    calls = [lambda s=s, i=i: work(s, devices[i::4]) for i, s in enumerate(sessions)]
    at_once(*calls)
    fleet.tick()
    (run,) = fleet.runs(made["id"])
    assert (run["status"], run["completed"], run["failed"]) == ("completed", 40, 0)
    assert fleet.value("select count(*) from fleet.run_progress") == 0


def test_a_finish_and_a_lapse_at_once_agree(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    device = first.device()
    for _ in range(15):
        first.send(device, "lock")
        with first.conn.transaction():
            (claimed,) = first.claim(device)
        later = datetime.now(UTC) + timedelta(minutes=2)

        def finish(claimed: dict[str, Any] = claimed, later: datetime = later) -> Any:
            with first.conn.transaction():
                return first.finish(device, claimed, now=later)

        answer, _ = at_once(finish, lambda later=later: second.tick(later))
        row = first.command(claimed["command_id"])
        assert answer["accepted"] is True
        assert (row["status"], row["lease_expires_at"]) == ("completed", None)


def test_a_migration_holds_the_tick_off(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    with first.conn.transaction():
        first.run("select pg_advisory_xact_lock(hashtext('pgfleet.migrate'))")
        answer = second.value("select fleet.tick()")
        assert "skipped" in answer
    assert second.tick()["errors"] == []


def test_pausing_waits_for_a_tick_and_is_obeyed(connect: Connect) -> None:
    first = connect()
    second = connect(owner=first)
    made = first.minutely([first.device()], BASE)
    with first.conn.transaction():
        first.run("select pause_schedule(%s)", made["id"])
        assert second.tick(BASE)["runs"] == 0
    assert second.tick(BASE)["runs"] == 0
    assert second.runs(made["id"]) == []


@pytest.mark.parametrize("query", ["select retire_device(%s)", "delete from devices where id = %s"])
def test_a_device_that_goes_while_a_run_expands_stops_nothing(connect: Connect, query: str) -> None:
    first = connect()
    second = connect(owner=first)
    devices = first.devices(30)
    made = first.create(selector={}, start_time=BASE.isoformat())

    def go() -> None:
        for device in devices[::3]:
            try:
                second.run(query, device)
            except psycopg.errors.DeadlockDetected:
                second.run(query, device)

    at_once(lambda: [first.tick(BASE) for _ in range(10)], go)
    first.tick_until_idle(BASE)
    kept = set(devices) - set(devices[::3])
    pending = {c["device_id"] for c in first.commands(made["id"]) if c["status"] == "pending"}
    assert kept <= pending
    for device in kept:
        with first.conn.transaction():
            first.finish(device, first.claim(device, now=BASE)[0], now=BASE)
    first.tick(BASE + timedelta(days=2))
    (run,) = first.runs(made["id"])
    assert run["status"] in ("completed", "failed")
    assert run["completed"] == len(kept)
