"""Many ask and make at once, and each action is there once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Database

CALLERS = 50
SCHEDULES = 5


@pytest.fixture
def owned(own_database: Database) -> tuple[Database, str]:
    """Give a database in which one device owes geo schedules whose actions are all gone."""
    with own_database.connect() as conn:
        conn.execute("insert into owners (name) values ('school')")
        conn.execute(
            "insert into devices (owner_id, hostname) select id, 'tablet' from owners"
            " where name = 'school'"
        )
        now = datetime.now(UTC)
        for number in range(SCHEDULES):
            # Whole days that begin hours from now, so that none comes or goes while all ask.
            minute = ((now.hour + 6) * 60 + number) % 1440
            spec = {
                **{"name": f"block {number}", "device": "tablet", "apps": ["chat"]},
                **{"start_minute": minute, "end_minute": minute, "timezone": "UTC"},
            }
            conn.execute(
                "select create_geo_schedule(%s || jsonb_build_object('owner_id', id))"
                " from owners where name = 'school'",
                (Jsonb(spec),),
            )
        conn.execute("delete from geo_actions")
        row = conn.execute("select auth_id from devices where hostname = 'tablet'").fetchone()
    assert row is not None
    return own_database, str(row[0])


def together(works: list[Callable[[], None]]) -> list[BaseException]:
    errors: list[BaseException] = []
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        gate.wait()
        try:
            work()
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_fifty_callers_for_one_device_and_the_job_at_once(owned: tuple[Database, str]) -> None:
    database, auth_id = owned
    answers: list[int] = []
    claims = json.dumps({"role": "authenticated", "sub": auth_id})

    def ask(connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("select geo_actions_due()").fetchone()
        connection.commit()
        assert row is not None
        answers.append(len(row[0]["actions"]))

    def tend(connection: psycopg.Connection[Any]) -> None:
        connection.autocommit = True
        connection.execute("call fleet.tend_geo_schedules()")

    connections = [database.connect() for _ in range(CALLERS + 2)]
    try:
        for connection in connections[:CALLERS]:
            connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
            connection.commit()
        works = [lambda one=one: ask(one) for one in connections[:CALLERS]]
        works += [lambda one=one: tend(one) for one in connections[CALLERS:]]
        assert together(works) == []
    finally:
        for connection in connections:
            connection.close()

    # Two weeks ahead and today, for each schedule; what is over today is not owed any more.
    assert len(set(answers)) == 1
    assert answers[0] >= 14 * SCHEDULES
    with database.connect() as conn:
        doubled = conn.execute(
            "select geo_schedule_id, from_date from geo_actions group by 1, 2 having count(*) > 1"
        ).fetchall()
        assert doubled == []
        before = conn.execute("select count(*), max(id) from geo_actions").fetchone()
        conn.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
        conn.execute("select geo_actions_due()")
        # No identity was spent on what was there already.
        assert conn.execute("select count(*), max(id) from geo_actions").fetchone() == before


def await_lock(connection: psycopg.Connection[Any], pid: int) -> None:
    end = time.monotonic() + 30
    asked = "select cardinality(pg_blocking_pids(%s)) > 0"
    while connection.execute(asked, (pid,)).fetchone() != (True,):
        assert time.monotonic() < end, "it waits for nobody"
        time.sleep(0.01)


def remove(connection: psycopg.Connection[Any], geo: int) -> None:
    connection.execute(
        "update geo_schedules set delete_started_date = now(), delay_ends_at = now(),"
        " deletion_status = 'DELETED' where id = %s",
        (geo,),
    )
    connection.execute("delete from geo_schedules where id = %s", (geo,))


def make(connection: psycopg.Connection[Any], geo: int) -> None:
    connection.execute("select fleet.create_geo_actions(array[%s::bigint], now())", (geo,))


@pytest.mark.parametrize(("first", "second"), [(make, remove), (remove, make)])
def test_no_action_is_left_of_what_is_removed_while_its_actions_are_made(
    owned: tuple[Database, str],
    first: Callable[[psycopg.Connection[Any], int], None],
    second: Callable[[psycopg.Connection[Any], int], None],
) -> None:
    database, _ = owned
    with database.connect() as one, database.connect() as other, database.connect() as seen:
        seen.autocommit = True
        (geo,) = seen.execute("select min(id) from geo_schedules").fetchone() or (0,)

        def follow() -> None:
            second(other, geo)
            other.commit()

        first(one, geo)
        waiting = threading.Thread(target=follow)
        waiting.start()
        await_lock(seen, other.info.backend_pid)
        one.commit()
        waiting.join()
        left = seen.execute("select count(*) from geo_actions where geo_schedule_id = %s", (geo,))
        assert left.fetchone() == (0,)
