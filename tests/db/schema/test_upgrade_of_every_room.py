"""A database with rows in every room, as the version before left it, is whole in today's."""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from tests.conftest import Database
from tests.helpers.fleet import Fleet

from pgfleet.schema.migrate import migrate, status
from pgfleet_local.bootstrap import prepare_database
from pgfleet_local.server.binaries import find_binaries

# Two fleets with a row of everything, those that the tests of row security look at: a dump of the
# four schemas by `pg_dump --inserts`, without comments, default privileges, and fleet_worker.
OLDER = Path(__file__).parent / "older" / "every_room.sql.xz"
SCHEMAS = ("public", "fleet", "telemetry", "fleet_ledger")

TABLES = """
select format('%I.%I', c.relnamespace::regnamespace, c.relname) as name,
  array_agg(format('%I', a.attname) order by a.attnum) as columns
from pg_class as c
join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind = 'r' and c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
group by c.oid
"""
# What every migrate writes anew from its sources, and what it may find on this server.
OWN = {"fleet.time_zones", "fleet.tick_work", "fleet.pokes", "public.command_types"}

Digests = dict[str, tuple[list[str], int, str | None]]


@dataclass(frozen=True)
class Upgraded:
    """The database, what was in it before, and when its last moment was."""

    database: Database
    before: Digests
    moment: datetime


@pytest.fixture(scope="module")
def upgraded(clone: Callable[[str | None], AbstractContextManager[Any]]) -> Iterator[Upgraded]:
    """Restore the older one, look at it, and migrate it."""
    with clone(None) as made:
        prepare_database(made.url("supabase_admin"), cron=False, net=True)
        with made.connect() as older:
            older.execute(lzma.decompress(OLDER.read_bytes()))
        with made.connect(row_factory=dict_row) as older:
            tables = older.execute(TABLES).fetchall()
            before = digests(older, {one["name"]: one["columns"] for one in tables})
            moment = older.execute("select max(created_at) as at from device_commands").fetchone()
            # Also where no file has changed since: all that can be replaced is.
            older.execute("update fleet_ledger.sources set digest = 'of the version before'")
        assert moment is not None
        report = migrate(made.url())
        assert report.sources_applied
        yield Upgraded(made, before, moment["at"])


def digests(conn: psycopg.Connection[Any], tables: dict[str, list[str]]) -> Digests:
    """Give how many rows each table has, and one figure for all that is in these columns."""
    found: Digests = {}
    for name, columns in tables.items():
        row = conn.execute(
            sql.SQL(
                "select count(*) as n, md5(string_agg(x::text, e'\\n' order by x::text)) as digest"
                " from (select {} from {}) as x"
            ).format(sql.SQL(", ".join(columns)), sql.SQL(name))
        ).fetchone()
        assert row is not None
        found[name] = (columns, row["n"], row["digest"])
    return found


def test_it_is_up_to_date(upgraded: Upgraded) -> None:
    found = status(upgraded.database.url())
    assert (bool(found.pending), found.edited, found.leftovers) == (False, [], [])


def test_every_row_is_there_as_it_was(upgraded: Upgraded) -> None:
    with upgraded.database.connect(row_factory=dict_row) as conn:
        after = digests(conn, {name: columns for name, (columns, _, _) in upgraded.before.items()})

    assert sum(count > 0 for _, count, _ in upgraded.before.values()) > 75
    changed = {name for name, found in after.items() if found != upgraded.before[name]}
    assert changed - OWN == set()
    assert all(after[name][1] >= upgraded.before[name][1] for name in OWN)


def test_its_schema_is_that_of_a_new_database(upgraded: Upgraded, own_database: Database) -> None:
    there, new = schema_of(upgraded.database), schema_of(own_database)
    assert (sorted(there - new), sorted(new - there)) == ([], [])


def schema_of(database: Database) -> set[str]:
    """Give the lines of a dump, but for partitions, which follow the day, and a role's grants.

    A condition that was restored has parentheses of its own.
    """
    words = [word for schema in SCHEMAS for word in ("-n", schema)]
    dumped = subprocess.run(
        [
            *(find_binaries().program("pg_dump"), "--schema-only", "--no-comments"),
            *("-T", "telemetry.points_*", *words, "--dbname", database.url("supabase_admin")),
        ],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    left_out = ("--", "\\", "ALTER DEFAULT PRIVILEGES", "SET ")
    return {
        line.replace("(", "").replace(")", "")
        for line in dumped.splitlines()
        if line.strip()
        and not line.startswith(left_out)
        and "fleet_worker" not in line
        and "points_2" not in line
    }


def test_it_goes_on_where_it_was(upgraded: Upgraded) -> None:
    moment = upgraded.moment
    with upgraded.database.connect() as conn:
        fleet = Fleet(conn)
        owed = fleet.row(
            "select device_id, count(*) as n from device_commands"
            " where status = 'pending' and not_before <= %s"
            " group by device_id order by device_id limit 1",
            moment + timedelta(minutes=1),
        )
        claimed = fleet.claim(owed["device_id"], 100, now=moment + timedelta(minutes=1))
        assert len(claimed) == owed["n"] > 0
        for command in claimed:
            ended = fleet.finish(
                owed["device_id"], command, now=moment + timedelta(minutes=2), result={}
            )
            assert ended == {"accepted": True, "status": "completed"}

        nightly = fleet.row("select id, next_run_at from schedules where name = 'mine-nightly'")
        fleet.tick_until_idle(nightly["next_run_at"])
        ran = fleet.row(
            "select count(*) as n from device_commands as c join schedule_runs as r"
            " on r.id = c.run_id where r.schedule_id = %s and r.scheduled_for = %s",
            nightly["id"],
            nightly["next_run_at"],
        )
        assert ran["n"] == 1
        conn.rollback()
