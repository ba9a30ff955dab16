"""The checks of the server: those faults that can be made are made, the others are told to them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet, Row

GIVEN: list[tuple[str, str, dict[str, Any]]] = [
    ("server_version", "warning", {"version": 14}),
    ("server_version", "warning", {"version": 19}),
    ("pg_net", "warning", {"needs_net": True, "has_net": False}),
    ("replication_slots", "warning", {"slots": ["left_over"]}),
    ("dead_rows", "warning", {"tables": [{"name": "public.x", "dead": 100001, "live": 100000}]}),
    ("connections", "warning", {"connections": 97, "max_connections": 120}),
    ("transaction_ids", "broken", {"oldest_row": 1_000_000_001}),
    ("indexes", "broken", {"unbuilt_indexes": ["public.x_idx"]}),
    (
        "backups",
        "broken",
        {"archives": True, "archived_at": None, "archive_failed_at": "2026-11-29T10:00:00+00:00"},
    ),
    (
        "backups",
        "broken",
        {
            "archives": True,
            "archived_at": "2026-11-29T09:00:00+00:00",
            "archive_failed_at": "2026-11-29T10:00:00+00:00",
        },
    ),
]
WELL: list[tuple[str, dict[str, Any]]] = [
    ("server_version", {"version": 15}),
    ("server_version", {"version": 18}),
    ("pg_net", {"needs_net": False, "has_net": False}),
    ("dead_rows", {"tables": [{"name": "public.x", "dead": 100001, "live": 100001}]}),
    ("dead_rows", {"tables": [{"name": "public.x", "dead": 100000, "live": 0}]}),
    ("connections", {"connections": 96, "max_connections": 120}),
    ("transaction_ids", {"oldest_row": 1_000_000_000}),
    (
        "backups",
        {
            "archives": True,
            "archived_at": "2026-11-29T10:00:01+00:00",
            "archive_failed_at": "2026-11-29T10:00:00+00:00",
        },
    ),
]


def judged(fleet: Fleet, name: str, facts: dict[str, Any]) -> Row:
    """Judge the facts of this server with some of them changed."""
    return fleet.row(
        "select * from fleet.judge_server(fleet.server_facts() || %s::jsonb) where name = %s",
        json.dumps(facts),
        name,
    )


@pytest.mark.parametrize(("name", "state", "facts"), GIVEN)
def test_a_server_that_is_not_well_is_told(
    fleet: Fleet, name: str, state: str, facts: dict[str, Any]
) -> None:
    told = judged(fleet, name, facts)
    assert told["state"] == state
    assert told["found"] and told["hint"]


@pytest.mark.parametrize(("name", "facts"), WELL)
def test_a_server_that_is_well_is_not(fleet: Fleet, name: str, facts: dict[str, Any]) -> None:
    assert judged(fleet, name, facts)["state"] == "ok"


def test_facts_are_those_of_the_server(fleet: Fleet) -> None:
    facts = fleet.value("select fleet.server_facts()")
    assert facts["version"] == fleet.conn.info.server_version // 10000
    assert 0 < facts["connections"] <= facts["max_connections"]
    assert 0 < facts["oldest_row"] < 1_000_000_000
    assert facts["has_net"] and not facts["needs_net"] and not facts["archives"]


def found(conn: psycopg.Connection[Any], name: str) -> tuple[str, str]:
    row = conn.execute(
        "select state, coalesce(found, '') from fleet_checkup() where name = %s", (name,)
    ).fetchone()
    assert row is not None
    return (row[0], row[1])


@contextmanager
def slot(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Leave a slot that nobody reads."""
    conn.execute("select pg_create_logical_replication_slot('left_over', 'pgoutput')")
    try:
        yield
    finally:
        conn.execute("select pg_drop_replication_slot('left_over')")


@contextmanager
def half_an_index(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Let an index fail while it is being built beside others at work."""
    conn.execute("insert into owners (name) values ('twin'), ('twin')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("create unique index concurrently half on owners (name)")
    try:
        yield
    finally:
        conn.execute("drop index half")


@contextmanager
def no_net(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Take away the function by which the database calls others."""
    conn.execute("select fleet.set_setting('functions_url', '\"https://f.example.com\"')")
    conn.execute("alter function net.http_post rename to http_post_gone")
    try:
        yield
    finally:
        conn.execute("alter function net.http_post_gone rename to http_post")
        conn.execute("select fleet.set_setting('functions_url', 'null')")


@contextmanager
def many_dead(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Leave rows that nobody cleans up."""
    conn.execute(
        "create table many with (autovacuum_enabled = false)"
        " as select generate_series(0, 100000) as n"
    )
    conn.execute("delete from many")
    conn.execute("select pg_stat_force_next_flush()")
    try:
        yield
    finally:
        conn.execute("drop table many")


@contextmanager
def a_crowd(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Open more than four fifths of the connections that the server allows."""
    ((most,),) = conn.execute("select current_setting('max_connections')::integer").fetchall()
    with ExitStack() as stack:
        for _ in range(int(0.8 * most)):
            stack.enter_context(psycopg.connect(conn.info.dsn, password=conn.info.password))
        yield


@pytest.mark.parametrize(
    ("name", "fault", "state", "words"),
    [
        ("dead_rows", many_dead, "warning", "public.many (100001 dead)"),
        ("connections", a_crowd, "warning", "of 120 connections are in use"),
        ("replication_slots", slot, "warning", "left_over"),
        ("indexes", half_an_index, "broken", "half"),
        ("pg_net", no_net, "warning", "pg_net is not there"),
    ],
)
def test_a_fault_that_is_made_is_found(
    database: Database,
    name: str,
    fault: Callable[[psycopg.Connection[Any]], Any],
    state: str,
    words: str,
) -> None:
    with database.connect("supabase_admin", autocommit=True) as conn:
        assert found(conn, name) == ("ok", "")
        with fault(conn):
            told = found(conn, name)
        assert told[0] == state and words in told[1]
        assert found(conn, name) == ("ok", "")


def test_a_time_zone_that_the_server_lost_is_named(database: Database) -> None:
    with database.connect("supabase_admin") as conn:
        fleet = Fleet(conn)
        assert found(conn, "time_zones") == ("ok", "")
        fleet.run(
            "insert into fleet.owner_zones (owner_id, zone, devices) values (%s, %s, 1)",
            fleet.owner_id,
            "Mars/Olympus",
        )
        assert found(conn, "time_zones")[0] == "warning"
        assert "Mars/Olympus" in found(conn, "time_zones")[1]
        conn.rollback()


def test_every_check_is_tried_by_a_fault(fleet: Fleet) -> None:
    tests = Path(__file__).parents[2]
    files = (
        Path(__file__),
        Path(__file__).with_name("test_checkup.py"),
        tests / "ways" / "test_way_of_a_checkup.py",
    )
    text = "\n".join(path.read_text() for path in files)
    names = [row["name"] for row in fleet.rows("select name from fleet_checkup()")]
    assert [name for name in names if not re.search(f"[\"']{name}[\"']", text)] == []
