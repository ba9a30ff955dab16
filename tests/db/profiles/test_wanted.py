"""One wanted state for each device and profile: what comes first in the declared order."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.db.profiles.test_assignments import assign, drift, reconcile, take_all
from tests.helpers.mdm import Mdm


def end(mdm: Mdm, install: Any) -> dict[str, Any]:
    """End a temporary install, and give what became of its removal."""
    mdm.fleet.run("select end_profile(%s)", install["id"])
    mdm.tick(mdm.now(1))
    [removal] = mdm.fleet.commands(install["remove_schedule_id"])
    return removal


def policy(mdm: Mdm, action: str, profile: str = "7") -> int:
    location = mdm.fleet.value(
        "insert into locations (owner_id, name, latitude, longitude, radius_m)"
        " values (%s, 'place ' || gen_random_uuid(), 1, 1, 100) returning id",
        mdm.fleet.owner_id,
    )
    made: int = mdm.fleet.value(
        "insert into location_policies (owner_id, location_id, event, action_type, payload)"
        " values (%s, %s, 'enter', %s, %s::jsonb) returning id",
        *(mdm.fleet.owner_id, location, action, json.dumps({"profile_id": profile})),
    )
    return made


def arrive(mdm: Mdm, device: int, policy_id: int) -> None:
    """Let a device enter the location of a policy, and the MDM do what comes of it."""
    mdm.fleet.run(
        "insert into location_events (owner_id, device_id, location_id, location_name, event, at)"
        " select p.owner_id, %s, p.location_id, 'x', 'entered', clock_timestamp()"
        " from location_policies as p where p.id = %s",
        *(device, policy_id),
    )
    mdm.fleet.tick()
    take_all(mdm)


def installed(mdm: Mdm, device: int, profile: str = "7") -> bool:
    return bool(
        mdm.fleet.value(
            "select bool_or(is_installed) from device_profiles"
            " where device_id = %s and profile_id = %s",
            *(device, profile),
        )
    )


def test_the_end_of_a_temporary_install_leaves_what_is_assigned(mdm: Mdm) -> None:
    device = mdm.device()
    assign(mdm, device_ids=[device])
    take_all(mdm)
    install = mdm.install(device, "30 minutes")
    take_all(mdm)

    removal = end(mdm, install)

    assert removal["status"] == "completed"
    assert removal["result"] == {"kept": "it stays, because it is assigned"}
    assert take_all(mdm, mdm.now(120)) == []
    assert (drift(mdm), installed(mdm, device)) == ([], True)
    assert mdm.install_state(install)["state"] == "removed"


def test_what_was_assigned_meanwhile_goes_with_its_assignment(mdm: Mdm) -> None:
    device = mdm.device()
    install = mdm.install(device, "30 minutes")
    take_all(mdm)
    assignment = assign(mdm, device_ids=[device])
    assert end(mdm, install)["status"] == "completed"
    assert installed(mdm, device)

    mdm.fleet.run("select unassign_profile(%s)", assignment)

    assert take_all(mdm) == [(device, "remove_profile")]


def test_what_nobody_else_wants_is_removed_at_its_end(mdm: Mdm) -> None:
    device, other = mdm.device(), mdm.device()
    assign(mdm, device_ids=[other])
    assign(mdm, "8", device_ids=[device])
    take_all(mdm)
    install = mdm.install(device, "30 minutes")
    take_all(mdm)

    assert end(mdm, install)["status"] == "pending"
    assert take_all(mdm) == [(device, "remove_profile")]


def test_what_is_held_stays_too(mdm: Mdm) -> None:
    device = mdm.device()
    install = mdm.install(device, "30 minutes")
    take_all(mdm)
    mdm.fleet.insert(
        "profile_holds",
        **{"device_id": device, "profile_id": "7", "holder": "geo", "owner_id": mdm.fleet.owner_id},
    )

    assert end(mdm, install)["result"] == {"kept": "it stays, because it is held"}


def test_what_is_taken_away_at_a_border_is_not_brought_back_by_its_assignment(mdm: Mdm) -> None:
    device = mdm.device()
    assign(mdm, device_ids=[device])
    take_all(mdm)
    leaving = policy(mdm, "remove_profile")

    arrive(mdm, device, leaving)

    assert not installed(mdm, device)
    assert (drift(mdm), reconcile(mdm)) == ([], {"pushes": 0, "removals": 0})
    mdm.fleet.run("delete from location_policies where id = %s", leaving)
    assert reconcile(mdm) == {"pushes": 1, "removals": 0}


def test_what_a_border_has_brought_outlives_an_install_for_a_time(mdm: Mdm) -> None:
    device = mdm.device()
    install = mdm.install(device, "30 minutes")
    take_all(mdm)
    arrive(mdm, device, policy(mdm, "push_profile"))

    assert end(mdm, install)["result"] == {"kept": "it stays, because of where the device is"}


def test_the_latest_event_of_a_device_counts(mdm: Mdm) -> None:
    device = mdm.device()
    bring, take = policy(mdm, "push_profile"), policy(mdm, "remove_profile")
    assign(mdm, device_ids=[device])
    take_all(mdm)
    for wanted in (take, bring, take):
        arrive(mdm, device, wanted)

    assert not installed(mdm, device)
    assert drift(mdm) == []


def test_an_install_for_a_time_that_is_under_way_is_not_drift(mdm: Mdm) -> None:
    device = mdm.device()
    assignment = assign(mdm, device_ids=[device])
    take_all(mdm)
    mdm.install(device, "30 minutes")
    take_all(mdm)

    mdm.fleet.run("select unassign_profile(%s)", assignment)

    assert (drift(mdm), take_all(mdm), installed(mdm, device)) == ([], [], True)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("install_profile('7', {device}, '178000000 years')", "duration_invalid"),
        ("install_profile('7', {device}, '101 years')", "duration_invalid"),
        ("install_profile('7', {device}, '-1 second')", "duration_invalid"),
        ("install_profile('7', {device}, '1 hour', 'infinity')", "argument_invalid"),
        ("install_profile('7', {device}, '1 hour', '294276-01-01')", "argument_invalid"),
        ("install_profile('7', {device}, null, '-infinity')", "argument_invalid"),
        ("remove_profile('7', {device}, 'infinity')", "argument_invalid"),
        ("extend_profile({install}, '178000000 years')", "duration_invalid"),
        ("extend_profile({install}, '99 years 12 months')", "duration_invalid"),
        ("create_owner(null)", "owner_invalid"),
        ("create_owner('')", "owner_invalid"),
        ("create_owner('  ')", "owner_invalid"),
    ],
)
def test_odd_arguments_get_an_answer_in_words(mdm: Mdm, call: str, reason: str) -> None:
    device = mdm.device()
    install = mdm.install(mdm.device(), "1 hour")
    with mdm.fleet.refused("PT422", reason):
        mdm.fleet.run("select " + call.format(device=device, install=install["id"]))


def test_a_feed_of_an_owner_that_is_not_there_is_not_made(mdm: Mdm) -> None:
    with mdm.fleet.refused("PT404", "owner_not_found"):
        mdm.fleet.run("select create_calendar_feed('{}', 'x', gen_random_uuid())")


def test_what_is_finished_and_happens_once_is_history(mdm: Mdm) -> None:
    once = mdm.fleet.create(
        action_type="broadcast_message", device_ids=[mdm.device()], recurrence_type="once"
    )["id"]
    live = mdm.install(mdm.device(), "30 minutes")
    later: datetime = mdm.now() + timedelta(days=4000)

    def prune(table: str) -> int:
        return int(mdm.fleet.value("select fleet.prune_batch(%s, %s)", table, later))

    mdm.fleet.run("update device_commands set status = 'completed' where schedule_id = %s", once)
    mdm.fleet.tick()
    assert prune("public.schedules") == 0
    prune("public.schedule_runs")
    assert prune("public.schedules") >= 1
    kept = {row["id"] for row in mdm.fleet.rows("select id from schedules")}
    assert once not in kept
    assert {live["install_schedule_id"], live["remove_schedule_id"]} <= kept


def test_the_status_tells_of_all_history_how_large_and_how_old_it_is(mdm: Mdm) -> None:
    mdm.install(mdm.device(), "30 minutes")
    history = mdm.fleet.value("select fleet_status() -> 'engine' -> 'history'")
    names = {row["table"] for row in history}
    assert {"public.audit_log", "public.schedules", "public.mdm_api_logs"} <= names
    assert all(row["bytes"] >= 0 for row in history)
    [audit] = [row for row in history if row["table"] == "public.audit_log"]
    assert audit["oldest"] is not None and audit["kept_days"] == 400
