"""Extending, ending and repeating a temporary profile: its schedules move, and no row is made."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

HALF = timedelta(minutes=30)
HOUR = timedelta(hours=1)


@pytest.fixture
def live(mdm: Any) -> Any:
    """Install a profile for half an hour, taken by the provider."""
    install = mdm.install(mdm.device(), "30 minutes")
    (push,) = mdm.claim()
    mdm.finish(push, "completed")
    return install


def count(mdm: Any) -> int:
    return int(mdm.fleet.value("select count(*) from schedules"))


def test_extending_moves_the_removal(mdm: Any, live: Any) -> None:
    before = mdm.schedules(live)[1]

    mdm.fleet.run("select extend_profile(%s, '1 hour')", live["id"])

    after = mdm.schedules(live)[1]
    assert after["id"] == before["id"]
    assert after["start_time"] == after["next_run_at"] == before["start_time"] + HOUR
    assert mdm.install_state(live)["duration_minutes"] == 90


def test_ending_removes_at_once(mdm: Any, live: Any) -> None:
    mdm.fleet.run("select end_profile(%s)", live["id"])

    (removal,) = mdm.claim()
    assert removal["command_type"] == "remove_profile"
    assert mdm.install_state(live)["state"] == "removing"


def test_ending_before_it_began_calls_both_off(mdm: Any) -> None:
    install_time = mdm.now(3600)
    install = mdm.install(mdm.device(), "30 minutes", install_time)

    mdm.fleet.run("select end_profile(%s)", install["id"])

    assert mdm.fleet.rows("select id from schedules") == []
    state = mdm.install_state(install)
    assert (state["state"], state["reason"]) == ("never installed", "ended before it began")
    assert state["install_time"] == install_time


def test_ending_while_the_push_waits_calls_both_off(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")

    mdm.fleet.run("select end_profile(%s)", install["id"])

    assert mdm.claim() == []
    (command,) = mdm.fleet.commands(install["install_schedule_id"])
    assert command["status"] == "cancelled"


def test_ending_while_the_push_is_sent_removes_what_it_installs(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    (push,) = mdm.claim()

    mdm.fleet.run("select end_profile(%s)", install["id"])
    assert mdm.claim() == []
    mdm.finish(push, "completed")

    (removal,) = mdm.claim(now=mdm.now(1))
    assert removal["command_type"] == "remove_profile"


def test_installing_again_moves_the_removal_and_makes_no_row(mdm: Any, live: Any) -> None:
    before = count(mdm)
    later = mdm.now(60)

    again = mdm.install(live["device_id"], "2 hours", later)

    assert again["id"] == live["id"]
    assert count(mdm) == before
    assert mdm.schedules(live)[1]["start_time"] == later + 2 * HOUR


def test_installing_again_while_the_push_waits_makes_no_row(mdm: Any) -> None:
    device = mdm.device()
    first = mdm.install(device, "30 minutes")

    assert mdm.install(device, "30 minutes")["id"] == first["id"]
    assert len(mdm.claim()) == 1


def test_installing_again_for_good_cancels_the_removal(mdm: Any, live: Any) -> None:
    again = mdm.install(live["device_id"])

    assert (again["id"], again["duration"]) == (live["id"], None)
    gone = mdm.fleet.rows("select id from schedules where id = %s", live["remove_schedule_id"])
    assert gone == []


def test_another_profile_or_device_is_another_install(mdm: Any, live: Any) -> None:
    assert mdm.install(live["device_id"], "1 hour", profile="8")["id"] != live["id"]
    assert mdm.install(mdm.device(), "1 hour")["id"] != live["id"]


def test_after_its_removal_installing_is_a_new_pair(mdm: Any, live: Any) -> None:
    mdm.fleet.run("select end_profile(%s)", live["id"])
    (removal,) = mdm.claim()
    mdm.finish(removal, "completed")

    again = mdm.install(live["device_id"], "1 hour")

    assert again["id"] != live["id"]
    assert mdm.install_state(again)["state"] == "waiting"


def test_removing_a_temporary_profile_uses_its_own_removal(mdm: Any, live: Any) -> None:
    made = mdm.fleet.row("select s.* from remove_profile('7', %s) as s", live["device_id"])

    assert made["id"] == live["remove_schedule_id"]
    assert [job["command_type"] for job in mdm.claim()] == ["remove_profile"]


def test_removing_one_that_stays_is_a_schedule_of_its_own(mdm: Any) -> None:
    device = mdm.device()
    (push,) = (mdm.install(device), *mdm.claim())[1:]
    mdm.finish(push, "completed")

    made = mdm.fleet.row("select s.* from remove_profile('7', %s) as s", device)

    assert (made["action_type"], made["ui_initiated"]) == ("remove_profile", True)
    assert [job["command_type"] for job in mdm.claim()] == ["remove_profile"]


def test_what_is_over_can_not_be_extended(mdm: Any, live: Any) -> None:
    mdm.fleet.run("select end_profile(%s)", live["id"])
    (removal,) = mdm.claim()
    mdm.finish(removal, "completed")

    for call in ("extend_profile(%s, '1 hour')", "end_profile(%s)"):
        with mdm.fleet.refused("PT409", "profile_install_over"):
            mdm.fleet.run(f"select {call}", live["id"])


@pytest.mark.parametrize("duration", ["0 seconds", "-5 minutes"])
def test_a_duration_is_longer_than_nothing(mdm: Any, live: Any, duration: str) -> None:
    with mdm.fleet.refused("PT422", "duration_invalid"):
        mdm.install(mdm.device(), duration)
    with mdm.fleet.refused("PT422", "duration_invalid"):
        mdm.fleet.run("select extend_profile(%s, %s)", live["id"], duration)


def test_wrong_devices_and_profiles_are_named(mdm: Any) -> None:
    device = mdm.device()
    with mdm.fleet.refused("PT422", "profile_missing"):
        mdm.install(device, profile=" ")
    with mdm.fleet.refused("PT404", "device_not_found"):
        mdm.install(999_999_999)
    mdm.fleet.run("select retire_device(%s)", device)
    with mdm.fleet.refused("PT409", "device_retired"):
        mdm.install(device)


def test_whoever_may_only_look_installs_nothing(mdm: Any) -> None:
    device = mdm.device()
    viewer, manager = mdm.person("view"), mdm.person("view", "manage")
    with mdm.fleet.refused("PT403", "permission_missing"), mdm.fleet.acting(viewer):
        mdm.install(device, "1 hour")
    with mdm.fleet.acting(manager):
        made = mdm.install(device, "1 hour")
        assert mdm.install_state(made)["state"] == "waiting"
