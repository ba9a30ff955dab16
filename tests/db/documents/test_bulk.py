"""One verb for many schedules."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row

LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def lab(fleet: Fleet) -> dict[str, int]:
    """Give the ids of four schedules by name: two of the lab, one of the office, one paused."""
    device = fleet.device("one")
    made = {
        name: int(fleet.create(name=name, start_time=LATER, device_ids=[device])["id"])
        for name in ("lab a", "lab b", "office", "lab paused")
    }
    fleet.run("select pause_schedule(%s)", made["lab paused"])
    return made


def bulk(fleet: Fleet, action: str, dry_run: bool | None = None, **wanted: Any) -> Row:
    with fleet.acting(fleet.owner_id):
        answer: Row = fleet.value(
            "select bulk_schedules(%s, %s, coalesce(%s, true), 'why')",
            action,
            Jsonb(wanted),
            dry_run,
        )
    return answer


def statuses(fleet: Fleet) -> dict[str, str]:
    return {
        row["name"]: row["status"]
        for row in fleet.rows(
            "select name, status from schedules where owner_id = %s", fleet.owner_id
        )
    }


def test_without_saying_so_it_only_counts(fleet: Fleet, lab: dict[str, int]) -> None:
    answer = bulk(fleet, "pause", name="lab%")
    assert answer == {
        "action": "pause",
        "dry_run": True,
        "count": 2,
        "ids": [lab["lab a"], lab["lab b"]],
        "changed": 0,
    }
    assert statuses(fleet)["lab a"] == "active"


def test_each_action_takes_what_is_in_a_state_for_it(fleet: Fleet, lab: dict[str, int]) -> None:
    assert bulk(fleet, "pause", False, name="LAB%")["changed"] == 2
    assert fleet.schedule(lab["lab a"])["status_reason"] == "why"
    assert bulk(fleet, "resume", False, status="paused")["changed"] == 3
    assert bulk(fleet, "run", False, ids=[lab["office"], lab["lab a"]])["changed"] == 2
    assert [run["trigger"] for run in fleet.runs(lab["office"])] == ["manual"]
    assert bulk(fleet, "cancel", False, ids=[lab["lab b"]])["changed"] == 1
    assert bulk(fleet, "pause", False, ids=[lab["lab b"]])["count"] == 0
    assert statuses(fleet) == {
        "lab a": "active",
        "lab b": "cancelled",
        "office": "active",
        "lab paused": "active",
    }
    assert bulk(fleet, "delete", False, status=["cancelled", "paused"])["changed"] == 1
    assert "lab b" not in statuses(fleet)


def test_a_device_finds_what_reaches_it_by_whichever_way(fleet: Fleet) -> None:
    device = fleet.device(tags=["red"])
    other = fleet.device()
    static = fleet.insert("device_groups", owner_id=fleet.owner_id, name="static")["id"]
    fleet.insert("device_group_members", group_id=static, device_id=device)
    dynamic = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="dynamic", selector={"tags": ["red"]}
    )["id"]
    targets: dict[str, dict[str, Any]] = {
        "list": {"device_ids": [device]},
        "static": {"group_ids": [static]},
        "dynamic": {"group_ids": [dynamic]},
        "selector": {"selector": {"tags": ["red"]}},
        "elsewhere": {"device_ids": [other]},
        "blue": {"selector": {"tags": ["blue"]}},
    }
    made = {
        name: fleet.create(name=name, start_time=LATER, **target)["id"]
        for name, target in targets.items()
    }
    found = bulk(fleet, "pause", device_id=device)["ids"]
    assert found == [made[name] for name in ("list", "static", "dynamic", "selector")]
    assert bulk(fleet, "pause", group_id=static)["ids"] == [made["static"]]
    assert bulk(fleet, "pause", action_type=["lock"])["count"] == 0
    assert bulk(fleet, "pause", action_type="broadcast_message", status=None)["count"] == 6


def test_every_wrong_key_of_a_filter_is_named(fleet: Fleet) -> None:
    with fleet.refused("PT422", "filter_invalid", "nmae", "status", "ids", "device_id", "owner_id"):
        bulk(fleet, "pause", nmae="x", status="done", ids=["1"], device_id="7", owner_id="me")
    with fleet.refused("PT422", "filter_invalid"):
        fleet.value("select bulk_schedules('pause', '[]')")
    with fleet.refused("PT422", "action_unknown", "destroy"):
        bulk(fleet, "destroy")


def test_nobody_reaches_the_schedules_of_others(fleet: Fleet, lab: dict[str, int]) -> None:
    stranger = Fleet(fleet.conn)
    for action in ("pause", "resume", "cancel", "delete", "run"):
        answer = bulk(stranger, action, False, ids=list(lab.values()))
        assert (answer["count"], answer["changed"]) == (0, 0)
        assert bulk(stranger, action, False, owner_id=str(fleet.owner_id))["count"] == 0
    with fleet.acting(fleet.auth_id(fleet.value("select id from devices where hostname = 'one'"))):
        answer = fleet.value("select bulk_schedules('delete', '{}', false)")
    assert answer["count"] == 0
    assert len(statuses(fleet)) == 4
