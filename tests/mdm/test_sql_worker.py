"""What the function mdm-dispatch says to the database, and what comes of it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.mdm.conftest import SECRET

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def test_a_claim_says_all_that_a_call_needs(mdm: Any) -> None:
    device = mdm.device("phone-1")
    mdm.install(device)

    (job,) = mdm.claim()

    assert job["hostname"] == "phone-1"
    assert job["external_id"] == str(100_000 + device)
    assert (job["integration_id"], job["integration_type"]) == (mdm.id, "simplemdm")
    assert (job["phase"], job["attempt"], job["secret"]) == ("send", 1, SECRET)


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
    assert (look["phase"], look["command_id"]) == ("settle", command["id"])
    assert mdm.finish(look, "accepted")["status"] == "running"
    (again,) = mdm.claim(now=mdm.now(600))
    mdm.finish(again, "completed", result={"lost_mode_enabled": True})

    found = mdm.fleet.command(command["id"])
    assert (found["status"], found["result"]) == ("completed", {"lost_mode_enabled": True})
    assert mdm.fleet.value("select count(*) from fleet.mdm_work") == 0


def test_a_look_that_fails_does_not_repeat_the_command(mdm: Any) -> None:
    mdm.fleet.send(mdm.device(), "mdm_restart")
    (sent,) = mdm.claim()
    mdm.finish(sent, "accepted")
    (look,) = mdm.claim(now=mdm.now(60))

    assert mdm.finish(look, "failed", reason="unavailable")["status"] == "running"
    assert [job["phase"] for job in mdm.claim(now=mdm.now(3600))] == ["settle"]


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


@pytest.mark.parametrize("kind", ["mdm_wipe", "mdm_unenroll"])
def test_what_ends_data_needs_a_permission_and_a_confirmation(mdm: Any, kind: str) -> None:
    device = mdm.device()
    operator = mdm.person("view", "operate")
    allowed = mdm.person("view", "operate", "destructive")
    with mdm.fleet.refused("PT403", "permission_missing"), mdm.fleet.acting(operator):
        mdm.fleet.send(device, kind, p_payload={"confirm": True})
    for payload in ({}, {"confirm": False}):
        with mdm.fleet.refused("PT422", "command_invalid"), mdm.fleet.acting(allowed):
            mdm.fleet.send(device, kind, p_payload=payload)
    with mdm.fleet.acting(allowed):
        assert mdm.fleet.send(device, kind, p_payload={"confirm": True})["status"] == "pending"


def test_calls_are_logged_without_the_secret(mdm: Any) -> None:
    basic = "TURNLWtleTo="
    calls = [
        {
            "integration_id": mdm.id,
            "command_id": 5,
            "attempt": 2,
            "method": "POST",
            "url": f"https://mdm.example.com/?key={SECRET}",
            "status": 202,
            "duration_ms": 12.4,
            "request_body": {"key": SECRET},
            "response_body": f"you said {SECRET} {basic}",
        }
    ]

    mdm.fleet.run("select fleet.worker_log_mdm_calls(%s::jsonb)", json.dumps(calls))

    row = mdm.fleet.row("select * from mdm_api_logs")
    assert (row["status"], row["duration_ms"], row["attempt"]) == (202, 12, 2)
    assert SECRET not in str(row)
    assert row["owner_id"] == mdm.fleet.owner_id
