"""Why one device ran or did not: left out, waiting, or what became of its command."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.helpers.fleet import Fleet, Row
from tests.helpers.insight import DAY, HOUR, MINUTE, NOON, daily, explain, finish_all, verdict

TAGGED = {"tags": ["lab"]}


@pytest.fixture
def device(fleet: Fleet) -> int:
    """Give a device that a selector chooses."""
    return fleet.device("lab-01", tags=["lab"])


@pytest.fixture
def made(fleet: Fleet, device: int) -> Row:
    """Give a schedule for the devices of the lab."""
    return daily(fleet, [], selector=TAGGED)


def test_the_states_of_its_command(fleet: Fleet, device: int, made: Row) -> None:
    fleet.tick(NOON)
    waiting = explain(fleet, made, NOON, NOON, device)
    assert (waiting["verdict"], waiting["reason"]) == ("waiting", "the device has not asked for it")
    assert "never seen" in waiting["detail"]
    (command,) = fleet.claim(device, now=NOON)
    assert verdict(fleet, made, NOON, NOON, device) == ("running", "the device has it")
    fleet.finish(device, command, now=NOON)
    answer = explain(fleet, made, NOON, NOON, device)

    assert (answer["verdict"], answer["reason"]) == ("ran", "completed")
    assert (answer["hostname"], answer["command"]["status"]) == ("lab-01", "completed")


def test_a_failure_with_its_class_and_words(fleet: Fleet, device: int, made: Row) -> None:
    fleet.tick(NOON)
    (command,) = fleet.claim(device, now=NOON)
    fleet.finish(device, command, "failed", now=NOON, reason="forbidden", error="not allowed")
    answer = explain(fleet, made, NOON, NOON, device)

    assert (answer["verdict"], answer["reason"]) == ("failed", "forbidden")
    assert answer["detail"].startswith("not allowed; ")


def test_a_retry_is_waited_for(fleet: Fleet, device: int, made: Row) -> None:
    fleet.tick(NOON)
    (command,) = fleet.claim(device, now=NOON)
    fleet.finish(device, command, "failed", now=NOON, reason="error", error="busy")
    answer = explain(fleet, made, NOON, NOON, device)

    assert (answer["verdict"], answer["reason"]) == ("waiting", "retry")
    assert "attempt 1 failed (error)" in answer["detail"]


def test_it_expired_while_the_device_was_away(fleet: Fleet, device: int, made: Row) -> None:
    fleet.tick(NOON)
    now = NOON + DAY + HOUR
    assert verdict(fleet, made, NOON, now, device) == ("expired", "expired")
    fleet.tick(now)
    answer = explain(fleet, made, NOON, now, device)

    assert (answer["verdict"], answer["reason"]) == ("expired", "expired")
    assert "the device was never seen" in answer["detail"]


def test_its_command_was_cancelled_or_replaced(fleet: Fleet, device: int) -> None:
    policies = {"overlap": "replace", "expires_after": "1 day"}
    made = fleet.minutely([device], NOON, policies=policies)
    fleet.tick(NOON)
    fleet.tick(NOON + MINUTE)

    assert verdict(fleet, made, NOON, NOON + MINUTE, device) == ("cancelled", "replaced")
    (late,) = [c for c in fleet.commands(made["id"]) if c["status"] == "pending"]
    fleet.run("select cancel_command(%s, 'not today')", late["id"])
    answer = verdict(fleet, made, NOON + MINUTE, NOON + MINUTE, device)
    assert answer == ("cancelled", "not today")


def test_a_buffered_command_waits_for_the_one_before(fleet: Fleet, device: int) -> None:
    policies = {"overlap": "buffer_one", "expires_after": "1 day"}
    made = fleet.minutely([device], NOON, policies=policies)
    for minutes in range(3):
        fleet.tick(NOON + minutes * MINUTE)
    first, _ = fleet.commands(made["id"])
    now = NOON + 2 * MINUTE
    answer = explain(fleet, made, NOON + MINUTE, now, device)

    assert (answer["verdict"], answer["reason"]) == ("waiting", "buffered")
    assert f"command {first['id']} " in answer["detail"]
    assert verdict(fleet, made, now, now, device) == ("overlap", "overlap")


def test_overlap_of_this_device_while_others_ran(fleet: Fleet, device: int) -> None:
    other = fleet.device()
    made = fleet.minutely([device, other], NOON, policies={"expires_after": "1 day"})
    fleet.tick(NOON)
    finish_all(fleet, other, NOON)
    fleet.tick(NOON + MINUTE)
    now = NOON + MINUTE
    answer = explain(fleet, made, now, now, device)

    assert (answer["verdict"], answer["reason"]) == ("overlap", "overlap")
    assert f"of run {fleet.runs(made['id'])[0]['id']}" in answer["detail"]
    assert verdict(fleet, made, now, now, other)[0] == "waiting"


def test_jitter(fleet: Fleet, device: int) -> None:
    made = daily(fleet, [device], policies={"jitter": "6 hours"})
    soon = explain(fleet, made, NOON, NOON - DAY, device)
    assert "its own slot of the jitter" in soon["detail"]
    fleet.tick(NOON)
    answer = explain(fleet, made, NOON, NOON, device)

    assert (answer["verdict"], answer["reason"]) == ("waiting", "jitter")
    slot = fleet.commands(made["id"])[0]["not_before"]
    assert NOON < slot < NOON + timedelta(hours=6)
    assert f"{slot:%H:%M}" in soon["detail"]
    assert f"{slot:%H:%M}" in answer["detail"]


@pytest.mark.parametrize("when", [NOON - DAY, NOON])
def test_not_a_target_retired_and_missing(fleet: Fleet, device: int, made: Row, when: Any) -> None:
    outsider, retired = fleet.device(), fleet.device(tags=["lab"])
    fleet.run("select retire_device(%s)", retired)
    fleet.tick(when)

    expected = ("not a target", "the schedule does not reach this device")
    assert verdict(fleet, made, NOON, when, outsider) == expected
    assert verdict(fleet, made, NOON, when, retired) == ("retired", "the device is retired")


def test_no_targets_says_more_for_a_device(fleet: Fleet, made: Row) -> None:
    fleet.run("update devices set tags = '{}'")
    outsider = fleet.device()
    fleet.tick(NOON)

    assert verdict(fleet, made, NOON, NOON)[0] == "no targets"
    assert verdict(fleet, made, NOON, NOON, outsider)[0] == "not a target"


def test_added_later(fleet: Fleet, device: int, made: Row) -> None:
    fleet.tick(NOON)
    late = fleet.device(tags=["lab"])
    fleet.run("update devices set created_at = %s where id = %s", NOON + HOUR, late)

    expected = ("added later", "the device was added after the run")
    assert verdict(fleet, made, NOON, NOON + DAY, late) == expected


def test_reached_only_since_then(fleet: Fleet, device: int, made: Row) -> None:
    other = fleet.device()
    fleet.tick(NOON)
    fleet.run("update devices set tags = '{lab}' where id = %s", other)

    expected = ("not a target", "the schedule did not reach this device then")
    assert verdict(fleet, made, NOON, NOON, other) == expected


def test_a_pause_is_the_same_for_each_device(fleet: Fleet, device: int, made: Row) -> None:
    fleet.run("select pause_schedule(%s, 'exams')", made["id"])

    assert verdict(fleet, made, NOON, NOON + HOUR, device) == ("paused", "exams")


def test_outside_the_window_of_the_device(fleet: Fleet, device: int) -> None:
    window = {"from": "11:00", "to": "13:00", "in": "device"}
    tokyo = fleet.device(timezone="Asia/Tokyo")
    made = daily(fleet, [device, tokyo], policies={"execution_window": window})
    expected = ("outside window", "outside the execution window")

    assert verdict(fleet, made, NOON, NOON - DAY, tokyo) == expected
    fleet.tick(NOON)
    assert verdict(fleet, made, NOON, NOON, tokyo) == expected
    assert "21:00" in explain(fleet, made, NOON, NOON, tokyo)["detail"]
    assert verdict(fleet, made, NOON, NOON, device)[0] == "waiting"


def test_waiting_for_the_window_of_the_device(fleet: Fleet) -> None:
    window = {"from": "23:00", "to": "24:00", "in": "device", "outside": "wait"}
    tokyo = fleet.device(timezone="Asia/Tokyo")
    made = daily(fleet, [tokyo], policies={"execution_window": window, "expires_after": "1 day"})
    fleet.tick(NOON)

    expected = ("waiting", "the execution window is closed")
    assert verdict(fleet, made, NOON, NOON, tokyo) == expected


def test_another_time_zone_has_its_own_instant(fleet: Fleet) -> None:
    berlin, tokyo = fleet.device(timezone="Europe/Berlin"), fleet.device(timezone="Asia/Tokyo")
    made = daily(fleet, [berlin, tokyo], timezone="device", start_time="2100-01-01T00:00:00Z")
    at = NOON - HOUR
    assert verdict(fleet, made, at, NOON - DAY, berlin)[0] == "not yet due"
    # The same noon is meant, at the instant at which it was on the wall in Tokyo.
    answer = explain(fleet, made, at, NOON - DAY, tokyo)
    assert answer["verdict"] == "not yet due"
    assert answer["instant"].startswith("2100-01-01T03:00")
    assert answer["local_time"] == "Fri 2100-01-01 12:00"
    fleet.tick(NOON - 9 * HOUR)
    assert verdict(fleet, made, at, at - HOUR, berlin) == ("not yet due", "it is in the future")
    fleet.tick(at)

    for device in (berlin, tokyo):
        assert verdict(fleet, made, at, at, device)[0] == "waiting"
    answer = explain(fleet, made, at + HOUR, at, tokyo)
    assert (answer["verdict"], answer["nearest"]["after_local"]) == (
        "not due",
        "Sat 2100-01-02 12:00",
    )
    told = explain(fleet, made, at, at)
    assert [(row["zones"], row["status"]) for row in told["zones"]] == [
        (["Asia/Tokyo"], "done"),
        (["Europe/Berlin"], "done"),
    ]


def test_a_blackout_in_the_zone_of_the_device(fleet: Fleet) -> None:
    # Noon of Honolulu is the day after in Auckland: one instant, two dates.
    zones = ("Pacific/Honolulu", "Pacific/Kiritimati")
    honolulu, kiritimati = (fleet.device(timezone=zone) for zone in zones)
    calendar = fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Day off")
    fleet.insert(
        "blackout_periods",
        calendar_id=calendar["id"],
        owner_id=fleet.owner_id,
        starts_on="2100-01-03",
        ends_on="2100-01-04",
    )
    made = daily(
        fleet,
        [honolulu, kiritimati],
        timezone="device",
        start_time="2100-01-01T00:00:00Z",
        policies={"blackouts": ["Day off"]},
    )
    at = NOON.replace(day=2, hour=22)
    assert verdict(fleet, made, at, at - DAY, kiritimati) == ("blackout", "blackout")
    fleet.tick(at - DAY)
    for one in (honolulu, kiritimati):
        finish_all(fleet, one, at - DAY)
    fleet.tick_until_idle(at)

    assert verdict(fleet, made, at, at, honolulu)[0] == "waiting"
    answer = explain(fleet, made, at, at, kiritimati)
    assert (answer["verdict"], answer["detail"]) == (
        "blackout",
        "Sat 2100-01-02 22:00 UTC; Day off",
    )


def test_nothing_of_the_ledger_is_unknown_or_unexplained(fleet: Fleet, device: int) -> None:
    others = [fleet.device() for _ in range(3)]
    shapes: list[dict[str, Any]] = [
        {},
        {"overlap": "allow", "max_runs": 4},
        {"catchup": "all", "catchup_limit": 2, "overlap": "buffer_one"},
        {"catchup": "none", "overlap": "replace"},
        {"jitter": "3 minutes", "execution_window": {"from": "12:00", "to": "12:03"}},
        {"pause_on_failure": 1},
    ]
    all_made = [fleet.minutely([device, *others], NOON, policies=p) for p in shapes]
    for minutes in (0, 1, 2, 5, 6, 120, 121):
        now = NOON + minutes * MINUTE
        fleet.tick(now)
        finish_all(fleet, others[0], now)
        finish_all(fleet, others[1], now, "failed")
    now = NOON + 122 * MINUTE
    fleet.tick(now)
    strange = {}
    for made in all_made:
        for minutes in (*range(-1, 9), 60, 61, *range(119, 124)):
            at = NOON + minutes * MINUTE
            for one in (None, device, others[0], others[1]):
                answer = verdict(fleet, made, at, now, one)
                if answer[0] in ("unknown", "skipped"):
                    strange[made["id"], minutes, one] = answer

    assert strange == {}
