"""What only reads may ask a replica: every list and all insight, on one that really streams."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from tests.conftest import Database
from tests.helpers.replica import streaming_replica
from tests.helpers.serving import serving
from typer.testing import CliRunner

from pgfleet.demo.school import PEOPLE
from pgfleet.main import app
from pgfleet.schema.sources import sql_folder
from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings
from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.server.cluster import Cluster

NOWHERE = "postgresql://postgres@127.0.0.1:9/postgres?connect_timeout=1"


@dataclass(frozen=True)
class Pair:
    """A database, and the same one on the replica."""

    primary: Database
    replica: Database
    feed: str


@pytest.fixture(scope="module")
def pair(
    cluster: Cluster, database: Database, fast_folder: Path, free_port: Callable[[], int]
) -> Iterator[Pair]:
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, cluster.settings.password("fleet_worker"))
    with database.connect(autocommit=True) as conn:
        conn.execute((sql_folder() / "seed" / "demo.sql").read_bytes())
        conn.execute("select fleet.grant_worker()")
        conn.execute(
            "select fleet.set_setting('default_owner', to_jsonb(id::text)) from owners limit 1"
        )
        conn.execute("select send_command(id, 'lock') from devices where platform = 'windows'")
        conn.execute("select fleet.tick()")
        made = conn.execute("select create_calendar_feed()").fetchone()
    assert made is not None
    with streaming_replica(cluster, fast_folder / "replica", free_port()) as settings:
        yield Pair(database, Database(database.name, settings), made[0]["token"])


def run(pair: Pair, *words: str, main: str = NOWHERE) -> Any:
    """Run a command to which the replica was named, and a main database that is away."""
    result = CliRunner().invoke(
        app,
        list(words),
        env={"PGFLEET_DATABASE_URL": main, "PGFLEET_READ_DATABASE_URL": pair.replica.url()},
        prog_name="pgfleet",
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_what_is_written_is_read_a_moment_later(pair: Pair) -> None:
    with (
        closing(pair.primary.connect(autocommit=True)) as primary,
        closing(pair.replica.connect(autocommit=True)) as replica,
    ):
        primary.execute("insert into device_groups (name, selector) values ('new here', '{}')")
        query = "select from group_list where name = 'new here'"
        wait_for(lambda: replica.execute(query).fetchone() is not None)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            replica.execute("delete from device_groups where name = 'new here'")


@pytest.mark.parametrize(
    "words",
    [
        "audit list",
        "blackout list",
        "command list",
        "command types",
        "deploy list",
        "device clones",
        "device codes",
        "device list --group labs",
        "device show pc-0001",
        "feed list",
        "file list",
        "geo explain pc-0001",
        "geo list",
        "geo preview --group labs --between 22:00-06:00 --timezone Europe/Berlin",
        "group devices labs",
        "group list",
        "integration list",
        "location list",
        "owner list",
        "owner members 'Demo school'",
        "owner usage 'Demo school'",
        "package list",
        "profile assignments",
        "profile drift",
        "profile list",
        "run list",
        "schedule conflicts",
        "schedule describe 'Lock the labs'",
        "schedule diff 'Lock the labs' --daily 03:00",
        "schedule explain 'Lock the labs' 2026-03-29T02:30 --device pc-0001",
        "schedule export",
        "schedule history 'Lock the labs'",
        "schedule list",
        "schedule preview --action clear_cache --group labs --daily 02:30",
        "schedule show 'Lock the labs'",
        "schedule simulate",
        "schedule stats",
        "schedule upcoming 'Lock the labs'",
        "setting list",
        "status",
        "template list",
        "webhook list",
        "--as ada@school.example device list",
    ],
)
def test_a_verb_that_changes_nothing_asks_the_replica(pair: Pair, words: str) -> None:
    result = run(pair, *shlex.split(words), "--json")

    # A status with something to see to ends with 1, and says what.
    assert result.exit_code in ((0, 1) if words == "status" else (0,)), result.stderr
    assert result.stdout


@pytest.mark.parametrize("words", ["schedule pause 1", "group delete labs --yes"])
def test_a_verb_that_changes_something_asks_the_database_itself(pair: Pair, words: str) -> None:
    result = run(pair, *words.split())

    assert result.exit_code != 0
    assert "no database answers there" in result.stderr


def test_a_database_that_is_typed_has_not_the_replica_of_another(pair: Pair) -> None:
    before = run(pair, "-d", NOWHERE, "group", "list")
    after = run(pair, "group", "list", "-d", NOWHERE)
    both = run(pair, "-d", NOWHERE, "--read-database-url", pair.replica.url(), "group", "list")

    assert (before.exit_code != 0, after.exit_code != 0, both.exit_code) == (True, True, 0)


def test_a_signed_in_person_reads_on_the_replica_what_is_theirs(pair: Pair, sign_in: Any) -> None:
    with closing(pair.replica.connect()) as conn:
        sign_in(conn, PEOPLE["ada"])
        whole = conn.execute("select export_schedules()").fetchone()
        assert whole is not None and len(whole[0]["schedules"]) >= 2
        conn.rollback()
        # Who was never here has nothing, and cannot be given it here.
        sign_in(conn, "11111111-2222-4333-8444-555555555555")
        assert conn.execute("select count(*) from device_list").fetchone() == (0,)
        assert conn.execute("select export_schedules()").fetchone() is not None


def test_functions_answer_lists_and_feeds_from_the_replica(
    pair: Pair, free_port: Callable[[], int]
) -> None:
    secret = "a secret of thirty-two bytes or more"
    claims = {"sub": PEOPLE["ada"], "role": "authenticated", "exp": int(time.time()) + 600}
    headers = {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}
    settings = FunctionSettings(
        database_url=NOWHERE,
        read_database_url=pair.replica.url("fleet_worker"),
        jwt_secret=secret,
    )
    with (
        serving(create_app(settings), free_port()) as url,
        httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=20) as http,
    ):
        tasks = http.get("/api/schedule/tasks")
        feed = http.get(f"/calendar-feed/{pair.feed}.ics")
        made = http.post("/api/schedule/tasks", json={"task_name": "x", "task_type": "command"})

    assert tasks.status_code == 200, tasks.text
    assert "Lock the labs" in json.dumps(tasks.json())
    assert (feed.status_code, feed.text[:15]) == (200, "BEGIN:VCALENDAR")
    assert made.status_code == 503
