"""Exporting schedules and applying documents."""

from __future__ import annotations

import json

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.documents import LATER, apply, document, export, lock
from tests.helpers.fleet import Fleet


@pytest.fixture
def school(fleet: Fleet) -> Fleet:
    """Give a fleet with one of everything that a document may hold."""
    first, second = fleet.device("Lab-01"), fleet.device("lab-02")
    static = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="Labs", description="Rooms 1 to 3"
    )["id"]
    fleet.insert("device_group_members", group_id=static, device_id=second)
    fleet.insert("device_groups", owner_id=fleet.owner_id, name="Red", selector={"tags": ["red"]})
    fleet.value(
        "select create_blackout_calendar('Holidays', %s, 'School', %s)",
        Jsonb(
            [
                {"starts_on": "2026-12-21", "ends_on": "2027-01-04", "summary": "Winter"},
                {"starts_at": "2026-05-01T00:00:00+02:00", "ends_at": "2026-05-01T12:00:00Z"},
            ]
        ),
        fleet.owner_id,
    )
    nightly = fleet.create(
        **lock("Nightly"),
        payload={},
        description="Locks up",
        device_ids=[first, second],
        group_ids=[static],
        timezone="Europe/Berlin",
        end_time="2999-12-31T23:00:00",
        priority=3,
        policies={"overlap": "buffer_one", "blackouts": ["Holidays"]},
    )
    fleet.create(
        name="Then tell",
        selector={"platform": ["linux"]},
        after={"schedule_id": nightly["id"], "on": "failed"},
    )
    paused = fleet.create(**lock("Away"), payload={})
    fleet.run("select pause_schedule(%s)", paused["id"])
    fleet.create(name="Once", device_ids=[first], start_time=LATER, timezone="device")
    gone = fleet.create(**lock("Gone"), payload={})
    fleet.run("select cancel_schedule(%s)", gone["id"])
    fleet.value(
        "select create_template(%s)",
        Jsonb(
            {
                "name": "Lock",
                "spec": {"name": "{{n}}", "action_type": "lock", "groups": ["Labs"]},
                "parameters": {"n": {"type": "string"}},
                "owner_id": str(fleet.owner_id),
            }
        ),
    )
    return fleet


def test_a_document_knows_no_ids_and_no_owner(school: Fleet) -> None:
    made = export(school)
    text = json.dumps(made)
    assert "_id" not in text.replace("profile_id", "")
    assert str(school.owner_id) not in text
    assert [row["name"] for row in made["schedules"]] == ["Away", "Nightly", "Once", "Then tell"]
    nightly = made["schedules"][1]
    assert nightly == {
        "name": "Nightly",
        "description": "Locks up",
        "action_type": "lock",
        "recurrence_type": "daily",
        "recurrence_config": {"time": "06:30"},
        "start_time": LATER,
        "end_time": "2999-12-31T23:00:00",
        "timezone": "Europe/Berlin",
        "devices": ["Lab-01", "lab-02"],
        "groups": ["Labs"],
        "selector": {},
        "policies": {"overlap": "buffer_one", "blackouts": ["Holidays"]},
        "priority": 3,
    }
    assert made["schedules"][3]["after"] == {"schedule": "Nightly", "on": "failed"}
    assert made["groups"][0]["devices"] == ["lab-02"]


def test_the_round_trip_over_an_empty_fleet_gives_the_same_document(school: Fleet) -> None:
    there = Fleet(school.conn)
    there.device("LAB-01")
    there.device("Lab-02")
    before = export(school)
    plan = apply(there, before)

    assert [(item["kind"], item["name"]) for item in plan["create"]] == [
        ("group", "Labs"),
        ("group", "Red"),
        ("calendar", "Holidays"),
        ("template", "Lock"),
        ("schedule", "Away"),
        ("schedule", "Nightly"),
        ("schedule", "Once"),
        ("schedule", "Then tell"),
    ]
    assert (plan["change"], plan["remove"], plan["unchanged"]) == ([], [], 0)
    after = export(there)
    assert json.dumps(after).lower() == json.dumps(before).lower()
    owners = school.rows("select distinct owner_id from schedules")
    assert {row["owner_id"] for row in owners} == {school.owner_id, there.owner_id}


def test_applying_what_was_exported_changes_nothing(school: Fleet) -> None:
    before = school.rows("select * from schedules order by id")
    plan = apply(school, export(school), prune=True)
    assert (plan["create"], plan["change"], plan["remove"]) == ([], [], [])
    assert plan["unchanged"] == 8
    assert school.rows("select * from schedules order by id") == before


