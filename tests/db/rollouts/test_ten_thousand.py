"""Ten thousand devices, simulated in SQL: stopped where it fails, through where it does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.db.rollouts.test_rollouts import START, end, released, rollout, tend

PLAN = {
    "groups": [{"percent": 5, "success_threshold": 90}, {"percent": 25, "success_threshold": 90}],
    "rate": {"base": 100, "factor": 2, "every": 100, "most": 3000},
    "abort": [{"failure": "any", "percent": 5, "min_count": 200}],
    "compensate": {"action_type": "broadcast_message", "payload": {"message": "undo"}},
}


def begin(fleet: Any, count: int) -> int:
    fleet.run(
        "insert into devices (owner_id, hostname, tags)"
        " select %s, 'ten-' || n || '-' || gen_random_uuid(), '{ten}'"
        " from generate_series(1, %s) as n",
        *(fleet.owner_id, count),
    )
    made = fleet.create(
        selector={"tags": ["ten"]}, recurrence_type="daily", policies={"rollout": PLAN}
    )
    run: int = fleet.value("select id from run_schedule(%s)", made["id"])
    while fleet.value("select fleet.expand_next(%s) -> 'more'", START):
        pass
    return run


def test_failures_from_the_second_group_on_stop_it_within_one_evaluation(fleet: Any) -> None:
    run = begin(fleet, 10_000)
    waves = {
        row["wave"]: row["n"]
        for row in fleet.rows(
            "select wave, count(*) as n from device_commands where run_id = %s group by wave", run
        )
    }
    assert 350 < waves[0] < 650 and sum(waves.values()) == 10_000
    at = START
    for _ in range(200):
        at += timedelta(seconds=20)
        tend(fleet, at)
        share = 0.08 if 1 in released(fleet, run) else 0.0
        end(fleet, run, share=share)
        if rollout(fleet, run)["aborted_at"]:
            break
    found = rollout(fleet, run)
    assert found["aborted_at"] == at, "by the evaluation after the failures"
    assert "the limit is 5 %" in found["reason"]
    had = fleet.value(
        "select count(*) from device_commands where run_id = %s and step = 0"
        " and status in ('completed', 'failed')",
        run,
    )
    assert had == found["released"] < waves[0] + waves[1]
    for _ in range(6):
        at += timedelta(seconds=1)
        tend(fleet, at)
    assert fleet.value(
        "select array_agg(device_id order by device_id) from device_commands"
        " where run_id = %s and step = 0 and status = 'completed'",
        run,
    ) == fleet.value(
        "select array_agg(device_id order by device_id) from device_commands"
        " where run_id = %s and step = 1",
        run,
    )
    fleet.run("update device_commands set status = 'completed' where run_id = %s and step = 1", run)
    tend(fleet, at + timedelta(seconds=1))
    tend(fleet, at + timedelta(seconds=2))
    found = rollout(fleet, run)
    assert (found["status"], found["restored"]) == ("aborted", found["to_restore"])


def test_few_failures_let_it_come_through(fleet: Any) -> None:
    count = 10_000
    run = begin(fleet, count)
    at = START
    for _ in range(200):
        at += timedelta(seconds=20)
        tend(fleet, at)
        end(fleet, run, share=0.01)
        if rollout(fleet, run)["completed_at"]:
            break
    found = rollout(fleet, run)
    assert (found["status"], found["released"], found["targeted"]) == ("completed", count, count)
    assert count / 600 < found["failed"] < count * 0.03
