"""However a temporary profile ends, the query that administrators keep at hand tells no lie."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.db.profiles.test_monitoring import PAIRS, STATUS

Mdm = Any
Install = dict[str, Any]


def end(mdm: Mdm, install: Install) -> None:
    mdm.fleet.run("select end_profile(%s)", install["id"])


def cancel_push(mdm: Mdm, install: Install) -> None:
    mdm.fleet.run("select cancel_schedule(%s, 'not today')", install["install_schedule_id"])


def cancel_removal(mdm: Mdm, install: Install) -> None:
    mdm.fleet.run("select cancel_schedule(%s, 'it stays')", install["remove_schedule_id"])


def cancel_command(mdm: Mdm, install: Install) -> None:
    (command,) = mdm.fleet.commands(install["install_schedule_id"])
    mdm.fleet.run("select cancel_command(%s)", command["id"])


def cancel_both(mdm: Mdm, install: Install) -> None:
    mdm.fleet.run("update schedules set status = 'cancelled'")


def cancel_by_hand(mdm: Mdm, install: Install) -> None:
    manager = mdm.person("view", "manage")
    with mdm.fleet.acting(manager):
        cancel_push(mdm, install)


def retire(mdm: Mdm, install: Install) -> None:
    mdm.fleet.run("update devices set status = 'retired' where id = %s", install["device_id"])


def remove(mdm: Mdm, install: Install) -> None:
    answer = mdm.fleet.row("select s.* from remove_profile('7', %s) as s", install["device_id"])
    assert answer["id"] == install["remove_schedule_id"]
    assert answer["action_type"] == "remove_profile"


def keep_for_good(mdm: Mdm, install: Install) -> None:
    mdm.install(install["device_id"])


def wait(mdm: Mdm, install: Install) -> None:
    """Let it expire."""


def refuse(mdm: Mdm, install: Install) -> None:
    mdm.finish(mdm.claim()[0], "failed", reason="invalid_payload", error="object not found")


def end_while_sent(mdm: Mdm, install: Install) -> None:
    (push,) = mdm.claim()
    end(mdm, install)
    mdm.finish(push, "completed")
    at = mdm.now(1)
    mdm.finish(mdm.claim(now=at)[0], "completed", now=at)


def take(mdm: Mdm) -> None:
    mdm.finish(mdm.claim()[0], "completed")


HOUR = timedelta(hours=1)
# When it ends, how, what is then told of push and removal, and what the pair is.
AHEAD = [
    (end, [], "never installed"),
    (cancel_push, [], "never installed"),
    (cancel_by_hand, [], "never installed"),
    (cancel_both, [], "never installed"),
]
WAITING = [
    (end, ["push_profile"], "never installed"),
    (remove, ["push_profile"], "never installed"),
    (cancel_push, ["push_profile"], "never installed"),
    (cancel_both, ["push_profile"], "never installed"),
    (cancel_command, ["push_profile"], "never installed"),
    (retire, ["push_profile"], "never installed"),
    (wait, ["push_profile"], "never installed"),
    (refuse, ["push_profile"], "never installed"),
    (end_while_sent, ["push_profile", "remove_profile"], "removed"),
]
INSTALLED = [
    (cancel_removal, ["push_profile"], "removal cancelled"),
    (keep_for_good, ["push_profile"], None),
    (retire, ["push_profile", "remove_profile"], "removal failed"),
]


def told(mdm: Mdm) -> list[str]:
    """Give what is told as executed; nothing else may be told of what is over."""
    rows = mdm.fleet.rows(STATUS)
    assert {row["status"] for row in rows} <= {"Executed"}, rows
    return sorted(row["action_type"] for row in rows)


def state(mdm: Mdm, install: Install) -> tuple[Any, Any]:
    query = "select state, reason from temporary_profiles where install_id = %s"
    found = mdm.fleet.rows(query, install["id"])
    return (found[0]["state"], found[0]["reason"]) if found else (None, None)


Case = tuple[Callable[[Mdm, Install], None], list[str], str | None]


@pytest.mark.parametrize("case", AHEAD, ids=lambda case: case[0].__name__)
def test_what_is_called_off_before_its_time_leaves_at_once(mdm: Mdm, case: Case) -> None:
    how, executed, ends = case
    install = mdm.install(mdm.device(), "30 minutes", mdm.now(3600))
    planned = mdm.install_state(install)

    how(mdm, install)

    assert told(mdm) == executed
    mdm.tick(mdm.now() + 2 * HOUR)
    assert (told(mdm), mdm.fleet.rows(PAIRS)) == (executed, [])
    after = mdm.install_state(install)
    assert after["state"] == ends and after["reason"]
    assert after["install_time"] == planned["install_time"]
    log = "select count(*) from audit_log where table_name = 'schedules' and action = 'delete'"
    assert mdm.fleet.value(log) == 2


@pytest.mark.parametrize("case", WAITING, ids=lambda case: case[0].__name__)
def test_a_push_that_ends_while_it_waits_is_over(mdm: Mdm, case: Case) -> None:
    how, executed, ends = case
    install = mdm.install(mdm.device(), "3 days")

    how(mdm, install)
    mdm.tick(mdm.now() + 25 * HOUR)

    assert told(mdm) == executed
    assert state(mdm, install)[0] == ends
    assert len(mdm.fleet.rows(PAIRS)) <= len(executed) - 1


@pytest.mark.parametrize("case", INSTALLED, ids=lambda case: case[0].__name__)
def test_a_removal_that_never_comes_is_not_due_for_ever(mdm: Mdm, case: Case) -> None:
    how, executed, ends = case
    install = mdm.install(mdm.device(), "30 minutes")
    take(mdm)
    planned = mdm.install_state(install)["scheduled_removal_time"]

    how(mdm, install)
    mdm.tick(mdm.now() + HOUR)

    assert told(mdm) == executed
    found, reason = state(mdm, install)
    assert found == ends
    if found is not None:
        assert reason
        assert mdm.install_state(install)["scheduled_removal_time"] == planned


def test_a_removal_that_is_called_off_before_the_push_leaves_the_push_pending(mdm: Mdm) -> None:
    install = mdm.install(mdm.device(), "30 minutes", mdm.now(3600))

    cancel_removal(mdm, install)

    (row,) = mdm.fleet.rows(STATUS)
    assert (row["action_type"], row["status"]) == ("push_profile", "Pending")
    assert state(mdm, install) == ("removal cancelled", "it stays")


def test_what_was_scheduled_by_hand_leaves_as_well(mdm: Mdm) -> None:
    later = mdm.now(3600).isoformat()
    push = {"action_type": "push_profile", "payload": {}, "profile_id": "9", "start_time": later}
    made = mdm.fleet.create(**push, device_ids=[mdm.device()])

    answer = mdm.fleet.row("select s.* from cancel_schedule(%s, 'no') as s", made["id"])

    assert (answer["status"], answer["status_reason"]) == ("cancelled", "no")
    assert told(mdm) == []


def test_what_followed_one_that_left_is_paused_with_the_reason(mdm: Mdm) -> None:
    push = {"action_type": "push_profile", "payload": {}, "profile_id": "9"}
    device = [mdm.device()]
    once = mdm.fleet.create(**push, start_time=mdm.now(3600).isoformat(), device_ids=device)
    after = {"schedule_id": once["id"]}
    follower = mdm.fleet.create(action_type="lock", device_ids=device, after=after)

    mdm.fleet.run("select cancel_schedule(%s, 'no longer wanted')", once["id"])

    assert told(mdm) == []
    left = mdm.fleet.schedule(follower["id"])
    assert (left["status"], left["after_schedule_id"]) == ("paused", None)
    assert "was cancelled before it ran: no longer wanted" in left["status_reason"]


def test_an_install_that_was_called_off_has_its_end_in_history(mdm: Mdm) -> None:
    install = mdm.install(mdm.device(), "30 minutes", mdm.now(3600))
    end(mdm, install)
    prune = "select fleet.prune_batch('public.profile_installs', now() + %s::interval)"

    assert mdm.fleet.value(prune, "29 days") == 0
    assert mdm.fleet.value(prune, "31 days") == 1


@pytest.mark.parametrize("action", ["push_profile", "remove_profile"])
def test_what_recurs_and_is_cancelled_before_it_ever_ran_is_told_no_more(
    mdm: Mdm, action: str
) -> None:
    made = mdm.fleet.create(
        action_type=action,
        payload={"profile_id": "7"},
        device_ids=[mdm.device()],
        recurrence_type="daily",
        recurrence_config={"time": "03:00"},
    )
    assert [row["status"] for row in mdm.fleet.rows(STATUS)] != []
    mdm.fleet.run("select cancel_schedule(%s)", made["id"])

    assert told(mdm) == []
