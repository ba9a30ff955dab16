"""A write costs what it changes: everything is checked once, and nothing that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database
from tests.helpers.fleet import HELLO, Fleet, Row

SPEC: Row = {
    "name": "Nightly",
    "action_type": "broadcast_message",
    "payload": HELLO,
    "recurrence_type": "daily",
    "recurrence_config": {"time": "03:00"},
    "start_time": "2031-01-01T00:00:00Z",
    "policies": {"overlap": "skip", "blackouts": ["Fair"]},
}
ASKED = {
    "fleet.prepared_schedule",
    "fleet.schedule_problems",
    "fleet.time_problems",
    "fleet.recurrence_problems",
    "fleet.payload_problems",
    "fleet.target_problems",
    "fleet.policy_problems",
    "fleet.blackout_problems",
    "fleet.named_blackouts",
    "fleet.compiled_recurrence",
    "fleet.first_due",
}
EXPENSIVE = {
    *ASKED - {"fleet.prepared_schedule", "fleet.schedule_problems"},
    "fleet.follow_problems",
    "fleet.compile_recurrence",
    "fleet.next_due",
    "fleet.next_occurrence",
    "fleet.targets",
    "fleet.target_zones",
    "fleet.blackout_at",
    "fleet.skip_due",
}


@pytest.fixture
def counted(database: Database) -> Iterator[Fleet]:
    """Give a fleet on a connection that counts the calls of functions."""
    with database.connect("supabase_admin") as conn:
        conn.execute("set track_functions = 'all'")
        fleet = Fleet(conn)
        fleet.insert("blackout_calendars", owner_id=fleet.owner_id, name="Fair")
        yield fleet
        conn.rollback()


def calls(fleet: Fleet) -> dict[str, int]:
    return {
        row["name"]: row["calls"]
        for row in fleet.rows(
            "select schemaname || '.' || funcname as name, calls from pg_stat_xact_user_functions"
        )
    }


def cost(fleet: Fleet, write: Callable[[], Any]) -> dict[str, int]:
    """Tell which functions a write calls, and how often."""
    before = calls(fleet)
    write()
    return {
        name: count - before.get(name, 0)
        for name, count in calls(fleet).items()
        if count > before.get(name, 0)
    }


def create(fleet: Fleet, **spec: Any) -> int:
    whole = {**SPEC, "device_ids": [fleet.device()], **spec}
    schedule_id: int = fleet.create(**whole)["id"]
    return schedule_id


def template(fleet: Fleet) -> None:
    spec = {**SPEC, "selector": {}}
    saved = {"name": "T", "spec": spec, "owner_id": str(fleet.owner_id)}
    fleet.value("select create_template(%s)", Jsonb(saved))


def document(fleet: Fleet) -> None:
    fleet.value(
        "select apply_document(%s, p_owner_id => %s)",
        Jsonb({"version": 1, "schedules": [{**SPEC, "name": "Other", "selector": {}}]}),
        fleet.owner_id,
    )


WRITES: dict[str, Callable[[Fleet, int], Any]] = {
    "create": lambda fleet, _: create(fleet, name="one more"),
    "duplicate": lambda fleet, made: fleet.value("select duplicate_schedule(%s)", made),
    "template": lambda fleet, _: fleet.value("select instantiate_template('T')"),
    "document": lambda fleet, _: document(fleet),
    "preview": lambda fleet, _: fleet.rows(
        "select * from preview_schedule(%s)",
        Jsonb({**SPEC, "owner_id": str(fleet.owner_id), "selector": {}}),
    ),
    "plain insert": lambda fleet, _: fleet.insert(
        "schedules", owner_id=fleet.owner_id, selector=Jsonb({}), **SPEC
    ),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_new_is_checked_and_compiled_once(counted: Fleet, name: str) -> None:
    made = create(counted)
    template(counted)
    found = cost(counted, lambda: WRITES[name](counted, made))
    assert {key: found.get(key) for key in ASKED} == dict.fromkeys(ASKED, 1)


@pytest.mark.parametrize("spec", [{}, {"timezone": "device"}, {"selector": {"tags": ["x"]}}])
@pytest.mark.parametrize(
    ("column", "value"),
    [("name", "Another"), ("description", "why"), ("priority", 7), ("ui_initiated", True)],
)
def test_what_is_only_said_differently_is_not_looked_at_again(
    counted: Fleet, spec: Row, column: str, value: Any
) -> None:
    made = create(counted, **spec)
    before = counted.schedule(made)
    for write in (
        lambda: counted.value("select update_schedule(%s, %s)", made, Jsonb({column: value})),
        lambda: counted.run(f"update schedules set {column} = %s where id = %s", value, made),
    ):
        found = cost(counted, write)
        assert found["fleet.prepared_schedule"] == 1
        assert not EXPENSIVE & set(found), EXPENSIVE & set(found)
    after = counted.schedule(made)
    changed = {key for key in after if after[key] != before[key]}
    assert changed <= {column, "updated_at"}


@pytest.mark.parametrize(
    ("changes", "looked_at"),
    [
        ({"recurrence_config": {"time": "04:00"}}, {"recurrence_problems", "compiled_recurrence"}),
        ({"payload": {"message": "x"}}, {"payload_problems"}),
        ({"selector": {}}, {"target_problems"}),
        ({"policies": {"overlap": "allow"}}, {"policy_problems"}),
        ({"policies": {"overlap": "skip", "fold": "second"}}, {"compiled_recurrence"}),
    ],
)
def test_what_changes_is_looked_at(counted: Fleet, changes: Row, looked_at: set[str]) -> None:
    made = create(counted)
    found = cost(
        counted, lambda: counted.value("select update_schedule(%s, %s)", made, Jsonb(changes))
    )
    for name in looked_at:
        assert found.get(f"fleet.{name}") == 1, name
    if "recurrence_config" in changes:
        assert not {"fleet.target_problems", "fleet.policy_problems"} & set(found)


def test_saving_what_is_there_already_writes_nothing(counted: Fleet) -> None:
    made = create(counted)
    found = cost(
        counted,
        lambda: counted.value(
            "select update_schedule(%s, %s)",
            made,
            Jsonb({key: SPEC[key] for key in SPEC if key != "policies"}),
        ),
    )
    assert "fleet.tg_prepare_schedule" not in found


def test_a_warning_does_not_walk_the_fleet(counted: Fleet) -> None:
    counted.run(
        "insert into devices (owner_id, hostname, tags)"
        " select %s, 'd-' || i, array['all', 'last-' || (i = 5000)]"
        " from generate_series(1, 5000) as i",
        counted.owner_id,
    )
    nobody = "no device matches at this moment"

    def warned(selector: Row) -> bool:
        found: list[str] = counted.create(**{**SPEC, "selector": selector})["warnings"]
        return nobody in found

    assert warned({"tags": ["none"]})
    assert warned({"any_tags": ["none", "neither"]})
    assert not warned({"tags": ["last-true"]})
    assert not warned({"any_tags": ["last-true", "none"]})
    assert warned({"tags": ["last-true"], "platform": "ios"})
    assert not warned({})
    # No index tells, and it is not worth a look at each of them.
    assert not warned({"platform": "ios"})
    found = cost(counted, lambda: create(counted, selector={"tags": ["none"]}))
    assert "fleet.targets" not in found


def test_a_small_fleet_is_told_for_certain(fleet: Fleet) -> None:
    fleet.device("one", tags=["x"])
    spec = {**SPEC, "policies": {}}
    for selector, is_warned in (
        ({"platform": "ios"}, True),
        ({"attributes": {"lab": 3}}, True),
        ({"tags": []}, False),
        ({"any_tags": ["x"]}, False),
    ):
        made = fleet.create(**{**spec, "selector": selector})
        assert bool(made["warnings"]) is is_warned, selector
    group = fleet.insert(
        "device_groups", owner_id=fleet.owner_id, name="G", selector={"tags": ["y"]}
    )
    assert fleet.create(**{**spec, "group_ids": [group["id"]]})["warnings"]
    fleet.device("two", tags=["y"])
    assert not fleet.create(**{**spec, "group_ids": [group["id"]]})["warnings"]


def test_the_one_list_of_columns_is_whole(fleet: Fleet) -> None:
    listed = fleet.rows("select name, kind, default_value from fleet.schedule_columns()")
    engine = {
        "id", "owner_id", "recurrence", "status", "status_reason", "next_run_at", "created_by",
        "last_executed_at", "execution_count", "idle_count", "created_at", "updated_at",
    }  # fmt: skip
    columns = {
        row["name"]: row["default"]
        for row in fleet.rows(
            "select attname as name, pg_get_expr(d.adbin, d.adrelid) as default"
            " from pg_attribute as a left join pg_attrdef as d on d.adrelid = a.attrelid"
            " and d.adnum = a.attnum where a.attrelid = 'public.schedules'::regclass"
            " and a.attnum > 0 and not a.attisdropped"
        )
    }
    assert {row["name"] for row in listed} == set(columns) - engine
    # What is left out of JSON is as what is left out of an INSERT.
    made = fleet.insert(
        "schedules",
        owner_id=fleet.owner_id,
        name="x",
        action_type="lock",
        selector=Jsonb({}),
    )
    for row in listed:
        if row["default_value"] is not None:
            assert made[row["name"]] == row["default_value"], row["name"]
