"""What the function mdm-dispatch says to the database, and what comes of it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.helpers.mdm import SECRET

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def test_a_claim_says_all_that_a_call_needs(mdm: Any) -> None:
    device = mdm.device("phone-1")
    mdm.install(device)

    (job,) = mdm.claim()

    assert job["hostname"] == "phone-1"
    assert job["external_id"] == str(100_000 + device)
    assert (job["integration_id"], job["integration_type"]) == (mdm.id, "simplemdm")
    assert (job["phase"], job["attempt"], job["secret"]) == ("sends", 1, SECRET)


def test_what_is_leased_is_not_claimed_again_until_the_lease_ends(mdm: Any) -> None:
    mdm.install(mdm.device())
    (first,) = mdm.claim()
    assert mdm.claim(now=mdm.now(30)) == []

    (second,) = mdm.claim(now=mdm.now(90))

    assert second["attempt"] == first["attempt"] + 1
    assert mdm.finish(first, "accepted") == {"accepted": False, "reason": "stale_attempt"}
    assert mdm.finish(second, "accepted")["accepted"] is True


def test_what_may_not_be_repeated_ends_with_its_lease(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.device(), "mdm_restart")
    assert len(mdm.claim()) == 1

    assert mdm.claim(now=mdm.now(90)) == []

    found = mdm.fleet.command(command["id"])
    assert (found["status"], found["reason"]) == ("failed", "interrupted")


def test_a_broken_connection_ends_what_may_not_be_repeated(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.device(), "mdm_restart")
    (job,) = mdm.claim()

    assert mdm.finish(job, "failed", reason="network", error="reset")["status"] == "failed"
    assert mdm.fleet.command(command["id"])["reason"] == "interrupted"


def test_what_was_not_sent_is_sent_again(mdm: Any) -> None:
    mdm.fleet.send(mdm.device(), "mdm_restart")
    (job,) = mdm.claim()

    assert mdm.finish(job, "failed", reason="rate_limited")["status"] == "pending"


def test_an_accepted_command_is_watched_until_its_effect_shows(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.device(), "mdm_lost_mode_on", p_payload={"message": "call me"})
    (sent,) = mdm.claim()
    answer = mdm.finish(sent, "accepted", retry_after=timedelta(seconds=5))
    assert answer["status"] == "running"
    assert mdm.claim() == []

    (look,) = mdm.claim(now=mdm.now(6))
    assert (look["phase"], look["command_id"]) == ("looks", command["id"])
    assert mdm.claim(now=mdm.now(20)) == []
    assert mdm.saw(look, "accepted", result={"last_seen_at": "then"}) == {"accepted": 1}
    (again,) = mdm.claim(now=mdm.now(600))
    assert again["result"] == {"last_seen_at": "then"}
    assert mdm.saw(again, "completed", result={"lost_mode_enabled": True}) == {"completed": 1}

    found = mdm.fleet.command(command["id"])
    assert (found["status"], found["result"]) == ("completed", {"lost_mode_enabled": True})
    assert mdm.fleet.value("select count(*) from fleet.mdm_work") == 0
    assert mdm.saw(again, "failed") == {}


def test_a_look_can_tell_that_it_will_not_happen(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.device(), "mdm_refresh")
    mdm.finish(mdm.claim()[0], "accepted")
    (look,) = mdm.claim(now=mdm.now(60))

    mdm.saw(look, "failed", reason="refused", error=f"gone, says {SECRET}")

    found = mdm.fleet.command(command["id"])
    assert (found["status"], found["reason"]) == ("failed", "refused")
    assert found["error_message"] == "gone, says ***"


def test_a_function_killed_while_it_looked_repeats_nothing(mdm: Any) -> None:
    mdm.fleet.send(mdm.device(), "mdm_restart")
    (sent,) = mdm.claim()
    mdm.finish(sent, "accepted")
    (look,) = mdm.claim(now=mdm.now(60))

    assert mdm.claim(now=mdm.now(70)) == []
    (again,) = mdm.claim(now=mdm.now(3600))

    assert (again["phase"], again["attempt"]) == ("looks", look["attempt"])


def test_looks_are_made_together_and_take_one_call_in_five_at_most(mdm: Any) -> None:
    for _ in range(60):
        mdm.fleet.send(mdm.device(), "mdm_refresh")
    for _ in range(12):
        for job in mdm.claim(now=mdm.now(60)):
            mdm.finish(job, "accepted", now=mdm.now(60))
        mdm.fleet.run("update fleet.rate_limits set tokens = 5, looked_at = null")
    for _ in range(20):
        mdm.fleet.send(mdm.device(), "mdm_refresh")

    later = mdm.now(90)
    first, at_once = mdm.claim(now=later), mdm.claim(now=later + timedelta(seconds=0.1))

    assert [job["phase"] for job in first] == ["sends"] * 4 + ["looks"] * 60
    assert [job["phase"] for job in at_once] == ["sends"] * 2


def test_failures_that_pass_are_tried_until_the_command_expires(mdm: Any) -> None:
    mdm.install(mdm.device())
    at = mdm.now()
    for _ in range(12):
        at += 10 * MINUTE
        (job,) = mdm.claim(now=at)
        assert mdm.finish(job, "failed", reason="unavailable", now=at)["status"] == "pending"
    mdm.tick(mdm.now() + 24 * HOUR)

    assert mdm.fleet.command(job["command_id"])["status"] == "expired"


def test_a_provider_that_asks_for_time_gets_it(mdm: Any) -> None:
    mdm.install(mdm.device())
    (job,) = mdm.claim()

    mdm.finish(job, "failed", reason="rate_limited", retry_after=10 * MINUTE)

    assert mdm.claim(now=mdm.now(590)) == []
    assert len(mdm.claim(now=mdm.now(750))) == 1


def test_what_cannot_succeed_fails_at_once_with_the_providers_words(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.device(), "push_profile", p_payload={"profile_id": "0"})
    (job,) = mdm.claim()

    mdm.finish(job, "failed", reason="invalid_payload", error="object not found")

    found = mdm.fleet.command(command["id"])
    assert (found["status"], found["error_message"]) == ("failed", "object not found")


def test_the_same_finish_again_is_the_same_success(mdm: Any) -> None:
    mdm.install(mdm.device())
    (job,) = mdm.claim()

    assert mdm.finish(job, "completed") == mdm.finish(job, "completed")
    assert mdm.finish(job, "failed") == {"accepted": False, "reason": "already_final"}


def test_a_device_in_no_mdm_fails_at_once(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.fleet.device(), "mdm_refresh")

    assert mdm.claim() == []

    found = mdm.fleet.command(command["id"])
    assert (found["status"], found["reason"]) == ("failed", "no_mdm_link")


def test_an_agent_never_gets_what_is_for_the_mdm(mdm: Any) -> None:
    device = mdm.device()
    mdm.install(device)

    assert mdm.fleet.claim(device) == []


def test_a_look_that_takes_many_calls_keeps_the_next_one_away_from_what_is_to_be_sent(
    mdm: Any,
) -> None:
    for _ in range(2):
        mdm.fleet.send(mdm.device(), "mdm_refresh")
        mdm.finish(mdm.claim()[0], "accepted")
    assert [job["phase"] for job in mdm.claim(now=mdm.now(60))] == ["looks"] * 2
    mdm.fleet.run("update fleet.mdm_work set held_until = null, due_at = now()")
    reserve = "select fleet.worker_reserve_call(%s, '5 seconds', true, %s) ->> 'granted'"
    for _ in range(20):
        assert mdm.fleet.value(reserve, mdm.id, mdm.now(60)) == "true"
    mdm.fleet.run("update fleet.rate_limits set tokens = 1")

    # 20 a second, one in five: 21 calls are what there is for looks in five seconds.
    mdm.fleet.send(mdm.device(), "mdm_refresh")
    assert [job["phase"] for job in mdm.claim(now=mdm.now(64))] == ["sends"]
    assert [job["phase"] for job in mdm.claim(now=mdm.now(64.5))] == ["looks"] * 2


def test_calls_are_logged_without_the_secret(mdm: Any) -> None:
    basic = "bWRtLWtleS01ZjFhNzdjMDo="
    call = {
        "integration_id": mdm.id,
        "command_id": 5,
        "attempt": 2,
        "method": "POST",
        "url": f"https://mdm.example.com/?key={SECRET}",
        "request_body": f"key={SECRET}",
    }
    answer = {"status": 202, "duration_ms": 12.4, "response_body": f"you said {SECRET} {basic}"}

    begun = mdm.fleet.value("select fleet.worker_begin_mdm_call(%s::jsonb)", json.dumps(call))
    before = mdm.fleet.row("select * from mdm_api_logs")
    calls = json.dumps([{**call, **answer, "id": begun}])
    mdm.fleet.run("select fleet.worker_log_mdm_calls(%s::jsonb)", calls)

    row = mdm.fleet.row("select * from mdm_api_logs")
    assert (before["id"], before["status"], before["error"]) == (row["id"], None, None)
    assert (row["status"], row["duration_ms"], row["attempt"]) == (202, 12, 2)
    assert SECRET not in str(row) and basic not in str(row)
    assert row["owner_id"] == mdm.fleet.owner_id


def test_an_attempt_whose_function_was_killed_is_in_the_log(mdm: Any) -> None:
    for _ in range(2):
        mdm.fleet.send(mdm.device(), "mdm_refresh")
    calling, waiting = mdm.claim()
    call = {"integration_id": mdm.id, "method": "POST", "url": "https://mdm.example.com/refresh"}
    call |= {"command_id": calling["command_id"], "attempt": calling["attempt"]}
    mdm.fleet.run("select fleet.worker_begin_mdm_call(%s::jsonb)", json.dumps(call))

    again = mdm.claim(now=mdm.now(90))

    assert [job["attempt"] for job in again] == [2, 2]
    assert all(job["unanswered_at"] for job in again)
    rows = mdm.fleet.rows("select command_id, attempt, method, error from mdm_api_logs order by id")
    assert [tuple(row.values()) for row in rows] == [
        (calling["command_id"], 1, "POST", "the function stopped before it wrote down an answer"),
        (waiting["command_id"], 1, None, "the function stopped before it called"),
    ]


def test_an_attempt_without_a_call_says_why(mdm: Any) -> None:
    command = mdm.fleet.send(mdm.device(), "mdm_refresh")
    (job,) = mdm.claim()

    mdm.finish(job, "failed", reason="invalid_payload", error="it needs a pin")

    row = mdm.fleet.row("select * from mdm_api_logs")
    assert (row["command_id"], row["attempt"]) == (command["id"], 1)
    assert (row["method"], row["url"], row["error"]) == (None, None, "it needs a pin")


def test_a_device_that_is_linked_later_gets_what_waits_for_it(mdm: Any) -> None:
    device = mdm.fleet.device()
    mdm.fleet.send(device, "mdm_refresh", p_not_before=mdm.now(60))
    mdm.fleet.insert(
        "device_links",
        device_id=device,
        integration_id=mdm.id,
        owner_id=mdm.fleet.owner_id,
        external_id="77",
    )

    (job,) = mdm.claim(now=mdm.now(61))

    assert job["external_id"] == "77"


@pytest.mark.parametrize(
    "event",
    [
        "update device_links set left_at = now()",
        "delete from device_links",
        "update device_integrations set status = 'disabled'",
        "delete from device_integrations",
    ],
)
def test_what_waits_for_a_device_that_left_fails_with_a_reason(mdm: Any, event: str) -> None:
    command = mdm.fleet.send(mdm.device(), "mdm_refresh")
    mdm.fleet.run(event)

    assert mdm.claim() == []

    assert mdm.fleet.command(command["id"])["reason"] == "no_mdm_link"


def test_a_device_that_moves_to_another_mdm_takes_its_commands_along(mdm: Any) -> None:
    device = mdm.device()
    mdm.fleet.send(device, "mdm_refresh")
    spec = {"integration_type": "nanomdm", "owner_id": str(mdm.fleet.owner_id)}
    spec["settings"] = {"base_url": "https://mdm.example.com"}
    other = mdm.fleet.value("select id from create_integration(%s::jsonb)", json.dumps(spec))
    mdm.fleet.insert(
        "device_links",
        device_id=device,
        integration_id=other,
        owner_id=mdm.fleet.owner_id,
        external_id="udid",
    )
    mdm.fleet.run("update device_links set left_at = now() where integration_id = %s", mdm.id)

    (job,) = mdm.claim()

    assert (job["integration_id"], job["external_id"]) == (other, "udid")


def test_many_that_wait_for_one_mdm_are_in_nobodys_way(mdm: Any) -> None:
    for _ in range(30):
        mdm.fleet.send(mdm.device(), "mdm_refresh")
    mdm.fleet.run("select pause_integration(%s)", mdm.id)
    spec = {"name": "b", "integration_type": "simplemdm", "owner_id": str(mdm.fleet.owner_id)}
    other = mdm.fleet.value("select id from create_integration(%s::jsonb, 'k')", json.dumps(spec))
    mdm.id = other
    command = mdm.fleet.send(mdm.device(), "mdm_refresh")

    assert [job["command_id"] for job in mdm.claim(limit=1)] == [command["id"]]
