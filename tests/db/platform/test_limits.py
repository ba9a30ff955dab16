"""What people write beyond a limit is refused in words; what devices report is cut and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from tests.helpers.fleet import HELLO, Fleet
from tests.helpers.mdm import Mdm

WINDOW = {"from": "22:00", "to": "05:00"}


def limit(fleet: Fleet, name: str) -> int:
    found: int = fleet.value("select value from fleet.limits() where name = %s", name)
    return found


def nested(levels: int) -> Any:
    """Give JSON whose innermost value is so many levels down."""
    value: Any = "x" * 100
    for _ in range(levels):
        value = [value]
    return value


def create(**spec: Any) -> Callable[[Fleet], Any]:
    return lambda fleet: fleet.create(device_ids=[fleet.device()], **spec)


def in_policies(**policies: Any) -> Callable[[Fleet], Any]:
    return create(start_time="2999-01-01T00:00:00Z", policies=policies)


def insert(table: str, **columns: Any) -> Callable[[Fleet], Any]:
    return lambda fleet: fleet.insert(table, owner_id=fleet.owner_id, **columns)


# Each makes something with so much of it; the name of the limit, and the field that is named.
PEOPLE: list[tuple[str, str, Callable[[int], Callable[[Fleet], Any]]]] = [
    ("name", "name", lambda n: create(name="ü" * n)),
    ("description", "description", lambda n: create(description="ü" * n)),
    ("identifier", "profile_id", lambda n: create(profile_id="7" * n)),
    (
        "device_list",
        "device_ids",
        lambda n: lambda fleet: fleet.create(device_ids=fleet.devices(n)),
    ),
    ("windows", "policies.execution_window", lambda n: in_policies(execution_window=[WINDOW] * n)),
    ("retry_classes", "policies.retry.on", lambda n: in_policies(retry={"on": ["timeout"] * n})),
    ("selector_list", "selector.tags", lambda n: create(selector={"tags": ["a"] * n})),
    ("selector_list", "selector.any_tags", lambda n: create(selector={"any_tags": ["a"] * n})),
    ("selector_list", "selector.platform", lambda n: create(selector={"platform": ["a"] * n})),
    ("nesting", "payload", lambda n: create(payload={**HELLO, "deep": nested(n - 1)})),
    ("nesting", "selector", lambda n: create(selector={"attributes": {"a": nested(n - 2)}})),
    ("name", "name", lambda n: insert("device_groups", name="g" * n)),
    (
        "description",
        "description",
        lambda n: insert("device_groups", name="g", description="d" * n),
    ),
    ("hostname", "hostname", lambda n: insert("devices", hostname="h" * n)),
    ("identifier", "platform", lambda n: insert("devices", hostname="h", platform="p" * n)),
    ("tags", "tags", lambda n: insert("devices", hostname="h", tags=["t"] * n)),
    ("name", "name", lambda n: lambda fleet: fleet.run("select create_owner(%s)", "o" * n)),
    ("identifier", "idempotency_key", lambda n: sent(p_idempotency_key="k" * n)),
    ("nesting", "payload", lambda n: sent(p_payload={**HELLO, "deep": nested(n - 1)})),
    ("name", "name", lambda n: calendar("c" * n, 1)),
    ("periods", "periods", lambda n: calendar("c", n)),
]


def sent(**named: Any) -> Callable[[Fleet], Any]:
    return lambda fleet: fleet.send(fleet.device(), **named)


def calendar(name: str, periods: int) -> Callable[[Fleet], Any]:
    days = [{"starts_on": "2999-12-25", "summary": "x"}] * periods
    query = "select create_blackout_calendar(%s, %s, p_owner_id => %s)"
    return lambda fleet: fleet.run(query, name, Jsonb(days), fleet.owner_id)


@pytest.mark.parametrize(
    ("name", "field", "make"), PEOPLE, ids=lambda v: v if isinstance(v, str) else ""
)
def test_as_much_as_the_limit_is_taken_and_one_more_is_refused(
    fleet: Fleet, name: str, field: str, make: Callable[[int], Callable[[Fleet], Any]]
) -> None:
    most = limit(fleet, name)
    make(most)(fleet)
    with pytest.raises(psycopg.Error) as caught, fleet.conn.transaction():
        make(most + 1)(fleet)
    diag = caught.value.diag
    unit = fleet.value("select unit from fleet.limits() where name = %s", name)
    assert diag.sqlstate == "PT422"
    assert f"{field}: has {most + 1} {unit}; at most {most} are taken" in str(diag.message_primary)
    assert f"{most} {unit}" in str(diag.message_hint)
    # Neither the error nor the log of the server carries what was sent.
    assert len(str(diag.message_primary)) < 2000


@pytest.mark.parametrize("column", ["payload", "policies", "selector", "recurrence_config"])
def test_json_is_limited_in_bytes_however_it_is_made(fleet: Fleet, column: str) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    huge = Jsonb({"message": "x" * 300_000})
    with fleet.refused("PT422", "schedule_invalid", f"{column}: has 3000", "bytes; at most"):
        fleet.run(f"update schedules set {column} = %s where id = %s", huge, made["id"])
    with fleet.refused("PT422", "schedule_invalid", f"{column}: has 3000"):
        fleet.run(
            "select update_schedule(%s, %s)",
            made["id"],
            Jsonb({column: {"message": "x" * 300_000}}),
        )


def test_everything_wrong_is_still_named_at_once(fleet: Fleet) -> None:
    words = ("name: has 201", "policies.overlap", "policies.execution_window: has 21 entries")
    with fleet.refused("PT422", "schedule_invalid", *words):
        fleet.create(
            name="n" * 201,
            device_ids=[fleet.device()],
            policies={"overlap": "maybe", "execution_window": [WINDOW] * 21},
        )


def test_a_preview_refuses_what_cannot_be_saved(fleet: Fleet) -> None:
    spec = {
        "owner_id": str(fleet.owner_id),
        "name": "x",
        "action_type": "lock",
        "device_ids": [fleet.device()],
        "policies": {"execution_window": [WINDOW] * 21},
    }
    with fleet.refused("PT422", "schedule_invalid", "has 21 entries; at most 20"):
        fleet.rows("select * from preview_schedule(%s)", Jsonb(spec))


@pytest.mark.parametrize(
    "call",
    [
        "create_schedule(%s)",
        "create_schedules(array[%s])",
        "preview_schedule(%s)",
        "apply_document(%s)",
        "create_template(%s)",
        "create_webhook_endpoint(%s)",
        "create_integration(%s)",
        "create_calendar_feed(%s)",
        "export_schedules(%s)",
    ],
)
def test_a_specification_of_any_size_is_refused_before_anything_is_done(
    fleet: Fleet, call: str
) -> None:
    spec = Jsonb({"name": "x", "action_type": "lock", "more": ["y" * 1000] * 10_000})
    with fleet.refused("PT422", "limit_exceeded", "bytes; at most"):
        with fleet.acting(fleet.owner_id):
            fleet.run(f"select {call}", spec)


@pytest.mark.parametrize("field", ["p_not_before", "p_expires_after"])
@pytest.mark.parametrize("years", [11, 2000, 200_000])
def test_a_command_waits_for_ten_years_at_most(fleet: Fleet, field: str, years: int) -> None:
    device = fleet.device()
    fleet.send(device, p_expires_after=timedelta(days=3650))
    value = f"{years} years"
    if field == "p_not_before":
        value = fleet.value("select now() + %s::interval", value) if years < 5000 else "infinity"
    with fleet.refused("PT422", "command_invalid", "days; at most 3653 are taken"):
        fleet.send(device, **{field: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("rate_per_second", 1001), ("rate_per_second", 1e300), ("burst", 3e9), ("burst", 1001)),
        *(("syncIntervalSeconds", 1e300), ("syncIntervalSeconds", 2_592_001)),
    ],
)
def test_the_pace_of_an_integration_is_limited_and_no_old_one_stops_anybody(
    mdm: Mdm, name: str, value: float
) -> None:
    query = "update device_integrations set settings = %s where id = %s"
    with mdm.fleet.refused("PT422", "integration_invalid", f"settings.{name}: is", "at most"):
        mdm.fleet.run(query, Jsonb({name: value}), mdm.id)

    # As it may have been written before there was a limit.
    mdm.fleet.run("alter table device_integrations disable trigger device_integrations_02_check")
    mdm.fleet.run(query, Jsonb({name: value}), mdm.id)
    mdm.fleet.run("update device_integrations set last_sync_at = now() where id = %s", mdm.id)
    mdm.install(mdm.device())
    now = mdm.now(10)
    assert len(mdm.claim(now=now)) == 1
    mdm.tick(now + timedelta(days=40))
    due = "select fleet.is_sync_due(i, %s) from device_integrations as i where i.id = %s"
    assert mdm.fleet.value(due, now + timedelta(days=40), mdm.id)


def test_a_result_that_is_too_long_is_cut_and_not_lost(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.send(device)
    (command,) = fleet.claim(device)
    result = {"exit_code": 3, "stdout": "line\n" * 2_000_000, "stderr": "", "took": [1, 2, 3]}
    answer = fleet.finish(
        device, command, "failed", result=result, error="e" * 5_000_000, reason="r" * 900
    )
    assert answer["accepted"] is True
    row = fleet.command(command["command_id"])
    assert row["result"]["cut"] is True
    assert (row["result"]["exit_code"], row["result"]["took"]) == (3, [1, 2, 3])
    assert row["result"]["stdout"].startswith("line\nline\n")
    assert (len(row["error_message"]), row["error_message"][-7:]) == (4000, "… (cut)")
    assert len(row["reason"]) == 255
    assert len(json.dumps(row["result"])) <= limit(fleet, "report")
    # The same report again is the same answer.
    again = fleet.finish(
        device, command, "failed", result=result, error="e" * 5_000_000, reason="r" * 900
    )
    assert again["accepted"] is True


@pytest.mark.parametrize(
    "result", [[["x"] * 40_000], "s" * 700_000, {"a": nested(60)}, nested(900)]
)
def test_a_report_of_any_shape_is_kept_as_far_as_it_fits(fleet: Fleet, result: Any) -> None:
    device = fleet.device()
    fleet.send(device)
    (command,) = fleet.claim(device)
    assert fleet.finish(device, command, result=result)["status"] == "completed"
    row = fleet.command(command["command_id"])
    assert row["result"]["cut"] is True and row["result"]["beginning"]


def test_a_plain_update_of_a_device_is_cut_as_well(fleet: Fleet) -> None:
    device = fleet.device()
    sent_row = fleet.send(device)
    with fleet.as_device(device):
        for status in ("running", "completed"):
            fleet.run(
                "update device_commands set status = %s, result = %s, error_message = %s"
                " where id = %s",
                *(status, Jsonb({"log": "l" * 900_000}), "m" * 90_000, sent_row["id"]),
            )
    row = fleet.command(sent_row["id"])
    assert (row["status"], row["result"]["cut"], len(row["error_message"])) == (
        "completed",
        True,
        4000,
    )


def test_facts_beyond_the_limit_displace_nothing(fleet: Fleet) -> None:
    device = fleet.device(reported={"lab": 3})
    for number in range(30):
        facts = {"attributes": {f"fact-{number}-{n}": "v" * 900 for n in range(20)}}
        with fleet.as_device(device):
            assert fleet.value("select device_checkin(%s)", Jsonb(facts))["device_id"] == device
    row = fleet.row(
        "select reported, pg_column_size(reported || '{}') as size from devices where id = %s",
        device,
    )
    assert (row["reported"]["lab"], row["reported"]["cut"]) == (3, True)
    assert row["reported"]["fact-0-0"] == "v" * 900
    assert row["size"] <= limit(fleet, "attributes")
    with fleet.as_device(device):
        fleet.run(
            "select device_checkin(%s)",
            Jsonb({"attributes": nested(500), "agent_version": "9" * 99}),
        )
        fleet.run("select device_checkin(%s)", Jsonb({"attributes": {"deep": nested(500)}}))
    assert fleet.value("select last_seen from devices where id = %s", device)


def test_what_an_mdm_says_of_a_device_is_cut(mdm: Mdm) -> None:
    device = mdm.device()
    mdm.fleet.run(
        "update device_links set attributes = %s where device_id = %s",
        Jsonb({"os": "18.1", "apps": ["app"] * 100_000}),
        device,
    )
    found = mdm.fleet.value("select attributes from device_links where device_id = %s", device)
    assert (found["os"], found["cut"]) == ("18.1", True)


def test_the_backstop_holds_where_no_trigger_does(fleet: Fleet) -> None:
    made = fleet.create(device_ids=[fleet.device()])
    fleet.run("alter table schedules disable trigger user")
    for column, value in (("name", "n" * 900), ("policies", Jsonb({"p": "x" * 20_000}))):
        with pytest.raises(psycopg.errors.CheckViolation), fleet.conn.transaction():
            fleet.run(f"update schedules set {column} = %s where id = %s", value, made["id"])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=400),
    lambda inner: (
        st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=90), inner, max_size=30)
    ),
    max_leaves=60,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=values, most=st.integers(512, 4000))
def test_what_is_cut_fits_and_what_fits_stays(
    db: psycopg.Connection[Any], value: Any, most: int
) -> None:
    text = json.dumps(value).replace("\\u0000", "")
    row = db.execute(
        "select v, cut, pg_column_size(v), pg_column_size(cut), fleet.is_too_deep(v)"
        " from (select v, fleet.cut_json(v, %s) as cut from (select %s::jsonb as v) as x) as y",
        (most, text),
    ).fetchone()
    assert row is not None
    given_value, cut, size, cut_size, deep = row
    if size <= most and not deep:
        assert cut == given_value
    else:
        assert cut["cut"] is True
        assert cut_size <= most


def test_numbers_are_written_where_people_look_for_them(fleet: Fleet) -> None:
    with fleet.acting(fleet.owner_id):
        rows = fleet.rows("select * from fleet.limits() order by name")
    assert len(rows) > 30
