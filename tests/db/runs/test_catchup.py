"""Catch-up: what becomes of the instants that passed while nothing ticked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.helpers.fleet import Fleet, Row

BASE = datetime(2031, 5, 5, 6, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LASTING = {"expires_after": "1 day"}


def every_ten_minutes(fleet: Fleet, **policies: object) -> int:
    """Create a schedule whose runs do not get into each other's way."""
    made = fleet.create(
        recurrence_type="interval",
        recurrence_config={"minutes": 10},
        start_time=BASE.isoformat(),
        device_ids=[fleet.device()],
        policies={"overlap": "allow", "max_concurrent": 100, "expires_after": "1 day", **policies},
    )
    schedule_id: int = made["id"]
    return schedule_id


def ran(fleet: Fleet, schedule_id: int) -> list[datetime]:
    return [run["scheduled_for"] for run in fleet.runs(schedule_id) if run["status"] != "skipped"]


def missed(fleet: Fleet, schedule_id: int) -> list[tuple[str, int]]:
    return [
        (run["reason"], run["missed_count"] or 1)
        for run in fleet.runs(schedule_id)
        if run["status"] == "skipped"
    ]


def test_none_catches_up_nothing(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet, catchup="none")
    fleet.tick(BASE + 35 * MINUTE)
    assert ran(fleet, schedule) == []
    assert missed(fleet, schedule) == [("catch-up is off", 4)]
    fleet.tick(BASE + 40 * MINUTE)
    assert ran(fleet, schedule) == [BASE + 40 * MINUTE]


def test_latest_catches_up_the_last_of_them(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet)
    fleet.tick(BASE + 35 * MINUTE)
    (run,) = [run for run in fleet.runs(schedule) if run["status"] != "skipped"]
    assert (run["scheduled_for"], run["trigger"]) == (BASE + 30 * MINUTE, "catchup")
    assert missed(fleet, schedule) == [("superseded by a later instant", 3)]


def test_latest_catches_up_nothing_from_before_its_window(fleet: Fleet) -> None:
    made = fleet.create(
        recurrence_type="daily",
        recurrence_config={"time": "06:00"},
        start_time=BASE.isoformat(),
        device_ids=[fleet.device()],
        policies={"catchup_window": "2 hours"},
    )
    fleet.tick(BASE + timedelta(days=2, hours=3))
    assert ran(fleet, made["id"]) == []
    assert sum(count for _, count in missed(fleet, made["id"])) == 3
    fleet.tick(BASE + timedelta(days=3, hours=1))
    assert ran(fleet, made["id"]) == [BASE + timedelta(days=3)]


def test_all_catches_up_the_latest_ones_up_to_the_limit(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet, catchup="all", catchup_limit=2)
    fleet.tick(BASE + 35 * MINUTE)
    assert ran(fleet, schedule) == [BASE + 20 * MINUTE, BASE + 30 * MINUTE]
    assert missed(fleet, schedule) == [("beyond the catch-up limit", 2)]


def test_all_stays_within_its_window(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet, catchup="all", catchup_window="25 minutes")
    fleet.tick(BASE + 55 * MINUTE)
    assert ran(fleet, schedule) == [BASE + minutes * MINUTE for minutes in (30, 40, 50)]
    assert missed(fleet, schedule) == [("outside the catch-up window", 3)]


def test_a_rate_starts_so_many_runs_a_minute(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet, catchup="all", catchup_rate=2)
    now = BASE + 45 * MINUTE
    fleet.tick_until_idle(now)
    runs = fleet.runs(schedule)
    assert len(runs) == 5
    begins = [(run["not_before"] or now) - now for run in runs]
    assert begins == [timedelta(seconds=30 * place) for place in range(5)]
    # What waits for its turn has not reached any device.
    assert len(fleet.commands(schedule)) == 1
    fleet.tick_until_idle(now + MINUTE)
    assert len(fleet.commands(schedule)) == 3


def test_runs_at_a_pace_find_the_device_done_with_the_one_before(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet, catchup="all", catchup_rate=1, overlap="skip")
    now = BASE + 35 * MINUTE
    for minute in range(4):
        fleet.tick_until_idle(now + minute * MINUTE)
        (command,) = fleet.commands(schedule)[minute:]
        (claimed,) = fleet.claim(command["device_id"], now=now + minute * MINUTE)
        fleet.finish(command["device_id"], claimed, now=now + minute * MINUTE)
    assert [command["status"] for command in fleet.commands(schedule)] == ["completed"] * 4


def test_what_is_late_by_less_than_a_minute_is_not_caught_up_but_run(fleet: Fleet) -> None:
    schedule = every_ten_minutes(fleet, catchup="none")
    fleet.tick(BASE + timedelta(seconds=59))
    assert [run["trigger"] for run in fleet.runs(schedule)] == ["schedule"]


