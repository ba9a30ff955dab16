"""Temporary profiles: two schedules that know of each other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

HALF = timedelta(minutes=30)
MINUTE = timedelta(minutes=1)


def test_a_temporary_install_is_two_schedules(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")

    push, removal = mdm.schedules(install)
    assert (push["action_type"], removal["action_type"]) == ("push_profile", "remove_profile")
    assert push["ui_initiated"] and removal["ui_initiated"]
    assert push["profile_id"] == removal["profile_id"] == "7"
    assert push["device_id"] == removal["device_id"] == install["device_id"]
    assert removal["start_time"] - push["start_time"] == HALF
    assert removal["next_run_at"] == removal["start_time"]


def test_without_a_duration_it_stays(mdm: Any) -> None:
    install = mdm.install(mdm.device())

    assert install["remove_schedule_id"] is None
    assert mdm.fleet.value("select count(*) from schedules") == 1


def test_it_is_executed_when_the_provider_accepts_and_not_before(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    (job,) = mdm.claim()

    assert (job["command_type"], job["payload"]) == ("push_profile", {"profile_id": "7"})
    assert mdm.schedules(install)[0]["last_executed_at"] is None
    taken = mdm.now()
    mdm.finish(job, "accepted", now=taken)
    assert mdm.schedules(install)[0]["last_executed_at"] == taken
    assert mdm.install_state(install)["state"] == "installed"


def test_the_tick_and_a_run_by_hand_leave_the_execution_to_the_provider(mdm: Any) -> None:
    device = mdm.device()
    later = mdm.install(device, "1 hour", mdm.now(60))
    mdm.tick(mdm.now(61))
    daily = mdm.fleet.create(
        action_type="push_profile",
        payload={"profile_id": "8"},
        device_ids=[device],
        recurrence_type="daily",
        recurrence_config={"time": "03:00"},
    )
    mdm.fleet.run("select run_schedule(%s)", daily["id"])

    assert mdm.schedules(later)[0]["execution_count"] == 1
    assert mdm.schedules(later)[0]["last_executed_at"] is None
    assert mdm.fleet.schedule(daily["id"])["last_executed_at"] is None
    for job in mdm.claim(now=mdm.now(62)):
        mdm.finish(job, "accepted")
    assert mdm.schedules(later)[0]["last_executed_at"] is not None
    assert mdm.fleet.schedule(daily["id"])["last_executed_at"] is not None


def test_an_agent_schedule_is_executed_when_its_run_starts(mdm: Any) -> None:
    made = mdm.fleet.create(
        action_type="lock", payload={}, device_ids=[mdm.device()], recurrence_type="once"
    )

    assert mdm.fleet.schedule(made["id"])["last_executed_at"] is not None


def test_it_goes_again_after_its_duration(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    (push,) = mdm.claim()
    mdm.finish(push, "completed")
    mdm.tick(mdm.now() + HALF - MINUTE)
    assert mdm.claim(now=mdm.now() + HALF - MINUTE) == []

    mdm.tick(mdm.now() + HALF)
    (removal,) = mdm.claim(now=mdm.now() + HALF)

    assert removal["command_type"] == "remove_profile"
    mdm.finish(removal, "completed", now=mdm.now() + HALF)
    seen = mdm.install_state(install)
    assert (seen["state"], seen["duration_minutes"]) == ("removed", 30)


def removals(mdm: Any, install: dict[str, Any]) -> list[Any]:
    """Give the removal of an install, while there is one."""
    query = "select * from schedules where id = %s"
    found: list[Any] = mdm.fleet.rows(query, install["remove_schedule_id"])
    return found


def test_the_removal_of_a_failed_push_goes_and_the_reason_stays(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    (push,) = mdm.claim()

    mdm.finish(push, "failed", error="object not found", reason="invalid_payload")

    assert removals(mdm, install) == []
    state = mdm.install_state(install)
    assert (state["state"], state["reason"]) == ("never installed", "object not found")


def test_a_failure_that_is_tried_again_cancels_nothing(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    for reason in ("network", "unavailable", "rate_limited", "error"):
        (push,) = mdm.claim(now=mdm.now() + MINUTE)
        answer = mdm.finish(push, "failed", error="no", reason=reason)
        assert answer["status"] == "pending", reason

    assert mdm.schedules(install)[1]["status"] == "active"


def test_a_push_that_expired_takes_its_removal_along(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "3 days")

    mdm.tick(mdm.now() + timedelta(hours=25))

    assert removals(mdm, install) == []
    assert mdm.install_state(install)["reason"].endswith("expired")


def test_a_push_that_is_cancelled_before_its_time_takes_its_removal_along(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "1 hour", mdm.now(3600))

    mdm.fleet.run("select cancel_schedule(%s, 'not today')", install["install_schedule_id"])
    mdm.tick(mdm.now())

    assert removals(mdm, install) == []
    assert mdm.install_state(install)["reason"].endswith("not today")


def test_a_command_that_is_cancelled_takes_the_removal_along(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "1 hour")
    (command,) = mdm.fleet.commands(install["install_schedule_id"])

    mdm.fleet.run("select cancel_command(%s, 'a mistake')", command["id"])
    mdm.tick(mdm.now())

    assert removals(mdm, install) == []
    assert mdm.install_state(install)["reason"].endswith("a mistake")


def test_both_schedules_can_be_cancelled_in_one_statement(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "1 hour")

    mdm.fleet.run("update schedules set status = 'cancelled'")
    mdm.tick(mdm.now())

    assert removals(mdm, install) == []
    push = mdm.fleet.schedule(install["install_schedule_id"])
    assert push["status"] == "cancelled"


def test_what_an_operator_may_not_cancel_the_tick_does(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "1 hour")
    (command,) = mdm.fleet.commands(install["install_schedule_id"])
    operator = mdm.person("view", "operate")
    with mdm.fleet.acting(operator):
        mdm.fleet.run("select cancel_command(%s)", command["id"])
    assert mdm.schedules(install)[1]["status"] == "active"

    mdm.tick(mdm.now())

    assert removals(mdm, install) == []


def test_a_late_push_keeps_its_duration(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "30 minutes")
    taken = mdm.now() + 10 * MINUTE
    (push,) = mdm.claim(now=taken)

    mdm.finish(push, "accepted", now=taken)

    assert mdm.schedules(install)[1]["start_time"] == taken + HALF
    assert mdm.schedules(install)[1]["next_run_at"] == taken + HALF


def test_a_removal_never_overtakes_its_push(mdm: Any) -> None:
    """The push waits for the provider for longer than the profile was to stay."""
    install = mdm.install(mdm.device(), "30 minutes")
    late = mdm.now() + HALF + MINUTE
    mdm.tick(late)
    (push,) = mdm.claim(now=late)
    assert push["command_type"] == "push_profile"
    assert mdm.claim(now=late) == []

    mdm.finish(push, "completed", now=late)

    assert mdm.claim(now=late + HALF - MINUTE) == []
    (removal,) = mdm.claim(now=late + HALF)
    assert removal["command_type"] == "remove_profile"
    mdm.finish(removal, "completed", now=late + HALF)
    state = mdm.install_state(install)
    assert state["removed_at"] - state["installed_at"] == HALF


def test_a_removal_is_made_up_for_after_a_long_stop(mdm: Any) -> None:
    mdm.install(mdm.device(), "30 minutes")
    (push,) = mdm.claim()
    mdm.finish(push, "completed")
    week = mdm.now() + timedelta(days=7)

    mdm.tick(week)

    assert [job["command_type"] for job in mdm.claim(now=week)] == ["remove_profile"]


def test_an_accepted_push_whose_effect_was_never_seen_is_still_removed(mdm: Any) -> None:
    install = mdm.install(mdm.device(), "3 days")
    (push,) = mdm.claim()
    mdm.finish(push, "accepted")

    mdm.tick(mdm.now() + timedelta(hours=25))

    (command,) = mdm.fleet.commands(install["install_schedule_id"])
    assert (command["status"], command["reason"]) == ("failed", "unknown")
    assert mdm.schedules(install)[1]["status"] == "active"
