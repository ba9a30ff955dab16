"""A dump of the documented schemas is a whole: restored, it is up to date and ticks."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet

from pgfleet.schema.migrate import migrate, status
from pgfleet_local.server.cluster import Cluster

OPERATE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "operate.md"


def documented_schemas() -> list[str]:
    (line,) = [line for line in OPERATE.read_text().splitlines() if line.startswith("pg_dump ")]
    words = line.split()
    return [words[n + 1] for n, word in enumerate(words) if word == "-n"]


def copy(cluster: Cluster, source: Database, target: Database) -> None:
    if not Path(cluster.binaries.program("pg_dump")).exists():
        pytest.skip("this Postgres comes without pg_dump")
    dumped = subprocess.run(
        [
            cluster.binaries.program("pg_dump"),
            *[word for schema in documented_schemas() for word in ("-n", schema)],
            "--dbname",
            source.url("supabase_admin"),
        ],
        capture_output=True,
        check=True,
    ).stdout
    # Every new database has this one.
    script = dumped.replace(b"CREATE SCHEMA public;", b"")
    subprocess.run(
        [
            *(cluster.binaries.program("psql"), "-q", "-v", "ON_ERROR_STOP=1"),
            *("--dbname", target.url("supabase_admin")),
        ],
        input=script,
        check=True,
        capture_output=True,
    )


def test_what_is_restored_is_up_to_date_and_ticks(
    cluster: Cluster, own_database: Database, empty_database: Any
) -> None:
    with own_database.connect(autocommit=True) as conn:
        fleet = Fleet(conn)
        device = fleet.device("pc-1")
        made = fleet.create(
            device_ids=[device],
            recurrence_type="interval",
            recurrence_config={"hours": 1},
            start_time=datetime.now(UTC).isoformat(),
        )
        owner = fleet.owner_id
    copy(cluster, own_database, empty_database)

    found = status(empty_database.url())
    assert (bool(found.pending), found.edited, found.leftovers) == (False, [], [])
    report = migrate(empty_database.url())
    assert not report.changed
    with psycopg.connect(empty_database.url(), autocommit=True) as conn:
        # What is outside of the schemas comes with the migrate.
        assert conn.execute(
            "select count(*) from pg_policies where tablename = 'messages'"
            " and policyname = 'pgfleet_messages_select_own_topic'"
        ).fetchone() == (1,)
        restored = Fleet(conn, owner)
        due = restored.schedule(made["id"])["next_run_at"]
        restored.tick_until_idle(due)
        assert len(restored.runs(made["id"])) == 1
        assert restored.schedule(made["id"])["next_run_at"] > due