@pytest.mark.parametrize(
    ("policies", "reason"),
    [
        ({"execution_window": {"from": "05:00", "to": "06:30"}}, "outside the execution window"),
        ({"blackouts": ["Fair"]}, "blackout"),
    ],
)
def test_what_is_caught_up_must_be_allowed_now(fleet: Fleet, policies: Row, reason: str) -> None:
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Fair")
    fleet.insert(
        "blackout_periods",
        owner_id=fleet.owner_id,
        calendar_id=calendar["id"],
        starts_at=BASE + 31 * MINUTE,
        ends_at=BASE + 2 * HOUR,
    )
    schedule = every_ten_minutes(fleet, **policies)
    fleet.tick(BASE + 25 * MINUTE)
    fleet.tick(BASE + 35 * MINUTE)
    assert ran(fleet, schedule) == [BASE + 20 * MINUTE]
    assert (reason, 1) in missed(fleet, schedule)


def test_what_is_caught_up_waits_for_its_window(fleet: Fleet) -> None:
    schedule = every_ten_minutes(
        fleet,
        catchup_window="10 hours",
        execution_window={"from": "12:00", "to": "13:00", "outside": "wait"},
    )
    fleet.tick(BASE + 15 * MINUTE)
    (run,) = [run for run in fleet.runs(schedule) if run["status"] != "skipped"]
    assert run["not_before"] == BASE + 6 * HOUR
    assert fleet.commands(schedule) == []


def test_a_pace_does_not_lead_out_of_the_window(fleet: Fleet) -> None:
    schedule = every_ten_minutes(
        fleet,
        catchup="all",
        catchup_rate=1,
        execution_window={"from": "05:00", "to": "06:27"},
    )
    fleet.tick(BASE + 25 * MINUTE + timedelta(seconds=30))
    assert [(run["status"], run["reason"]) for run in fleet.runs(schedule)] == [
        ("running", None),
        ("pending", None),
        ("skipped", "outside the execution window"),
    ]


def test_catching_up_may_be_paced(fleet: Fleet) -> None:
    made = fleet.minutely(
        [fleet.device()],
        BASE,
        policies={"catchup": "all", "catchup_rate": 2, "overlap": "allow", **LASTING},
    )
    now = BASE + timedelta(minutes=10)
    fleet.tick_until_idle(now)
    starts = [run["not_before"] for run in fleet.runs(made["id"]) if run["trigger"] == "catchup"]
    assert len(starts) > 3
    waits = [(start or now) - now for start in starts]
    assert waits == [timedelta(seconds=30 * n) for n in range(len(waits))]


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "replace", "allow"])
def test_what_is_caught_up_queues_instead_of_defeating_itself(fleet: Fleet, overlap: str) -> None:
    device = fleet.device()
    made = fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=BASE.isoformat(),
        device_ids=[device],
        policies={
            "catchup": "all",
            "catchup_window": "1 day",
            "overlap": overlap,
            "max_concurrent": 2,
            **LASTING,
        },
    )
    now = BASE + 4 * HOUR + 20 * MINUTE
    fleet.tick_until_idle(now)
    assert ran(fleet, made["id"]) == [BASE + n * HOUR for n in range(5)]
    commands = fleet.commands(made["id"])
    assert [c["status"] for c in commands] == ["pending"] * 5
    waits = [c["waits_for"] for c in commands]
    ids = [c["id"] for c in commands]
    assert waits == ([None, None] if overlap == "allow" else [None, ids[0]]) + ids[1:4]

    done = []
    while claimed := fleet.claim(device, 1, now=now):
        fleet.finish(device, claimed[0], now=now)
        done.append(claimed[0]["command_id"])
    assert done == ids
    fleet.tick_until_idle(now)
    assert {run["status"] for run in fleet.runs(made["id"])} == {"completed"}


def test_what_is_caught_up_comes_in_order_however_large_it_is(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('expand_chunk_size_published', '20')")
    devices = fleet.devices(70)
    made = fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=BASE.isoformat(),
        device_ids=devices,
        policies={"catchup": "all", "catchup_window": "1 day", **LASTING},
    )
    fleet.tick_until_idle(BASE + 2 * HOUR + 20 * MINUTE)
    commands = fleet.commands(made["id"])
    assert len(commands) == 3 * len(devices)
    runs = {c["id"]: c["run_id"] for c in commands}
    assert all(runs[c["waits_for"]] < c["run_id"] for c in commands if c["waits_for"])


def test_what_is_due_on_time_is_left_out_where_that_is_still_under_way(fleet: Fleet) -> None:
    made = fleet.create(
        recurrence_type="interval",
        recurrence_config={"hours": 1},
        start_time=BASE.isoformat(),
        device_ids=[fleet.device()],
        policies={"catchup": "all", "catchup_window": "1 day", **LASTING},
    )
    fleet.tick_until_idle(BASE + 2 * HOUR + 20 * MINUTE)
    fleet.tick_until_idle(BASE + 3 * HOUR)
    assert fleet.runs(made["id"])[-1]["reason"] == "overlap"
