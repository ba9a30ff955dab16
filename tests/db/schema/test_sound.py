"""One check holds what a command or a device may be, and says which rule of it is broken."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database
from tests.helpers.fleet import Fleet

# What nobody may write, whoever it is, and the name of the rule.
OF_COMMANDS = [
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
OF_DEVICES = [
    ("status", "odd", "status_is_known"),
    ("hostname", " ", "hostname_is_not_blank"),
    ("hostname", "x" * 1013, "is_within_limits"),
    ("platform", "x" * 1021, "is_within_limits"),
    ("timezone", "x" * 1021, "is_within_limits"),
    ("tags", "{%s}" % ("x" * 17000), "is_within_limits"),
    ("tags", "{" + ",".join("x" * 101) + "}", "is_within_limits"),
    ("attributes", '{"a": "%s"}' % ("x" * 33000), "is_within_limits"),
    ("reported", '{"a": "%s"}' % ("x" * 33000), "is_within_limits"),
    ("attributes", "[]", "attributes_is_an_object"),
    ("latitude", "-90.1", "latitude_is_on_earth"),
    ("latitude", "NaN", "latitude_is_on_earth"),
    ("longitude", "180.1", "longitude_is_on_earth"),
    ("longitude", "Infinity", "longitude_is_on_earth"),
    ("accuracy_m", "-1", "accuracy_is_not_negative"),
]
BROKEN = [("device_commands", *rule) for rule in OF_COMMANDS]
BROKEN += [("devices", *rule) for rule in OF_DEVICES]
COMMANDS_WITHIN = [
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
DEVICES_WITHIN = [
    ("status", "retired"),
    ("hostname", "x" * 1012),
    ("platform", None),
    ("timezone", None),
    ("tags", "{}"),
    ("reported", "[]"),
    ("latitude", "-90"),
    ("latitude", None),
    ("longitude", "180"),
    ("accuracy_m", "0"),
]
WITHIN = [("device_commands", *value) for value in COMMANDS_WITHIN]
WITHIN += [("devices", *value) for value in DEVICES_WITHIN]


@pytest.fixture
def rows(fleet: Fleet) -> dict[str, int]:
    # The triggers say it first, in words and by field; this is what holds without them.
    device = fleet.device("pc-1")
    made = {"devices": device, "device_commands": fleet.send(device, "lock")["id"]}
    for table in made:
        fleet.run(f"alter table {table} disable trigger user")
    return made


@pytest.mark.parametrize(("table", "column", "value", "rule"), BROKEN)
def test_what_breaks_a_rule_is_refused_by_its_name(
    fleet: Fleet, rows: dict[str, int], table: str, column: str, value: str, rule: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as caught, fleet.conn.transaction():
        fleet.run(f"update {table} set {column} = %s where id = %s", value, rows[table])

    assert caught.value.diag.constraint_name == f"{table}_{rule}"
    assert caught.value.diag.table_name == table


@pytest.mark.parametrize(("table", "column", "value"), WITHIN)
def test_what_is_just_within_is_taken(
    fleet: Fleet, rows: dict[str, int], table: str, column: str, value: str | None
) -> None:
    fleet.run(f"update {table} set {column} = %s where id = %s", value, rows[table])

    stored = fleet.value(f"select {column}::text from {table} where id = %s", rows[table])
    assert stored == value


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("device_commands", "reason = repeat('x', 1021)"),
        ("devices", "platform = repeat('x', 1021)"),
    ],
)
def test_a_name_of_somebody_else_does_not_stand_in_for_what_it_is_checked_with(
    fleet: Fleet, rows: dict[str, int], table: str, change: str
) -> None:
    fleet.run("create schema mine")
    fleet.run(
        "create function mine.octet_length(text) returns integer language sql return 0;"
        "create function mine.pg_column_size(jsonb) returns integer language sql return 0"
    )
    fleet.run("set local search_path = mine, pg_catalog, public")

    with pytest.raises(psycopg.errors.CheckViolation), fleet.conn.transaction():
        fleet.run(f"update {table} set {change} where id = %s", rows[table])


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
