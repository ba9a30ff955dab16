"""Points by time: each once, partitions by the day, the latest kept, hours counted anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.sandbox import wait_until

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
OWNER = UUID("00000000-0000-4000-8000-000000000001")


def store(db: Any, *points: tuple[int, datetime, Any], **how: Any) -> dict[str, Any]:
    """Store points (device, time, data) as the functions do."""
    batch = uuid4()
    for device, at, data in points:
        db.execute(
            "insert into telemetry.staging values (%s, %s, '/', %s, md5(%s)::uuid, %s, %s, %s,"
            " null, %s)",
            (
                batch,
                device,
                at,
                json.dumps(data),
                OWNER,
                how.get("source", "pull"),
                how.get("provisional", False),
                json.dumps(data),
            ),
        )
    row = db.execute(
        "select telemetry.worker_store(%s, %s, %s)",
        (batch, how.get("keep_days", 90), how.get("now", NOW)),
    ).fetchone()
    found: dict[str, Any] = row[0]
    return found


def points(db: Any) -> list[tuple[Any, ...]]:
    query = "select device_id, at, is_provisional from telemetry.points order by 2"
    found: list[tuple[Any, ...]] = db.execute(query).fetchall()
    return found


def hours(db: Any) -> list[tuple[Any, ...]]:
    return db.execute(
        "select field, points, smallest, largest, total from telemetry.hourly order by hour, field"
    ).fetchall()


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def test_the_same_point_is_stored_once_whichever_way_it_comes(db: Any) -> None:
    first = store(db, (1, ago(hours=1), {"t": 1}), (1, ago(hours=1), {"t": 1}), source="push")
    again = store(db, (1, ago(hours=1), {"t": 1}), (1, ago(minutes=5), {"t": 1}))

    assert (first["given"], first["stored"], first["known"]) == (2, 1, 1)
    assert (again["given"], again["stored"], again["known"]) == (2, 1, 1)
    assert len(points(db)) == 2


def test_late_points_land_in_the_partition_of_their_day(db: Any) -> None:
    store(db, (1, ago(days=40), 1), (1, ago(days=3), 2), (1, ago(hours=1), 3))

    rows = db.execute(
        "select tableoid::regclass::text from telemetry.points order by at"
    ).fetchall()
    assert [name for (name,) in rows] == [
        "telemetry.points_20260506",
        "telemetry.points_20260612",
        "telemetry.points_20260615",
    ]


def test_times_that_cannot_be_are_counted_and_make_no_partition(db: Any) -> None:
    before = db.execute("select count(*) from telemetry.partition_days()").fetchone()
    told = store(db, (1, datetime(1970, 1, 1, tzinfo=UTC), 1), (1, NOW + timedelta(days=3), 2))

    assert (told["outside"], told["stored"], told["known"]) == (2, 0, 0)
    assert db.execute("select count(*) from telemetry.partition_days()").fetchone() == before


def test_the_latest_point_is_kept_and_a_late_one_does_not_take_its_place(db: Any) -> None:
    told = store(db, (1, ago(minutes=5), {"t": 1}), (2, ago(minutes=9), {"t": 2}))
    assert {(one["device_id"], one["data"]["t"]) for one in told["latest"]} == {(1, 1), (2, 2)}

    told = store(db, (1, ago(minutes=7), {"t": 3}), (2, ago(minutes=2), {"t": 4}))

    assert [one["device_id"] for one in told["latest"]] == [2]
    rows = db.execute("select device_id, data from telemetry.latest order by 1").fetchall()
    assert rows == [(1, {"t": 1}), (2, {"t": 4})]


def test_a_push_without_a_time_gives_way_to_the_pulled_point(db: Any) -> None:
    store(db, (1, ago(minutes=2), {"t": 1}), source="push", provisional=True)
    store(db, (1, ago(minutes=1), {"t": 1}), source="push", provisional=True)
    assert [one[2] for one in points(db)] == [True, True]

    told = store(db, (1, ago(minutes=3), {"t": 1}), (1, ago(minutes=2.5), {"t": 9}))

    assert (told["stored"], told["replaced"]) == (2, 2)
    assert points(db) == [(1, ago(minutes=3), False), (1, ago(minutes=2.5), False)]


@pytest.mark.parametrize(("minutes", "kept"), [(11, True), (9, False)])
def test_a_pushed_point_is_that_of_ten_minutes_and_no_more(
    db: Any, minutes: int, kept: bool
) -> None:
    store(db, (1, ago(minutes=20), {"t": 1}), source="push", provisional=True)
    told = store(db, (1, ago(minutes=20 + minutes), {"t": 1}))
    assert told["replaced"] == (0 if kept else 1)


def test_a_push_of_a_point_that_is_there_is_dropped(db: Any) -> None:
    store(db, (1, ago(minutes=3), {"t": 1}))
    told = store(db, (1, ago(minutes=2), {"t": 1}), source="push", provisional=True)
    assert (told["stored"], told["known"]) == (0, 1)
    assert len(points(db)) == 1


@pytest.mark.parametrize("pushed_first", [True, False])
def test_a_push_and_its_pull_at_one_moment_are_one_point(
    connect: Callable[..., Fleet], pushed_first: bool
) -> None:
    one, other = connect(), connect()
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"

    def bring(fleet: Fleet, is_push: bool) -> None:
        way = {"source": "push", "provisional": True} if is_push else {}
        with fleet.conn.transaction():
            store(fleet.conn, (1, ago(minutes=2 if is_push else 3), {"t": 1}), **way)

    with ThreadPoolExecutor(1) as pool:
        with one.conn.transaction():
            bring(one, pushed_first)
            second = pool.submit(bring, other, not pushed_first)
            wait_until(lambda: second.done() or one.value(waiting), 60)
        second.result(60)
    assert points(one.conn) == [(1, ago(minutes=3), False)]


def test_hours_are_counted_and_counted_anew_when_points_change(db: Any) -> None:
    hour = NOW.replace(minute=0) - timedelta(hours=2)
    store(db, (1, hour, {"t": 1, "gps": {"lat": 60.5}}), (1, hour + timedelta(minutes=5), {"t": 4}))
    db.execute("select telemetry.worker_roll_up()")
    assert hours(db) == [
        ("", 2, None, None, None),
        ("gps.lat", 1, 60.5, 60.5, 60.5),
        ("t", 2, 1, 4, 5),
    ]

    store(db, (1, hour + timedelta(minutes=50), {"t": -1, "name": "x"}))
    assert db.execute("select telemetry.worker_roll_up()").fetchone() == (1,)
    assert hours(db)[-1] == ("t", 3, -1, 4, 4)
    assert db.execute("select telemetry.worker_roll_up()").fetchone() == (0,)


@pytest.mark.parametrize("data", [7, [1, 2], "x", None, {"t": 1e308}, {"t": {"u": {"v": 1}}}])
def test_whatever_the_data_is_can_be_rolled_up(db: Any, data: Any) -> None:
    store(db, (1, ago(hours=1), data))
    assert db.execute("select telemetry.worker_roll_up()").fetchone() == (1,)
    fields = {"": 1} | ({"value": 1} if data == 7 else {})
    assert {row[0]: row[1] for row in hours(db)} == fields


def test_days_that_are_old_are_dropped_and_days_to_come_are_made(db: Any) -> None:
    store(db, (1, ago(days=40), 1), (1, ago(days=29), 2))

    told = db.execute("select telemetry.worker_tend(30, %s)", (NOW,)).fetchone()[0]

    assert told["dropped"] == 1
    assert [row[1] for row in points(db)] == [ago(days=29)]
    days = [day for (day,) in db.execute("select telemetry.partition_days() order by 1")]
    assert (NOW + timedelta(days=7)).date() in days


def test_gaps_are_found_also_one_that_lasts(db: Any) -> None:
    times = [ago(hours=6), ago(hours=5.9), ago(hours=3), ago(hours=2.9)]
    store(db, *((1, at, n) for n, at in enumerate(times)))

    rows = db.execute(
        "select gap_from, gap_to from telemetry.read_gaps('{1}', null, %s, %s, '1 hour')",
        (ago(hours=8), NOW),
    ).fetchall()

    assert rows == [(times[3], NOW), (times[1], times[2])]


def test_people_and_devices_read_what_is_theirs(db: Any, sign_in: Any) -> None:
    person, other = uuid4(), uuid4()
    db.execute("insert into owners (id, name) values (%s, 'mine'), (%s, 'theirs')", (person, other))
    device = db.execute(
        "insert into devices (owner_id, hostname) values (%s, 'pc') returning id", (person,)
    ).fetchone()[0]
    store(db, (device, ago(hours=1), {"t": 1}))
    db.execute("update telemetry.points set owner_id = %s", (person,))
    history = "select count(*) from device_telemetry_history where device_id = %s"
    listed = "select count(*) from telemetry_points(%s, %s, %s)"

    sign_in(db, person)
    assert db.execute(history, (device,)).fetchone() == (1,)
    assert db.execute(listed, (device, ago(hours=2), NOW)).fetchone() == (1,)
    sign_in(db, other)
    assert db.execute(history, (device,)).fetchone() == (0,)
    with pytest.raises(psycopg.Error, match="was not found"):
        db.execute(listed, (device, ago(hours=2), NOW))


def test_the_tables_are_such_that_they_can_be_anywhere(db: Any) -> None:
    of_telemetry = "select oid from pg_class where relnamespace = 'telemetry'::regnamespace"
    for found in (
        f"select tgname from pg_trigger where tgrelid in ({of_telemetry}) and not tgisinternal",
        f"select polname from pg_policy where polrelid in ({of_telemetry})",
        f"select conname from pg_constraint where contype = 'f' and conrelid in ({of_telemetry})",
        "select relname from pg_class where relnamespace = 'telemetry'::regnamespace"
        " and relrowsecurity",
        "select proname from pg_proc where pronamespace = 'telemetry'::regnamespace"
        " and prosrc ~ '(^|[^a-z])(fleet|public|auth|request)\\.'",
        "select proname from pg_proc as p where pronamespace = 'telemetry'::regnamespace and ("
        " has_function_privilege('public', p.oid, 'execute')"
        " or obj_description(p.oid, 'pg_proc') is null"
        " or (prosqlbody is null and"
        " not 'search_path=pg_catalog, pg_temp' = any (coalesce(proconfig, '{}'))))",
        "select relname from pg_class where relnamespace = 'telemetry'::regnamespace and relkind"
        " in ('r', 'p') and relname !~ '_\\d{8}$' and obj_description(oid) is null",
    ):
        assert db.execute(found).fetchall() == [], found
