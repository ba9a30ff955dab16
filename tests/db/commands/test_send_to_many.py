"""One command for many devices: checked once, written in one statement, sent once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet, Row
from tests.helpers.sandbox import wait_until


def send(fleet: Fleet, targets: Any, kind: str = "lock", **named: Any) -> Row:
    extra = "".join(f", {name} => %s" for name in named)
    answer: Row = fleet.value(
        f"select send_commands(%s, %s{extra})", Jsonb(targets), kind, *named.values()
    )
    return answer


def sent(fleet: Fleet, answer: Row) -> list[Row]:
    return fleet.rows(
        "select * from device_commands where sent_as = %s order by device_id", answer["sent_as"]
    )


def group(fleet: Fleet, *devices: int) -> int:
    made: int = fleet.insert("device_groups", owner_id=fleet.owner_id, name=f"g-{uuid4()}")["id"]
    for device in devices:
        fleet.insert("device_group_members", group_id=made, device_id=device)
    return made


def test_every_device_that_is_named_gets_one(fleet: Fleet) -> None:
    first, second, third, tagged = (fleet.device() for _ in range(4))
    fleet.run("update devices set tags = '{lab}' where id in (%s, %s)", tagged, first)
    retired = fleet.device(status="retired", tags=["lab"])
    fleet.device()
    Fleet(fleet.conn).device(tags=["lab"])
    answer = send(
        fleet,
        {
            "device_ids": [first, retired],
            "group_ids": [group(fleet, second), group(fleet, second, third)],
            "selector": {"tags": ["lab"]},
        },
        "broadcast_message",
        p_payload=Jsonb(HELLO),
        p_priority=7,
    )
    rows = sent(fleet, answer)
    assert [row["device_id"] for row in rows] == [first, second, third, tagged]
    assert answer["count"] == 4
    for row in rows:
        assert row["payload"] == HELLO
        assert (row["status"], row["priority"], row["owner_id"]) == ("pending", 7, fleet.owner_id)
    (claimed,) = fleet.claim(third)
    assert fleet.finish(third, claimed)["accepted"] is True


def test_the_same_key_sends_once(fleet: Fleet) -> None:
    device = fleet.device(tags=["lab"])
    targets = {"owner_id": str(fleet.owner_id), "selector": {"tags": ["lab"]}}
    first = send(fleet, targets, p_idempotency_key="k")
    # Whoever comes later was not meant.
    fleet.device(tags=["lab"])
    assert send(fleet, targets, p_idempotency_key="k") == first
    assert [row["device_id"] for row in sent(fleet, first)] == [device]
    assert send(fleet, targets, p_idempotency_key="l")["count"] == 2
    with fleet.refused("PT409", "idempotency_conflict"):
        send(fleet, targets, "unlock", p_idempotency_key="k")


def test_who_has_one_by_the_same_key_gets_no_second(connect: Callable[..., Fleet]) -> None:
    """Nor who gets one meanwhile, however many do: each by a session that is not yet at its end."""
    fleet, other = connect(), connect()
    had, *meanwhile, rest = devices = fleet.devices(7)
    targets = {"owner_id": str(fleet.owner_id), "device_ids": devices}
    fleet.send(had, p_idempotency_key="k")
    senders = [connect() for _ in meanwhile]
    pids = [one.value("select pg_backend_pid()") for one in senders]
    asker = other.value("select pg_backend_pid()")
    with ThreadPoolExecutor(1) as pool:
        for one, device in zip(senders, meanwhile, strict=True):
            one.run("begin")
            one.send(device, p_idempotency_key="k")
        answer = pool.submit(send, other, targets, p_idempotency_key="k")
        for one, pid in zip(senders, pids, strict=True):
            waits = "select %s = any (pg_blocking_pids(%s))"
            wait_until(
                lambda waits=waits, pid=pid: answer.done() or fleet.value(waits, pid, asker), 60
            )
            assert not answer.done()
            one.run("commit")
        found = answer.result(60)
    assert ([row["device_id"] for row in sent(fleet, found)], found["count"]) == ([rest], 1)
    counts = fleet.rows(
        "select device_id, count(*) as n from device_commands group by 1 order by 1"
    )
    assert [(row["device_id"], row["n"]) for row in counts] == [(one, 1) for one in devices]


@pytest.mark.parametrize(
    "targets",
    [
        None,
        [],
        "all",
        {},
        {"devices": ["pc-1"]},
        {"device_ids": "1"},
        {"device_ids": [1.5]},
        {"group_ids": [{}]},
        {"selector": {"colour": "red"}},
        {"selector": []},
        {"owner_id": "me", "selector": {}},
        {"device_ids": list(range(1, 10_002))},
    ],
)
def test_who_is_meant_must_be_clear(fleet: Fleet, targets: Any) -> None:
    fleet.run("select fleet.set_setting('default_owner', %s)", Jsonb(str(fleet.owner_id)))
    with fleet.refused("PT422", "targets_invalid"):
        send(fleet, targets)


def test_what_is_another_owners_is_as_good_as_not_there(fleet: Fleet) -> None:
    mine, foreign = fleet.device(), Fleet(fleet.conn).device()
    for targets in ({"device_ids": [10**12]}, {"device_ids": [foreign]}):
        with fleet.refused("PT404", "targets_invalid"), fleet.acting(fleet.owner_id):
            send(fleet, {"owner_id": str(fleet.owner_id), **targets})
        with fleet.refused("PT404", "owner_not_found"), fleet.acting(uuid4()):
            send(fleet, {"owner_id": str(fleet.owner_id), "device_ids": [mine]})


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("no_such_type", {}),
        ("broadcast_message", {}),
        ("broadcast_message", {"p_payload": Jsonb({"message": 7})}),
        ("lock", {"p_payload": Jsonb([])}),
        ("lock", {"p_priority": 101}),
        ("lock", {"p_priority": -(2**31)}),
        ("lock", {"p_max_attempts": 0}),
        ("lock", {"p_expires_after": "-1 hour"}),
        ("lock", {"p_not_before": "infinity"}),
    ],
)
def test_what_is_sent_must_be_valid(fleet: Fleet, kind: str, named: Row) -> None:
    with fleet.refused("PT422", "command_invalid"):
        send(fleet, {"device_ids": [fleet.device()]}, kind, **named)


def test_only_who_may_operate_sends(fleet: Fleet) -> None:
    device = fleet.device()
    viewer, operator = uuid4(), uuid4()
    for user, permissions in ((viewer, ["view"]), (operator, ["view", "operate"])):
        fleet.insert(
            "owner_members", owner_id=fleet.owner_id, user_id=user, permissions=permissions
        )
    for targets in ({"device_ids": [device]}, {"owner_id": str(fleet.owner_id), "selector": {}}):
        with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
            send(fleet, targets)
        with fleet.acting(operator):
            assert send(fleet, targets)["count"] == 1
        with fleet.refused("PT403", "permission_missing"), fleet.acting(operator):
            send(fleet, targets, "run_command", p_payload=Jsonb({"command": "x"}))
    row = fleet.row("select created_by from device_commands where device_id = %s limit 1", device)
    assert row["created_by"] == operator


def test_secrets_are_sealed_for_all_of_them(fleet: Fleet) -> None:
    devices = fleet.devices(2)
    answer = send(
        fleet,
        {"device_ids": devices},
        "run_command",
        p_payload=Jsonb({"command": "x", "environment": {"TOKEN": "hush"}}),
    )
    for row in sent(fleet, answer):
        assert "hush" not in str(row["payload"])
        (claimed,) = fleet.claim(row["device_id"])
        assert claimed["payload"]["environment"] == {"TOKEN": "hush"}


def test_an_insert_of_many_is_checked_as_one_of_one(fleet: Fleet) -> None:
    devices = fleet.devices(5)
    query = (
        "insert into device_commands (device_id, command_type, payload)"
        " select u.id, 'broadcast_message', jsonb_build_object(%s::text, 'to ' || u.id)"
        " from unnest(%s::bigint[]) as u(id)"
    )
    fleet.run(query, "message", devices)
    found = fleet.rows("select * from device_commands where device_id = any (%s)", devices)
    assert len({row["payload"]["message"] for row in found}) == 5
    with fleet.refused("PT422", "command_invalid", "payload.message"):
        fleet.run(query, "mesage", devices)
    with fleet.refused("PT422", "command_invalid", "payload.shell"):
        fleet.run(
            "insert into device_commands (device_id, command_type, payload)"
            " select u.id, 'run_command', jsonb_build_object('command', 'x', 'shell', u.shell)"
            " from unnest(%s::bigint[], array['sh', 'sh', 'csh', 'sh', 'sh']) as u(id, shell)",
            devices,
        )
