"""Extremes in every argument of every function of the API are refused in our own words.

A raw error of Postgres tells people nothing, and a call that does not end costs everybody.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.db.security.test_sample_calls import FOR_DEVICES

DEEP = '{"a":' * 3000 + "1" + "}" * 3000
MANY_KEYS = json.dumps({f"k{n}": n for n in range(8000)})
EXTREMES: dict[str, list[str | None]] = {
    "bigint": ["-9223372036854775808", "9223372036854775807", None],
    "integer": ["-2147483648", "2147483647", None],
    "text": ["", "(((a+)+)+)+$" * 90, "a\u202e\x1b[2J", "*/1 " * 3000, None],
    "text[]": ["{NULL}", "{{a,b},{c,d}}", "[5:6]={a,b}", None],
    "bigint[]": ["{NULL}", "{{1,2},{3,4}}", "{9223372036854775807}", None],
    "interval": ["178000000 years", "-178000000 years", "9223372036854775807 microseconds", None],
    "timestamp with time zone": [
        *("infinity", "-infinity", "294276-12-31 23:59:59+00", "4713-01-01 00:00:00+00 BC"),
        None,
    ],
    "date": ["infinity", "-infinity", "5874897-12-31", "4713-01-01 BC", None],
    "double precision": ["NaN", "-Infinity", "1e308", None],
    "jsonb": ["null", "[]", "7", DEEP, MANY_KEYS, "1e1000"],
    "boolean": [None],
    "uuid": ["00000000-0000-0000-0000-000000000000", None],
    "bytea": ["\\x00", None],
}
OF_PEOPLE = (
    "select p.proname, p.proargnames, p.pronargs - p.pronargdefaults,"
    " array(select format_type(t, null) from unnest(p.proargtypes) as t)"
    " from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace"
    " where n.nspname = 'public' and p.prokind = 'f'"
    " and has_function_privilege('authenticated', p.oid, 'execute') order by 1"
)


def usual(world: Any) -> dict[str, Any]:
    """Give what is right for an argument, by its name; for others there is nothing right."""
    mine = world.mine
    return {
        "p_schedule_id": mine.schedule,
        "p_device_id": mine.device,
        "p_group_id": mine.group,
        "p_owner_id": str(mine.owner),
        "p_integration_id": mine.integration,
        "p_geo_schedule_id": mine.geo_schedule,
        "p_endpoint_id": mine.endpoint,
        "p_calendar_id": mine.calendar,
        "p_command_id": mine.command,
        "p_command_type": "lock",
        "p_name": "a name",
        "p_kind": "software",
        "p_action": "pause",
        "p_changes": "{}",
        "p_targets": json.dumps({"device_ids": [mine.device]}),
        "p_device_ids": f"{{{mine.device}}}",
        "p_from": "2030-01-01",
        "p_to": "2030-01-02",
    }


def attempts(world: Any, functions: list[Any]) -> Any:
    """Give each call with one extreme value: its name, argument, value, and the whole call."""
    right = usual(world)
    for name, names, required, kinds in functions:
        for place, (argument, kind) in enumerate(zip(names or [], kinds, strict=False)):
            for value in EXTREMES.get(kind, []):
                given = {
                    other: (other_kind, value if other == argument else right.get(other))
                    for n, (other, other_kind) in enumerate(zip(names, kinds, strict=False))
                    if n == place or other in right or n < required
                }
                call = sql.SQL("select count(*) from public.{}({})").format(
                    sql.Identifier(name),
                    sql.SQL(", ").join(
                        sql.SQL("{} => {}::" + other_kind).format(
                            sql.Identifier(other), sql.Literal(v)
                        )
                        for other, (other_kind, v) in given.items()
                    ),
                )
                yield name, argument, value, call


@pytest.mark.timeout(600)
@pytest.mark.parametrize("caller", ["member", "device"])
def test_every_argument_refuses_extremes_in_our_own_words(one_world: Any, caller: str) -> None:
    raw = []
    count = 0
    with one_world.acting(caller) as conn:
        conn.execute("set local statement_timeout = '8s'")
        functions = [
            one
            for one in conn.execute(OF_PEOPLE).fetchall()
            if (f"public.{one[0]}" in FOR_DEVICES) == (caller == "device")
        ]
        for name, argument, value, call in attempts(one_world, functions):
            count += 1
            try:
                with conn.transaction(force_rollback=True):
                    conn.execute(call)
            except psycopg.Error as error:
                if not (error.sqlstate or "").startswith("PT"):
                    told = error.diag.message_primary
                    raw.append((name, argument, str(value)[:40], error.sqlstate, told))
    assert count > (50 if caller == "device" else 800)
    assert raw == []
