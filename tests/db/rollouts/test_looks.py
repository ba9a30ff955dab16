"""Looks at many rollouts at once: what each gets, and what one does not do to the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.db.rollouts.test_rollouts import (
    START,
    end,
    released,
    roll_out,
    rollout,
    settle,
    tend,
)

RATES = (60, 61, 97, 250, 600)
SECONDS = 130


def test_rates_are_never_exceeded_in_any_minute_and_reached(fleet: Any) -> None:
    runs = {}
    for rate in RATES:
        devices = fleet.devices(round(rate * SECONDS / 60) + 20)
        runs[rate] = roll_out(fleet, devices, rate={"per_minute": rate})
    before = {rate: sum(released(fleet, run).values()) for rate, run in runs.items()}
    at = START
    for n in range(SECONDS):
        # A ticker is never quite on time.
        at += timedelta(seconds=1.0 + (n % 7) * 0.01)
        tend(fleet, at)
    seconds = (at - START).total_seconds()
    for rate, run in runs.items():
        rows = fleet.rows(
            "select not_before as at, count(*)::integer as n from device_commands"
            " where run_id = %s and not_before >= %s and not_before < fleet.held_until()"
            " group by not_before order by not_before",
            *(run, START),
        )
        for row in rows:
            until = row["at"] + timedelta(minutes=1)
            assert sum(one["n"] for one in rows if row["at"] <= one["at"] < until) <= rate
        reached = sum(row["n"] for row in rows)
        assert reached >= 0.95 * rate * seconds / 60, rate
        assert rollout(fleet, run)["released"] == before[rate] + reached


def test_a_full_minute_is_not_looked_at_until_its_first_turn_is_over(fleet: Any) -> None:
    run = roll_out(fleet, fleet.devices(3), rate={"per_minute": 1})
    settle(fleet, START, 3)
    last = fleet.value("select max(released_at) from fleet.rollout_releases where run_id = %s", run)
    assert last is not None
    assert fleet.value(
        "select next_look_at from rollouts where run_id = %s", run
    ) == last + timedelta(minutes=1)


def test_one_that_cannot_be_evaluated_is_paused_and_says_why(fleet: Any) -> None:
    runs = [roll_out(fleet, fleet.devices(2), max_parallel=1) for _ in range(4)]
    fleet.run(
        'update run_waves set rules = \'{"success_threshold": "many"}\' where run_id = %s', runs[1]
    )
    for run in runs:
        end(fleet, run)
    settle(fleet, START, 3)
    found = [rollout(fleet, run) for run in runs]
    assert [one["status"] for one in found] == ["running", "paused", "running", "running"]
    assert found[1]["reason"].startswith("it cannot be evaluated: ")
    assert [sum(released(fleet, run).values()) for run in runs] == [2, 1, 2, 2]


def test_a_large_rollout_does_not_slow_small_ones_down(fleet: Any) -> None:
    def shared(quotas: list[int], most: int) -> list[int]:
        return list(
            fleet.value(
                "select array_agg(s.quota order by s.run_id) from unnest(fleet.shared_quotas(array("
                " select (n, 1, '{}', '{}', '{}', q, false, null, null, false)::fleet.rollout_look"
                " from unnest(%s::integer[]) with ordinality as u(q, n)), %s, now())) as s",
                *(quotas, most),
            )
        )

    assert shared([1, 5000, 20, 0], 2000) == [1, 1979, 20, 0]
    assert shared([5000, 5000, 10], 2000) == [995, 995, 10]
    assert shared([3, 4], 2000) == [3, 4]


def test_what_a_rollout_came_to_is_the_same_however_it_is_looked_at(fleet: Any) -> None:
    plan = {
        "groups": [{"percent": 50}, {"percent": 50}],
        "abort": [{"failure": "timeout", "percent": 50, "min_count": 4}],
    }
    together = [roll_out(fleet, fleet.devices(12), **plan) for _ in range(2)]
    settle(fleet, START, 2)
    end(fleet, together[0], "failed", reason="timeout")
    end(fleet, together[1], "failed", reason="error")
    settle(fleet, START + timedelta(minutes=1), 4)
    assert rollout(fleet, together[0])["status"] == "aborted"
    assert "(timeout): the limit is 50 %" in rollout(fleet, together[0])["reason"]
    assert rollout(fleet, together[1])["status"] == "running"
