"""One check holds what a command may be, and says which rule of it is broken."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database
from tests.helpers.fleet import Fleet

# What nobody may write, whoever it is, and the name of the rule.
BROKEN = [
    ("status", "odd", "status_is_known"),
    ("device_hostname", "x" * 1013, "is_within_limits"),
    ("command_type", "x" * 1021, "is_within_limits"),
    ("idempotency_key", "x" * 1021, "is_within_limits"),
    ("reason", "x" * 1021, "is_within_limits"),
    ("error_message", "x" * 16001, "is_within_limits"),
    ("payload", '{"a": "%s"}' % ("x" * 70000), "is_within_limits"),
    ("result", '{"a": "%s"}' % ("x" * 70000), "is_within_limits"),
    ("progress", '{"a": "%s"}' % ("x" * 5000), "progress_is_within_limits"),
    ("payload", "[]", "payload_is_an_object"),
    ("progress", "[]", "progress_is_an_object"),
    ("channel", "post", "channel_is_known"),
    ("priority", "101", "priority_is_within_bounds"),
    ("priority", "-101", "priority_is_within_bounds"),
    ("max_attempts", "0", "attempts_are_positive"),
    ("max_attempts", "1001", "attempts_are_positive"),
    ("trace_id", "x" * 32, "trace_id_is_one"),
    ("trace_id", "0" * 32, "trace_id_is_one"),
]
WITHIN = [
    ("priority", "100"),
    ("priority", "-100"),
    ("max_attempts", "1000"),
    ("progress", None),
    ("result", "[1]"),
    ("trace_id", None),
    ("trace_id", "0" * 31 + "1"),
    ("idempotency_key", "x" * 1020),
    ("status", "cancelled"),
]


@pytest.fixture
def command(fleet: Fleet) -> int:
    # The triggers say it first, in words and by field; this is what holds without them.
    made: int = fleet.send(fleet.device("pc-1"), "lock")["id"]
    fleet.run("alter table device_commands disable trigger user")
    return made


@pytest.mark.parametrize(("column", "value", "rule"), BROKEN)
def test_what_breaks_a_rule_is_refused_by_its_name(
    fleet: Fleet, command: int, column: str, value: str, rule: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as caught, fleet.conn.transaction():
        fleet.run(f"update device_commands set {column} = %s where id = %s", value, command)

    assert caught.value.diag.constraint_name == f"device_commands_{rule}"
    assert caught.value.diag.table_name == "device_commands"


@pytest.mark.parametrize(("column", "value"), WITHIN)
def test_what_is_just_within_is_taken(
    fleet: Fleet, command: int, column: str, value: str | None
) -> None:
    fleet.run(f"update device_commands set {column} = %s where id = %s", value, command)

    stored = fleet.value(f"select {column}::text from device_commands where id = %s", command)
    assert stored == value


def test_a_name_of_somebody_else_does_not_stand_in_for_what_it_is_checked_with(
    fleet: Fleet, command: int
) -> None:
    fleet.run("create schema mine")
    fleet.run(
        "create function mine.octet_length(text) returns integer language sql return 0;"
        "create function mine.pg_column_size(jsonb) returns integer language sql return 0"
    )
    fleet.run("set local search_path = mine, pg_catalog, public")

    with pytest.raises(psycopg.errors.CheckViolation), fleet.conn.transaction():
        fleet.run("update device_commands set reason = repeat('x', 1021) where id = %s", command)


def test_a_login_of_somebody_s_own_writes_as_a_member_of_the_service_role(
    database: Database,
) -> None:
    with database.connect("supabase_admin") as conn:
        fleet = Fleet(conn)
        device = fleet.device("pc-1")
        fleet.run("create role own_backend in role service_role")
        fleet.run("set local role own_backend")

        fleet.run("update devices set attributes = '{\"asset\": 7}' where id = %s", device)
        fleet.run(
            "insert into device_commands (device_id, command_type, payload)"
            " values (%s, 'broadcast_message', %s)",
            device,
            Jsonb({"message": "x" * 300}),
        )
        fleet.run("update device_commands set result = %s", Jsonb({"said": "x" * 300}))

        assert fleet.value("select count(*) from device_commands") == 1
        conn.rollback()
