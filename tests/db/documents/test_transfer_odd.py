"""Documents of schedules that are odd: circles, a name twice, groups that are gone, far years."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.documents import apply, document, export, lock
from tests.helpers.fleet import Fleet


def test_chains_are_made_in_order_and_circles_are_refused(fleet: Fleet) -> None:
    plan = apply(
        fleet,
        document(
            lock("c", after={"schedule": "B"}),
            lock("b", after={"schedule": "a", "on": "either"}),
            lock("a"),
        ),
    )
    assert [item["name"] for item in plan["create"]] == ["a", "b", "c"]
    with fleet.refused("PT422", "document_invalid", "circle", "x, y"):
        apply(
            fleet,
            document(lock("x", after={"schedule": "y"}), lock("y", after={"schedule": "x"})),
        )
    turned = document(lock("a", after={"schedule": "b"}), lock("b"))
    assert len(apply(fleet, turned)["change"]) == 2


def test_everything_wrong_in_a_document_is_in_one_error_and_nothing_is_kept(fleet: Fleet) -> None:
    with fleet.refused(
        "PT422",
        "document_invalid",
        'schedule "one": ',
        "lab-99",
        'schedule "two": ',
        "priority",
        'schedule "three": ',
        "status",
        'group "g": ',
        "selector",
        'calendar "c": ',
        "periods[0]",
        'template "t": ',
        'schedule "four": ',
        "nowhere",
    ) as refusal:
        apply(
            fleet,
            document(
                lock("fine"),
                lock("one", devices=["lab-99"]),
                lock("two", priority=1000),
                lock("three", status="completed"),
                lock("four", after={"schedule": "nowhere"}),
                groups=[{"name": "g", "selector": {"colour": 1}}],
                blackout_calendars=[{"name": "c", "periods": [{"starts_on": "soon"}]}],
                templates=[{"name": "t", "spec": {"name": "{{x}}"}}],
            ),
        )
    assert "fine" not in refusal.message
    assert export(fleet)["schedules"] == []


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ([], "object"),
        ({"schedules": []}, "version"),
        ({"version": 2}, "newer"),
        ({"version": 1, "shedules": []}, "shedules"),
        ({"version": 1, "schedules": {}}, "list"),
        ({"version": 1, "schedules": [{"action_type": "lock"}]}, "schedules[0]"),
        ({"version": 1, "schedules": [{"name": "A"}, {"name": "a"}]}, "2 named"),
    ],
)
def test_a_document_of_the_wrong_shape_is_refused(fleet: Fleet, wrong: Any, word: str) -> None:
    with fleet.refused("PT422", "document_invalid") as refusal:
        apply(fleet, wrong)
    assert word in refusal.message + refusal.hint


def test_two_schedules_of_one_name_are_a_clear_error_both_ways(fleet: Fleet) -> None:
    fleet.create(**lock("Same"), payload={})
    fleet.create(**lock("same"), payload={})
    with fleet.refused("PT409", "schedule_ambiguous", "ame"):
        export(fleet)
    with fleet.refused("PT422", "document_invalid", "ambiguous: ids"):
        apply(fleet, document(lock("Same")))


def test_an_hour_that_comes_twice_is_written_in_utc(fleet: Fleet) -> None:
    spec = lock("x", timezone="Europe/Berlin", start_time="2999-10-27T01:30:00Z")
    apply(fleet, document(spec))
    made = fleet.row("select * from schedules where name = 'x'")
    (again,) = export(fleet)["schedules"]
    there = Fleet(fleet.conn)
    apply(there, document(again))
    copy = there.row("select * from schedules where owner_id = %s", there.owner_id)
    assert copy["start_time"] == made["start_time"]


def a_gone_group(fleet: Fleet, name: str = "Lonely") -> int:
    """Make a schedule for a group, and delete the group."""
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="Gone")["id"]
    made = fleet.create(**lock(name, selector=None, group_ids=[group]), payload={})
    fleet.value("select delete_group(%s, true)", group)
    schedule_id: int = made["id"]
    return schedule_id


def test_a_group_that_active_schedules_name_is_kept(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="Labs")["id"]
    made = fleet.create(**lock("Nightly", selector=None, group_ids=[group]), payload={})
    with fleet.refused("PT409", "group_in_use", 'group "Labs" is used by "Nightly"'):
        fleet.value("select delete_group(%s)", group)
    with fleet.refused("PT409", "group_in_use", '"Nightly"'):
        fleet.run("delete from device_groups where id = %s", group)
    fleet.run("select pause_schedule(%s)", made["id"])
    assert fleet.value("select delete_group(%s)", group)["paused"] == []


def test_a_schedule_whose_group_is_gone_is_paused_with_the_reason_and_can_be_edited(
    fleet: Fleet,
) -> None:
    schedule_id = a_gone_group(fleet)
    row = fleet.schedule(schedule_id)
    assert (row["status"], row["status_reason"]) == ("paused", 'group "Gone" was deleted')
    change = fleet.value(
        "select update_schedule(%s, %s)", schedule_id, Jsonb({"name": "Still", "priority": 4})
    )
    assert (change["name"], change["priority"]) == ("Still", 4)
    device = fleet.device()
    fleet.value("select update_schedule(%s, %s)", schedule_id, Jsonb({"device_ids": [device]}))
    fleet.run("select resume_schedule(%s)", schedule_id)
    assert fleet.schedule(schedule_id)["status"] == "active"
    with fleet.refused("PT404", "schedule_invalid", "group 999999 was not found"):
        fleet.value("select update_schedule(%s, %s)", schedule_id, Jsonb({"group_ids": [999999]}))


def test_a_schedule_whose_group_is_gone_does_not_stop_a_document(fleet: Fleet) -> None:
    schedule_id = a_gone_group(fleet)
    fleet.create(**lock("Well"), payload={})
    made = export(fleet)
    assert apply(fleet, made)["unchanged"] == 2
    changed = [{**row, "priority": 7} for row in made["schedules"]]
    answer = apply(fleet, {**made, "schedules": changed})
    assert [row["name"] for row in answer["change"]] == ["Lonely", "Well"]
    assert fleet.schedule(schedule_id)["priority"] == 7
    # In another fleet it begins as it is: paused, for nobody.
    other = Fleet(fleet.conn)
    assert len(apply(other, made)["create"]) == 2


def test_times_beyond_four_digits_come_back(fleet: Fleet) -> None:
    made = fleet.create(**lock("Far", start_time="12999-01-01T00:00:00"), payload={})
    assert made["start_time"].startswith("12999-01-01T00:00:00")
    assert apply(fleet, export(fleet))["unchanged"] == 1
