"""Many results in one call, and the next commands with the answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

NOW = datetime(2031, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def device(fleet: Fleet) -> int:
    return fleet.device()


def send(fleet: Fleet, device: int, count: int = 1, **named: object) -> list[Row]:
    return [
        fleet.send(device, "broadcast_message", p_not_before=NOW, **named) for _ in range(count)
    ]


def ended(claimed: Row, status: Any = "completed", **more: Any) -> Row:
    return {
        "command_id": claimed["command_id"],
        "attempt": claimed["attempt"],
        "status": status,
        **more,
    }


def finish(fleet: Fleet, device: int, results: Any, now: datetime = NOW) -> Any:
    with fleet.as_device(device):
        return fleet.value("select fleet.finish_commands(%s, %s)", Jsonb(results), now)


def work(
    fleet: Fleet, device: int, results: Any, limit: int | None = 10, now: datetime = NOW
) -> Row:
    with fleet.as_device(device):
        answer: Row = fleet.value(
            "select fleet.work(%s, %s, %s, %s)", Jsonb(results), limit, uuid4(), now
        )
    return answer


def test_each_result_is_answered_in_its_place(fleet: Fleet, device: int) -> None:
    send(fleet, device, 3)
    first, second, third = fleet.claim(device, now=NOW)
    other = fleet.device()
    (foreign,) = send(fleet, other)
    answers = finish(
        fleet,
        device,
        [
            ended(third, result={"n": 3}),
            ended(first, "failed", error="no", reason="unsupported"),
            {"command_id": foreign["id"], "attempt": 1, "status": "completed"},
            ended({**second, "attempt": 7}),
        ],
    )
    assert [answer.pop("command_id") for answer in answers] == [
        third["command_id"],
        first["command_id"],
        foreign["id"],
        second["command_id"],
    ]
    assert answers == [
        {"accepted": True, "status": "completed"},
        {"accepted": True, "status": "failed"},
        {"accepted": False, "reason": "not_found"},
        {"accepted": False, "reason": "stale_attempt"},
    ]
    rows = [fleet.command(row["command_id"]) for row in (first, second, third)]
    assert [row["status"] for row in rows] == ["failed", "running", "completed"]
    assert (rows[0]["reason"], rows[0]["error_message"]) == ("unsupported", "no")
    assert (rows[2]["result"], rows[2]["executed_at"]) == ({"n": 3}, NOW)


def test_a_failure_among_them_is_tried_again(fleet: Fleet, device: int) -> None:
    send(fleet, device, 2)
    first, second = fleet.claim(device, now=NOW)
    good, bad = finish(fleet, device, [ended(first), ended(second, "failed", error="busy")])
    assert good["status"] == "completed"
    assert bad["status"] == "pending"
    assert datetime.fromisoformat(bad["retry_at"]) > NOW
    assert fleet.value(
        "select count(*) from fleet.doorbells where device_id = %s and ring_at = %s",
        device,
        datetime.fromisoformat(bad["retry_at"]),
    )


def test_the_same_list_again_is_the_same_success(fleet: Fleet, device: int) -> None:
    send(fleet, device, 3)
    claimed = fleet.claim(device, now=NOW)
    results = [
        ended(claimed[0]),
        ended(claimed[1], "failed", reason="forbidden"),
        ended(claimed[2]),
    ]
    answer = finish(fleet, device, results)
    assert finish(fleet, device, results, NOW + MINUTE) == answer
    assert all(entry["accepted"] for entry in answer)
    assert fleet.command(claimed[0]["command_id"])["executed_at"] == NOW


def test_of_two_results_for_one_command_the_first_counts(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    answers = finish(
        fleet, device, [ended(claimed, result={"n": 1}), ended(claimed, "failed", result={"n": 2})]
    )
    assert [answer["accepted"] for answer in answers] == [True, False]
    assert fleet.command(claimed["command_id"])["result"] == {"n": 1}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({}, "status_invalid"),
        (7, "status_invalid"),
        (None, "status_invalid"),
        ([], "status_invalid"),
        ({"command_id": 1, "attempt": 1, "status": "pending"}, "status_invalid"),
        ({"command_id": 1, "attempt": 1, "status": ["completed"]}, "status_invalid"),
        ({"status": "completed"}, "not_found"),
        ({"command_id": "x", "attempt": 1, "status": "failed"}, "not_found"),
        ({"command_id": -1, "attempt": 1.5, "status": "completed"}, "not_found"),
        ({"command_id": 10**30, "attempt": 1, "status": "completed"}, "not_found"),
        ({"command_id": {"a": 1}, "attempt": [], "status": "failed"}, "not_found"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_alone(
    fleet: Fleet, device: int, entry: Any, reason: str
) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    refused, accepted = finish(fleet, device, [entry, ended(claimed)])
    assert (refused["accepted"], refused["reason"]) == (False, reason)
    assert accepted["accepted"] is True


@pytest.mark.parametrize("attempt", [None, "1", 1.0, 2**40, {}, "one"])
def test_an_attempt_that_is_no_number_is_none_that_is_held(
    fleet: Fleet, device: int, attempt: Any
) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    for status in ("completed", "failed"):
        (answer,) = finish(fleet, device, [ended({**claimed, "attempt": attempt}, status)])
        if attempt == "1":
            assert answer["accepted"] is (status == "completed")
        else:
            assert (answer["accepted"], answer["reason"]) == (False, "stale_attempt")


@pytest.mark.parametrize("results", [None, {}, "x", 1, [{}] * 101])
def test_what_is_no_list_or_too_long_is_refused(fleet: Fleet, device: int, results: Any) -> None:
    with fleet.refused("PT422", "results_invalid"), fleet.as_device(device):
        fleet.run("select finish_commands(%s)", Jsonb(results))
    with fleet.refused("PT422", "results_invalid"), fleet.as_device(device):
        fleet.run("select work(%s)", Jsonb(results))


def test_what_is_too_much_to_keep_is_cut(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    # What Postgres cannot compress.
    noise = fleet.value(
        "select string_agg(gen_random_uuid()::text, '') from generate_series(1, 5000)"
    )
    (answer,) = finish(fleet, device, [ended(claimed, result={"out": noise}, error="x" * 9000)])
    assert answer["accepted"] is True
    row = fleet.command(claimed["command_id"])
    assert row["result"]["cut"] is True
    assert len(row["error_message"]) <= 4000


def test_work_finishes_and_claims_what_it_set_free(fleet: Fleet, device: int) -> None:
    send(fleet, device, 3)
    answer = work(fleet, device, [], 2)
    assert answer["finished"] == []
    taken = answer["commands"]
    assert [(row["attempt"], row["payload"]) for row in taken] == [(1, {"message": "hello"})] * 2
    answer = work(fleet, device, [ended(row) for row in taken])
    assert [entry["status"] for entry in answer["finished"]] == ["completed"] * 2
    (last,) = answer["commands"]
    assert last["command_id"] not in [row["command_id"] for row in taken]
    assert work(fleet, device, [ended(last)]) == {
        "finished": [{"command_id": last["command_id"], "accepted": True, "status": "completed"}],
        "commands": [],
    }


@pytest.mark.parametrize("limit", [0, -1, None])
def test_work_with_no_room_claims_nothing(fleet: Fleet, device: int, limit: int | None) -> None:
    send(fleet, device)
    assert work(fleet, device, [], limit) == {"finished": [], "commands": []}
    assert fleet.value("select last_seen from devices where id = %s", device) == NOW


def test_work_takes_what_waited_for_what_it_finishes(fleet: Fleet, device: int) -> None:
    made = fleet.minutely([device], NOW, policies={"overlap": "buffer_one"})
    fleet.tick(NOW)
    (first,) = fleet.claim(device, now=NOW)
    fleet.tick(NOW + MINUTE)
    assert fleet.claim(device, now=NOW + MINUTE) == []
    (second,) = work(fleet, device, [ended(first)], now=NOW + MINUTE)["commands"]
    assert {row["id"] for row in fleet.commands(made["id"])} == {
        first["command_id"],
        second["command_id"],
    }


def test_a_run_counts_what_comes_in_a_list(fleet: Fleet) -> None:
    devices = fleet.devices(3)
    made = fleet.minutely(devices, NOW, policies={"max_runs": 1})
    fleet.tick(NOW)
    for device, status in zip(devices, ("completed", "completed", "failed"), strict=True):
        (claimed,) = fleet.claim(device, now=NOW)
        finish(fleet, device, [ended(claimed, status, reason="forbidden")])
    fleet.tick(NOW)
    (run,) = fleet.runs(made["id"])
    assert (run["completed"], run["failed"], run["finished_at"] is not None) == (2, 1, True)


def test_a_look_that_finds_nothing_writes_nothing(fleet: Fleet, device: int) -> None:
    fleet.claim(device, now=NOW)
    before = fleet.value("select xmin::text from devices where id = %s", device)
    for second in range(3):
        assert fleet.claim(device, now=NOW + timedelta(seconds=second)) == []
    assert fleet.value("select xmin::text from devices where id = %s", device) == before


def test_a_plain_client_still_may_not_say_what_is_not_its_to_say(fleet: Fleet, device: int) -> None:
    send(fleet, device)
    (claimed,) = fleet.claim(device, now=NOW)
    update = "update device_commands set {} where id = %s"
    person = fleet.owner_id
    fleet.insert("owner_members", owner_id=fleet.owner_id, user_id=person)
    for change in (
        "result = '{}'",
        "error_message = 'x'",
        "executed_at = now()",
        "status = 'failed'",
    ):
        with fleet.refused("PT403", "only_cancel"), fleet.acting(person):
            fleet.run(update.format(change), claimed["command_id"])
    finish(fleet, device, [ended(claimed)])
    for change in ("result = '{\"other\": 1}'", "status = 'failed'"):
        with fleet.refused("PT409", "command_final"), fleet.as_device(device):
            fleet.run(update.format(change), claimed["command_id"])
