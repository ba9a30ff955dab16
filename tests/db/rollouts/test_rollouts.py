"""Rollouts: groups in their order, at a rate, stopped by rule, seen from the rows alone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from psycopg.types.json import Jsonb

START = datetime(2031, 3, 3, 12, 0, tzinfo=UTC)


def roll_out(fleet: Any, devices: list[int], **plan: Any) -> int:
    """Create a schedule that is rolled out, run it, and give the run."""
    more = {"policies": {"rollout": plan}, "recurrence_type": "daily"}
    made = fleet.create(device_ids=devices, recurrence_config={"time": "03:00"}, **more)
    run: int = fleet.value("select id from run_schedule(%s)", made["id"])
    fleet.tick_until_idle()
    return run


def tend(fleet: Any, now: datetime) -> int:
    """Take the step of the tick at an instant; give how many devices had their turn."""
    return int(fleet.value("select fleet.tend_rollouts(%s) -> 'released'", now))


def settle(fleet: Any, now: datetime, times: int = 20) -> int:
    return sum(tend(fleet, now + timedelta(seconds=n)) for n in range(times))


def released(fleet: Any, run: int) -> dict[int, int]:
    rows = fleet.rows(
        "select wave, count(*) as n from device_commands where run_id = %s and step = 0"
        " and not_before < fleet.held_until() group by wave",
        run,
    )
    return {row["wave"]: row["n"] for row in rows}


def end(fleet: Any, run: int, status: str = "completed", share: float = 0.0, **more: Any) -> None:
    """Let devices that have had their turn come to an end; a share of them fails."""
    fleet.run(
        "update device_commands set status = case when"
        " ('x' || substr(md5(id::text), 1, 8))::bit(32)::bigint / 4294967296.0 < %s"
        " then 'failed' else %s end, reason = %s"
        " where run_id = %s and status = 'pending' and not_before < fleet.held_until()",
        share,
        status,
        more.get("reason", "error" if share or status == "failed" else None),
        run,
    )


def rollout(fleet: Any, run: int) -> dict[str, Any]:
    row: dict[str, Any] = fleet.row("select * from rollout_list where run_id = %s", run)
    return row


def test_groups_have_their_turn_in_order_and_nobody_is_in_two(fleet: Any) -> None:
    devices = fleet.devices(60)
    canary = devices[:3]
    run = roll_out(
        fleet,
        devices,
        groups=[{"devices": canary, "name": "canary"}, {"percent": 30}, {"tag": "x"}],
    )
    settle(fleet, START)
    assert released(fleet, run) == {0: 3}
    assert rollout(fleet, run)["current_group"] == "canary"
    end(fleet, run)
    settle(fleet, START + timedelta(minutes=1))
    first = released(fleet, run)
    assert set(first) == {0, 1} and 8 <= first[1] <= 30
    end(fleet, run)
    settle(fleet, START + timedelta(minutes=2))
    assert sum(released(fleet, run).values()) == 60
    end(fleet, run)
    settle(fleet, START + timedelta(minutes=3))
    assert rollout(fleet, run)["status"] == "completed"
    fleet.tick()
    assert fleet.value("select status from schedule_runs where id = %s", run) == "completed"


def test_the_place_of_a_device_is_always_the_same(fleet: Any) -> None:
    devices = fleet.devices(40)
    groups = [{"percent": 50}, {"percent": 50}]
    made = fleet.create(
        device_ids=devices,
        policies={"rollout": {"groups": groups}, "overlap": "allow"},
        recurrence_type="daily",
    )
    places = []
    for _ in range(2):
        run = fleet.value("select id from run_schedule(%s)", made["id"])
        fleet.tick_until_idle()
        rows = fleet.rows("select device_id, wave from device_commands where run_id = %s", run)
        places.append({row["device_id"]: row["wave"] for row in rows})
    assert places[0] == places[1] and len(places[0]) == 40


def test_held_commands_are_not_claimed_and_not_rung(fleet: Any) -> None:
    device = fleet.device()
    run = roll_out(fleet, [device], groups=[{"percent": 100, "gate": "manual"}])
    assert fleet.claim(device) == []
    assert fleet.value("select count(*) from fleet.doorbells") == 0
    assert rollout(fleet, run)["status"] == "waiting"


def test_a_threshold_lets_the_next_group_go_before_the_last_one_is_through(fleet: Any) -> None:
    devices = fleet.devices(20)
    run = roll_out(
        fleet,
        devices,
        groups=[{"devices": devices[:10], "success_threshold": 50}, {"percent": 100}],
    )
    settle(fleet, START)
    fleet.run(
        "update device_commands set status = 'completed' where run_id = %s and device_id = any(%s)",
        *(run, devices[:5]),
    )
    settle(fleet, START + timedelta(minutes=1))
    assert released(fleet, run) == {0: 10, 1: 10}


def test_a_threshold_that_cannot_be_reached_pauses_until_somebody_resumes(fleet: Any) -> None:
    devices = fleet.devices(20)
    run = roll_out(
        fleet,
        devices,
        groups=[{"devices": devices[:10], "success_threshold": 95}, {"percent": 100}],
    )
    settle(fleet, START)
    fleet.run(
        "update device_commands set status = 'failed' where run_id = %s and device_id = %s",
        *(run, devices[0]),
    )
    settle(fleet, START + timedelta(minutes=1))
    found = rollout(fleet, run)
    assert (found["status"], released(fleet, run)) == ("paused", {0: 10})
    assert "cannot reach its success threshold" in found["reason"]
    fleet.value("select resume_rollout(%s)", run)
    settle(fleet, datetime.now(UTC) + timedelta(minutes=1))
    assert released(fleet, run) == {0: 10, 1: 10}


def test_what_soaks_makes_the_next_group_wait(fleet: Any) -> None:
    devices = fleet.devices(4)
    groups = [{"devices": devices[:2], "soak": "1 hour"}, {"percent": 100}]
    run = roll_out(fleet, devices, groups=groups)
    settle(fleet, START)
    end(fleet, run)
    settle(fleet, START + timedelta(minutes=1))
    settle(fleet, START + timedelta(minutes=59))
    assert released(fleet, run) == {0: 2}
    settle(fleet, START + timedelta(minutes=62))
    assert released(fleet, run) == {0: 2, 1: 2}


def test_an_exponential_rate_grows_with_success(fleet: Any) -> None:
    def rate(released: int, succeeded: int, **more: Any) -> int:
        plan = Jsonb({"rate": {"base": 10, "factor": 2, "every": 10, **more}})
        return int(fleet.value("select fleet.rate_now(%s, %s, %s)", plan, released, succeeded))

    assert [rate(999, n) for n in (0, 9, 10, 25, 30)] == [10, 10, 20, 40, 80]
    assert rate(10**9, 10**9) == 1000
    assert rate(20, 0, count="released", most=30) == 30


def test_so_many_at_once(fleet: Any) -> None:
    run = roll_out(fleet, fleet.devices(10), max_parallel=3)
    settle(fleet, START)
    assert released(fleet, run) == {0: 3}
    end(fleet, run)
    settle(fleet, START + timedelta(minutes=1))
    assert released(fleet, run) == {0: 6}


def test_a_command_line_in_batches_stops_at_the_first_failure(fleet: Any) -> None:
    made = fleet.create(
        action_type="run_command",
        payload={"command": "id", "batch_size": 2, "stop_on_failure": True},
        device_ids=fleet.devices(8),
    )
    fleet.tick_until_idle()
    run = fleet.value("select run_id from rollouts where schedule_id = %s", made["id"])
    settle(fleet, START)
    assert released(fleet, run) == {0: 2}
    end(fleet, run, "failed")
    settle(fleet, START + timedelta(minutes=1))
    assert rollout(fleet, run)["status"] == "aborted"
    statuses = Counter(row["status"] for row in fleet.commands(made["id"]))
    assert statuses == {"failed": 2, "cancelled": 6}


def test_four_eyes(fleet: Any) -> None:
    author, other, reader = uuid4(), uuid4(), uuid4()
    for user, may in (
        (author, "{view,operate,manage}"),
        (other, "{view,operate}"),
        (reader, "{view}"),
    ):
        fleet.run(
            "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, %s)",
            *(fleet.owner_id, user, may),
        )
    devices = fleet.devices(4)
    with fleet.acting(author):
        run = roll_out_as(fleet, devices)
    fleet.tick_until_idle()
    settle(fleet, START)
    assert released(fleet, run) == {}
    with fleet.refused("PT403", "not_a_person"):
        fleet.value("select approve_rollout(%s)", run)
    for user, reason in ((author, "four_eyes_required"), (reader, "permission_missing")):
        with fleet.acting(user), fleet.refused("PT403", reason):
            fleet.value("select approve_rollout(%s)", run)
    with fleet.acting(other):
        answer = fleet.value("select approve_rollout(%s, 'looks good')", run)
    assert (answer["approvals"], answer["approvals_needed"]) == (1, 1)
    settle(fleet, datetime.now(UTC) + timedelta(minutes=1))
    assert sum(released(fleet, run).values()) == 4
    logged = fleet.rows(
        "select actor, new ->> 'note' as note from audit_log"
        " where table_name = 'rollout_approvals' and owner_id = %s",
        fleet.owner_id,
    )
    assert logged == [{"actor": other, "note": "looks good"}]
    with fleet.acting(other):
        fleet.value("select abort_rollout(%s, 'not today')", run)
    assert fleet.rows(
        "select actor, new ->> 'reason' as reason from audit_log"
        " where table_name = 'rollouts' and owner_id = %s and new ->> 'aborted_at' is not null",
        fleet.owner_id,
    ) == [{"actor": other, "reason": "not today"}]


def roll_out_as(fleet: Any, devices: list[int]) -> int:
    made = fleet.create(
        device_ids=devices,
        policies={"rollout": {"four_eyes": True}},
        recurrence_type="daily",
    )
    run: int = fleet.value("select id from run_schedule(%s)", made["id"])
    return run


def test_pause_resume_and_abort_by_hand(fleet: Any) -> None:
    run = roll_out(fleet, fleet.devices(50), rate={"per_minute": 60})
    now = datetime.now(UTC)
    settle(fleet, now, 3)
    fleet.value("select pause_rollout(%s, 'lunch')", run)
    before = released(fleet, run)
    settle(fleet, now + timedelta(seconds=10), 5)
    assert (released(fleet, run), rollout(fleet, run)["reason"]) == (before, "lunch")
    fleet.value("select resume_rollout(%s)", run)
    settle(fleet, now + timedelta(seconds=30), 5)
    assert sum(released(fleet, run).values()) > sum(before.values())
    fleet.value("select abort_rollout(%s)", run)
    settle(fleet, now + timedelta(minutes=3), 5)
    assert rollout(fleet, run)["status"] == "aborted"
    with fleet.refused("PT409", "rollout_over"):
        fleet.value("select resume_rollout(%s)", run)


def test_windows_are_those_of_each_device_and_the_next_opening_is_told(fleet: Any) -> None:
    local = datetime.now(UTC)
    opening = local + timedelta(hours=2)
    window = {
        "from": opening.strftime("%H:%M"),
        "to": (opening + timedelta(hours=1)).strftime("%H:%M"),
        "in": "device",
    }
    device = fleet.device(timezone="UTC")
    made = fleet.create(
        device_ids=[device],
        recurrence_type="daily",
        policies={"rollout": {}, "execution_window": window},
    )
    run = fleet.value("select id from run_schedule(%s)", made["id"])
    fleet.tick_until_idle()
    settle(fleet, local + timedelta(seconds=5), 3)
    found = rollout(fleet, run)
    assert (found["status"], released(fleet, run)) == ("closed", {})
    assert abs(found["next_opening_at"] - opening) < timedelta(minutes=1)
    settle(fleet, opening + timedelta(minutes=1), 3)
    assert released(fleet, run) == {0: 1}


def test_devices_that_join_later_are_taken_in_only_if_the_plan_says_so(fleet: Any) -> None:
    for membership, joined in (("snapshot", 0), ("continuous", 1)):
        tag = membership
        fleet.device(tags=[tag])
        made = fleet.create(
            selector={"tags": [tag]},
            recurrence_type="daily",
            policies={"rollout": {"membership": membership, "rate": {"per_minute": 60}}},
        )
        run = fleet.value("select id from run_schedule(%s)", made["id"])
        fleet.tick_until_idle()
        now = datetime.now(UTC)
        settle(fleet, now, 2)
        fleet.device(tags=[tag])
        settle(fleet, now + timedelta(minutes=2), 5)
        assert sum(released(fleet, run).values()) == 1 + joined


def test_what_is_wrong_with_a_plan_is_told_at_once(fleet: Any) -> None:
    plan = {
        "rate": {"per_minute": 0, "base": 5},
        "groups": [{"percent": 80}, {"percent": 30, "soak": "long"}, {"tag": "x", "devices": [1]}],
        "abort": [{"percent": 101, "failure": "bad"}],
        "max_parallel": "many",
        "compensate": {"action_type": "nonsense"},
        "colour": "red",
    }
    with fleet.refused("PT422", "schedule_invalid") as refusal:
        fleet.create(device_ids=[fleet.device()], policies={"rollout": plan})
    for word in (
        *("rate.per_minute", "either per_minute or base", "110 percent", "groups.2.soak"),
        *("one of percent, tag and devices", "abort.percent", "abort.failure", "max_parallel"),
        *("compensate.action_type", "rollout.colour"),
    ):
        assert word in refusal.message, word