def test_a_plan_names_what_would_be_created_changed_and_removed(school: Fleet) -> None:
    made = export(school)
    nightly = next(row for row in made["schedules"] if row["name"] == "Nightly")
    nightly["priority"] = 9
    del nightly["groups"]
    made["schedules"] = [nightly, lock("New")]
    made["groups"][0]["devices"] = ["Lab-01"]
    made["blackout_calendars"][0]["periods"].pop()
    made["templates"][0]["description"] = "Better"
    before = school.rows("select * from schedules order by id")

    plan = apply(school, made, dry_run=True, prune=True)
    assert plan["dry_run"] is True
    assert plan["create"] == [{"kind": "schedule", "name": "New"}]
    changed = {item["name"]: item["changes"] for item in plan["change"]}
    assert changed["Nightly"] == {
        "priority": {"from": 3, "to": 9},
        "groups": {"from": ["Labs"], "to": None},
    }
    assert changed["Labs"] == {"devices": {"from": ["lab-02"], "to": ["Lab-01"]}}
    assert set(changed) == {"Nightly", "Labs", "Holidays", "Lock"}
    assert [item["name"] for item in plan["remove"]] == ["Away", "Once", "Then tell"]
    assert plan["unchanged"] == 1
    assert school.rows("select * from schedules order by id") == before

    done = apply(school, made, prune=True)
    assert {**done, "dry_run": True} == plan
    assert [row["name"] for row in export(school)["schedules"]] == ["New", "Nightly"]
    (away,) = school.rows("select * from schedules where name = 'Away'")
    assert (away["status"], away["status_reason"]) == (
        "cancelled",
        "no longer in the applied document",
    )
    assert apply(school, made, prune=True)["unchanged"] == 6


def test_without_prune_nothing_is_removed(school: Fleet) -> None:
    plan = apply(school, document(lock("New")))
    assert plan["remove"] == []
    assert len(export(school)["schedules"]) == 5


def test_pausing_is_only_changed_where_the_document_says_so(school: Fleet) -> None:
    away = lock("Away")
    assert apply(school, document(away))["unchanged"] == 1
    plan = apply(school, document({**away, "status": "active"}))
    assert plan["change"][0]["changes"] == {"status": {"from": "paused", "to": None}}
    row = school.row("select * from schedules where name = 'Away'")
    assert row["status"] == "active"
    assert apply(school, document(away))["unchanged"] == 1


def test_what_has_completed_is_not_made_again(fleet: Fleet) -> None:
    device = fleet.device("one")
    spec = document(
        {
            "name": "Once",
            "action_type": "lock",
            "start_time": "2025-01-01T00:00:00",
            "devices": ["one"],
        }
    )
    assert len(apply(fleet, spec)["create"]) == 1
    assert apply(fleet, spec)["unchanged"] == 1
    assert fleet.value("select count(*) from schedules where %s = any (device_ids)", device) == 1


def test_targets_of_a_single_device_change_as_written(fleet: Fleet) -> None:
    device = fleet.device("one")
    fleet.insert("device_groups", owner_id=fleet.owner_id, name="g")
    spec = lock("x", devices=["one"], payload={"profile_id": "7"})
    del spec["selector"]
    apply(fleet, document(spec))
    apply(fleet, document({**spec, "groups": ["g"], "payload": {"profile_id": "8"}}))
    row = fleet.row("select * from schedules where name = 'x'")
    assert (row["device_ids"], row["device_id"], len(row["group_ids"])) == ([device], None, 1)
    assert (row["profile_id"], row["payload"]) == ("8", {"profile_id": "8"})
    apply(fleet, document({**spec, "payload": {}}))
    row = fleet.row("select * from schedules where name = 'x'")
    assert (row["device_id"], row["group_ids"], row["profile_id"]) == (device, [], None)


def test_a_filter_exports_a_part_with_what_it_needs(school: Fleet) -> None:
    made = export(school, name="nightly")
    assert [row["name"] for row in made["schedules"]] == ["Nightly"]
    assert [row["name"] for row in made["groups"]] == ["Labs"]
    assert [row["name"] for row in made["blackout_calendars"]] == ["Holidays"]
    assert made["templates"] == []
    assert [row["name"] for row in export(school, status="cancelled")["schedules"]] == ["Gone"]


def test_nobody_exports_or_applies_for_another(school: Fleet) -> None:
    stranger = Fleet(school.conn)
    assert export(stranger)["schedules"] == []
    for call in (
        "select export_schedules('{}', %s)",
        "select apply_document('{\"version\": 1}', false, true, %s)",
    ):
        with school.refused("PT404", "owner_not_found"), school.acting(stranger.owner_id):
            school.rows(call, school.owner_id)
    plan = apply(stranger, document(lock("Nightly"), lock("x")), prune=True)
    assert len(plan["create"]) == 2
    assert len(export(school)["schedules"]) == 4
    # Names of another fleet stand for nothing here.
    with school.refused("PT404", "document_invalid", "Lab-01", "Labs", "Holidays"):
        apply(stranger, document(*export(school)["schedules"]))
