"""From a run to its commands: chunks, fairness, overlap and who is reached."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 1, 1, tzinfo=UTC)


def small_chunks(fleet: Fleet, size: int) -> None:
    for name in ("expand_chunk_size", "expand_chunk_size_published", "inline_expand_limit"):
        fleet.run("select fleet.set_setting(%s, to_jsonb(%s))", name, size)


def reached(fleet: Fleet, made: Row) -> list[int]:
    return sorted(command["device_id"] for command in fleet.commands(made["id"]))


def due(fleet: Fleet, priority: int, devices: list[int]) -> int:
    made = fleet.create(device_ids=devices, start_time=BASE.isoformat(), priority=priority)
    schedule_id: int = made["id"]
    return schedule_id


def test_a_large_run_reaches_every_device_once_in_chunks(fleet: Fleet) -> None:
    small_chunks(fleet, 7)
    devices = fleet.devices(60)
    made = fleet.create(selector={}, start_time=BASE.isoformat())
    sizes = []
    while True:
        answer = fleet.tick(BASE)
        sizes.append(answer["commands"])
        if not answer["more"]:
            break
    assert max(sizes) <= 20 + 7
    assert len(sizes) > 4
    assert reached(fleet, made) == devices
    (run,) = fleet.runs(made["id"])
    assert (run["targeted"], run["status"], run["expanded_to"]) == (60, "running", devices[-1])


def test_targets_that_are_named_in_several_ways_are_reached_once(fleet: Fleet) -> None:
    small_chunks(fleet, 3)
    devices = fleet.devices(10)
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="static")["id"]
    dynamic = fleet.insert("device_groups", owner_id=fleet.owner_id, name="all", selector={})["id"]
    for device in devices[:6]:
        fleet.run(
            "insert into device_group_members (group_id, device_id) values (%s, %s)", group, device
        )
    made = fleet.create(
        device_ids=devices[4:], group_ids=[group, dynamic], selector={}, start_time=BASE.isoformat()
    )
    fleet.tick_until_idle(BASE)
    assert reached(fleet, made) == devices


def test_a_crash_between_chunks_repeats_and_loses_nothing(connect: Callable[..., Fleet]) -> None:
    fleet = connect()
    small_chunks(fleet, 5)
    devices = fleet.devices(40)
    made = fleet.create(selector={}, start_time=BASE.isoformat())
    fleet.tick(BASE)
    for _ in range(2):
        with fleet.conn.transaction(force_rollback=True):
            assert fleet.tick(BASE)["commands"] > 0
        fleet.tick(BASE)
    fleet.tick_until_idle(BASE)
    assert reached(fleet, made) == devices


def test_a_run_that_lost_its_place_writes_what_is_missing_and_nothing_twice(fleet: Fleet) -> None:
    """As after a restore, or where somebody set it back by hand."""
    devices = fleet.devices(6)
    start = BASE.isoformat()
    lost, whole = (fleet.create(device_ids=devices, start_time=start) for _ in range(2))
    fleet.tick_until_idle(BASE)
    first = fleet.commands(lost["id"])
    fleet.run("delete from device_commands where id = %s", first[2]["id"])
    runs = [fleet.runs(made["id"])[0]["id"] for made in (lost, whole)]
    fleet.run(
        "update schedule_runs set expanded_to = null, expanded_at = null, targeted = 0"
        " where id = %s",
        runs[0],
    )
    assert fleet.value("select fleet.expand_runs(%s, %s, 100)", runs, BASE) == 1
    assert reached(fleet, lost) == reached(fleet, whole) == devices
    assert {row["id"] for row in fleet.commands(lost["id"])} >= {
        row["id"] for row in first if row != first[2]
    }
    assert fleet.runs(lost["id"])[0]["status"] == "running"


def test_only_what_the_engine_writes_itself_is_taken_at_its_word(fleet: Fleet) -> None:
    """Within one transaction, whether or not the statement had anybody to write for."""
    said = "select coalesce(current_setting('pgfleet.known_devices', true), '')"
    devices = fleet.devices(2)
    nobody = {"tags": ["none"]}
    with fleet.conn.transaction():
        for selector, count in ((nobody, 0), ({}, len(devices))):
            made = fleet.create(selector=selector)
            fleet.tick()
            assert len(fleet.commands(made["id"])) == count
            assert fleet.value(said) == ""
            targets = Jsonb({"owner_id": str(fleet.owner_id), "selector": selector})
            assert fleet.value("select send_commands(%s, 'lock')", targets)["count"] == count
            assert fleet.value(said) == ""


def test_a_small_schedule_does_not_wait_for_a_large_one(fleet: Fleet) -> None:
    fleet.devices(5000)
    large = fleet.create(selector={}, start_time=BASE.isoformat())
    fleet.tick(BASE)
    assert 0 < len(fleet.commands(large["id"])) < 5000

    small = fleet.create(
        device_ids=fleet.devices(3), start_time=(BASE + timedelta(seconds=1)).isoformat()
    )
    answer = fleet.tick(BASE + timedelta(seconds=1))
    assert len(fleet.commands(small["id"])) == 3
    assert answer["more"] is True
    assert len(fleet.commands(large["id"])) < 5000


def test_urgent_runs_go_first(fleet: Fleet) -> None:
    small_chunks(fleet, 5)
    fleet.devices(60)
    start = BASE.isoformat()
    low = fleet.create(selector={}, start_time=start)
    high = fleet.create(selector={}, start_time=start, priority=9)
    for _ in range(4):
        fleet.tick(BASE)
    assert len(fleet.commands(high["id"])) > len(fleet.commands(low["id"]))


def test_what_is_inserted_due_makes_a_few_commands_at_once_and_leaves_the_rest(
    fleet: Fleet,
) -> None:
    small_chunks(fleet, 4)
    devices = fleet.devices(10)
    made = fleet.create(selector={})
    assert reached(fleet, made) == devices[:4]
    fleet.tick_until_idle()
    assert reached(fleet, made) == devices


def test_nothing_is_expanded_inline_where_that_is_switched_off(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('inline_expand_limit', '0')")
    made = fleet.create(device_ids=fleet.devices(2))
    assert fleet.commands(made["id"]) == []
    fleet.tick()
    assert len(fleet.commands(made["id"])) == 2


def test_overlap_is_judged_for_each_device(fleet: Fleet) -> None:
    diligent, drawer = fleet.devices(2)
    made = fleet.minutely([diligent, drawer], BASE, policies={"expires_after": "1 day"})
    fleet.tick(BASE)
    fleet.finish(diligent, fleet.claim(diligent, now=BASE)[0], now=BASE)
    later = BASE + timedelta(minutes=1)
    fleet.tick(later)

    second = fleet.runs(made["id"])[1]
    assert (second["status"], second["targeted"], second["skipped"]) == ("running", 1, 1)
    counts = [command["device_id"] for command in fleet.commands(made["id"])]
    assert sorted(counts) == sorted([diligent, drawer, diligent])
    fleet.tick(later + timedelta(minutes=1))
    third = fleet.runs(made["id"])[2]
    assert (third["status"], third["reason"], third["skipped"]) == ("skipped", "overlap", 2)


def test_overlap_may_be_allowed_up_to_a_number(fleet: Fleet) -> None:
    device = fleet.device()
    made = fleet.minutely(
        [device],
        BASE,
        policies={"overlap": "allow", "max_concurrent": 2, "expires_after": "1 day"},
    )
    for minute in range(4):
        fleet.tick(BASE + timedelta(minutes=minute))
    assert len(fleet.commands(made["id"])) == 2
    assert [run["reason"] for run in fleet.runs(made["id"])] == [None, None, "overlap", "overlap"]

    # What is being carried out counts as well as what waits.
    (first,) = fleet.claim(device, 1, now=BASE + timedelta(minutes=4))
    fleet.tick(BASE + timedelta(minutes=4))
    assert len(fleet.commands(made["id"])) == 2
    fleet.finish(device, first, now=BASE + timedelta(minutes=4))
    fleet.tick(BASE + timedelta(minutes=5))
    assert len(fleet.commands(made["id"])) == 3


def test_other_schedules_do_not_count_as_overlap(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.send(device)
    first = fleet.create(device_ids=[device])
    second = fleet.create(device_ids=[device])
    assert reached(fleet, first) == reached(fleet, second) == [device]


def test_retired_devices_are_not_reached(fleet: Fleet) -> None:
    active, retired = fleet.devices(2)
    fleet.run("select retire_device(%s)", retired)
    made = fleet.create(device_ids=[active, retired])
    assert reached(fleet, made) == [active]
    only = fleet.create(device_ids=[retired])
    assert fleet.runs(only["id"])[0]["reason"] == "no targets"


def test_devices_of_others_are_never_reached_even_when_forced_in(
    connect: Callable[..., Fleet], own_database: Database
) -> None:
    fleet, others = connect(), connect()
    mine, theirs = fleet.device(), others.device(tags=["x"])
    their_group = others.insert("device_groups", owner_id=others.owner_id, name="all", selector={})[
        "id"
    ]
    made = fleet.create(device_ids=[mine], start_time=BASE.isoformat())
    # The service role cannot write such a schedule; suppose that it could.
    with pytest.raises(psycopg.Error, match="belongs to another owner"), fleet.conn.transaction():
        with fleet.acting(None, "service_role"):
            fleet.run(
                "update schedules set device_ids = array[%s]::bigint[] where id = %s",
                theirs,
                made["id"],
            )
    with own_database.connect("supabase_admin") as admin:
        fleet.break_rows(
            admin,
            "update schedules set device_ids = array[%s, %s]::bigint[],"
            ' group_ids = array[%s]::bigint[], selector = \'{"tags": ["x"]}\' where id = %s',
            mine,
            theirs,
            their_group,
            made["id"],
        )
    fleet.tick(BASE)
    assert reached(fleet, made) == [mine]


def test_the_payload_of_a_run_is_that_of_its_start(fleet: Fleet) -> None:
    small_chunks(fleet, 1)
    devices = fleet.devices(2)
    made = fleet.create(device_ids=devices, payload={"message": "before"})
    fleet.run('update schedules set payload = \'{"message": "after"}\' where id = %s', made["id"])
    fleet.tick_until_idle()
    payloads: list[Any] = [command["payload"] for command in fleet.commands(made["id"])]
    assert payloads == [{"message": "before"}] * 2


def test_the_most_urgent_run_is_expanded_first(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('expand_chunk_size_published', '20')")
    low, high, middle = (due(fleet, p, fleet.devices(30)) for p in (-1, 50, 0))
    fleet.tick(BASE)
    made = {s: len(fleet.commands(s)) for s in (low, high, middle)}
    assert made[high] == 30
    assert made[low] == made[middle] == 0
    fleet.tick(BASE)
    assert len(fleet.commands(middle)) == 30
    assert fleet.commands(low) == []
