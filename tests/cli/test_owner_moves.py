"""An owner with a row of everything leaves for another database, and nothing of it is lost."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.db.security.conftest import build_world
from tests.helpers.two_fleets import World

Pgfleet = Any
THERE = "https://two.example.com"


@dataclass
class Journey:
    """An owner that has moved: what was here, what is there, and how each step ended."""

    world: World
    there: Any
    file: Path
    before: dict[str, list[str]]
    said: list[Any]


def rows_of(database: Any, owner: Any) -> dict[str, list[str]]:
    """Give all rows of an owner, by table."""
    with database.connect("supabase_admin") as conn:
        tables = conn.execute("select name, condition from fleet.owned_tables()").fetchall()
        found = {}
        for name, condition in tables:
            query = f"select to_jsonb(x)::text from {name} as x where {condition}"
            found[name] = sorted(
                row[0] for row in conn.execute(query.replace("$1", "%(o)s"), {"o": owner})
            )
    return found


def value(database: Any, query: str, *values: Any) -> Any:
    with database.connect("supabase_admin", autocommit=True) as conn:
        found = conn.execute(query.encode(), values or None).fetchone()
    return found and found[0]


@pytest.fixture(scope="module")
def here(clone: Any, template: Any) -> Iterator[Any]:
    with clone(template("new")) as made:
        yield made


@pytest.fixture(scope="module")
def there(clone: Any, template: Any) -> Iterator[Any]:
    with clone(template("new")) as made:
        yield made


@pytest.fixture
def journey(bare: Pgfleet, here: Any, there: Any, tmp_path_factory: Any, request: Any) -> Journey:
    known = getattr(request.module, "_journey", None)
    if known is None:
        known = request.module._journey = travel(bare, here, there, tmp_path_factory)
    return known


def travel(bare: Pgfleet, here: Any, there: Any, folders: Any) -> Journey:
    world = build_world(here)
    owner = str(world.mine.owner)
    file = folders.mktemp("move") / "mine.pgfleet"
    value(there, "select fleet.number_database(7)")
    key = bare("-d", there.url(), "owner", "arrival-key", "--json").data["key"]
    said = [bare("-d", here.url(), "owner", "export", owner, str(file), "--key", key, "--json")]
    before = rows_of(here, owner)
    said.append(bare("-d", there.url(), "owner", "import", str(file), "--json"))
    for answer in said:
        assert answer.code == 0, answer.err
    return Journey(world, there, file, before, said)


def test_every_row_is_there_as_it_was(journey: Journey) -> None:
    after = rows_of(journey.there, journey.world.mine.owner)
    assert {name for name, rows in journey.before.items() if rows} >= {
        "public.owners", "public.devices", "public.schedules", "public.schedule_runs",
        "public.device_commands", "public.audit_log", "public.pg_cron_secrets",
        "fleet.device_credentials", "fleet.run_zones", "telemetry.points",
    }  # fmt: skip
    assert after == journey.before
    assert journey.said[1].data["rows"] == sum(map(len, journey.before.values()))
    # Nothing is left aside, and triggers work as before.
    assert value(journey.there, "select count(*) from fleet.arriving_rows") == 0
    off = "select count(*) from pg_trigger where not tgisinternal and tgenabled <> 'O'"
    assert value(journey.there, off) == 0


def test_the_file_tells_nobody_else_anything(journey: Journey, bare: Pgfleet, here: Any) -> None:
    text = journey.file.read_text()
    assert journey.file.stat().st_mode & 0o077 == 0
    for word in ("mine-pc", "mine-mdm-key-5f1a", "hooks.example.com"):
        assert word not in text
    # Sealed to the key of another database than this one.
    refused = bare("-d", here.url(), "owner", "import", str(journey.file))
    assert refused.code == 1
    assert "sealed to another database" in refused.err


@pytest.mark.parametrize("harm", ["cut", "changed", "swapped", "left out"])
def test_a_file_that_was_touched_is_refused_and_leaves_nothing(
    journey: Journey, bare: Pgfleet, clone: Any, template: Any, tmp_path: Path, harm: str
) -> None:
    lines = journey.file.read_text().splitlines()
    match harm:
        case "cut":
            lines = lines[:-1]
        case "changed":
            lines[3] = lines[3][:40] + ("B" if lines[3][40] == "A" else "A") + lines[3][41:]
        case "swapped":
            lines[3], lines[4] = lines[4], lines[3]
        case "left out":
            del lines[4]
    touched = tmp_path / "touched.pgfleet"
    touched.write_text("\n".join(lines) + "\n")
    with clone(template("new")) as third:
        value(third, "select fleet.number_database(9)")
        # As if it were the database that the file is for.
        secret = value(journey.there, "select fleet.keep_move_key('x')")
        value(third, "select fleet.keep_move_key(%s)", secret)
        refused = bare("-d", third.url(), "owner", "import", str(touched))
        assert refused.code == 1, refused.out
        assert "the file" in refused.err
        assert not any(rows_of(third, journey.world.mine.owner).values())


def test_an_owner_arrives_once_and_only_where_ids_are_others(
    journey: Journey, bare: Pgfleet, clone: Any, template: Any
) -> None:
    again = bare("-d", journey.there.url(), "owner", "import", str(journey.file))
    assert "is here already" in again.err
    with clone(template("new")) as third:
        secret = value(journey.there, "select fleet.keep_move_key('x')")
        value(third, "select fleet.keep_move_key(%s)", secret)
        refused = bare("-d", third.url(), "owner", "import", str(journey.file))
        assert "both databases have the number 0" in refused.err


def test_here_it_is_only_looked_at_and_its_devices_wait(journey: Journey) -> None:
    mine = journey.world.mine
    with journey.world.acting("member") as conn:
        assert conn.execute("select count(*) from devices").fetchone() == (3,)
        for query in ("select pause_schedule(%s)", "update schedules set priority = 3 where id = %s"
                      " returning public.pause_schedule(id)"):  # fmt: skip
            found = journey.world.outcome(conn, query, mine.schedule)
            assert found is None or found[0] == "PT503", found
    with journey.world.acting("device") as conn:
        for query in ("select claim_commands(5)", "select device_checkin('{}')",
                      "select finish_command(1, 1, 'completed')"):  # fmt: skip
            assert journey.world.outcome(conn, query)[::2] == ("PT503", "owner_moving")
    with journey.world.acting("fleet_worker") as conn:
        for query, given in (
            ("select fleet.worker_device_token(%s)", mine.plain_secrets[0]),
            ("select fleet.worker_enroll_device(%s, 'new-pc')", mine.plain_code),
            ("select fleet.worker_take_integration_webhook(%s, '{}')", mine.plain_webhook_token),
        ):
            assert journey.world.outcome(conn, query, given)[::2] == ("PT503", "owner_moving")
        claims = ("select count(*) from fleet.worker_claim_deliveries()"
                  " where owner_id = %s")  # fmt: skip
        assert journey.world.outcome(conn, claims, mine.owner) == 0
    # The neighbour notices nothing.
    with journey.world.acting("foreign_device") as conn:
        assert isinstance(journey.world.outcome(conn, "select device_checkin('{}')"), dict)


def test_over_there_it_goes_on(journey: Journey) -> None:
    mine = journey.world.mine
    there = World(journey.there, mine, mine, journey.world.callers)
    with there.acting("device") as conn:
        claimed = conn.execute("select command_id from claim_commands(5)").fetchall()
        assert (mine.command,) in claimed
    with there.acting("member") as conn:
        found = there.outcome(conn, "select status from pause_schedule(%s)", mine.schedule)
        assert found == "paused"
        made = there.outcome(conn, "select id from run_schedule(%s)", mine.schedule)
        assert made > 7 * 2**44


def test_moved_devices_hear_where_and_then_nothing_is_left(
    journey: Journey, bare: Pgfleet, here: Any
) -> None:
    mine, owner = journey.world.mine, str(journey.world.mine.owner)
    early = bare("-d", here.url(), "owner", "purge", owner, "--yes")
    assert "does not live elsewhere" in early.err
    theirs = rows_of(here, journey.world.theirs.owner)
    words = ("owner", "moved-to", owner, THERE, "--anon-key", "anon-2", "--yes", "--json")
    assert bare("-d", here.url(), *words).data["devices"] == 2
    back = bare("-d", here.url(), "owner", "stay", owner)
    assert "lives elsewhere already" in back.err
    rung = "select count(*) from fleet.doorbells where owner_id = %s and command_type = 'moved'"
    assert value(here, rung, owner) == 2
    asked = "select fleet.worker_device_token(%s)"
    told = [value(here, asked, mine.plain_secrets[0])]

    gone = bare("-d", here.url(), "owner", "purge", owner, "--yes", "--json")
    assert gone.code == 0, gone.err
    left = {name: rows for name, rows in rows_of(here, owner).items() if rows}
    assert left == {}
    told.append(value(here, asked, mine.plain_secrets[0]))
    place = {
        "device_id": mine.device, "url": THERE,
        "functions_url": f"{THERE}/functions/v1", "anon_key": "anon-2",
    }  # fmt: skip
    for one in told:
        assert one["moved_to"] == place
        said = "\n".join(["pgfleet moved", *map(str, place.values())])
        key = hashlib.sha256(mine.plain_secrets[0].encode()).digest()
        assert hmac.compare_digest(
            one["signature"], hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
        )
    with pytest.raises(psycopg.Error, match="not known"):
        value(here, asked, mine.plain_secrets[0][::-1])
    # Nothing of the neighbour went with it, and the log can be touched as little as before.
    after = rows_of(here, journey.world.theirs.owner)
    assert {n: len(rows) for n, rows in after.items()} == {n: len(r) for n, r in theirs.items()}
    with pytest.raises(psycopg.Error, match="append-only"):
        value(here, "delete from audit_log returning id")


def test_an_owner_that_stays_goes_on_here(bare: Pgfleet, clone: Any, template: Any) -> None:
    with clone(template("new")) as home:
        owner = value(home, "select id from create_owner('School 8')")
        value(home, "select fleet.begin_move(%s)", owner)
        device = value(home, "insert into devices (owner_id, hostname) values (%s, 'x')"
                       " returning auth_id", owner)  # fmt: skip
        claims = json.dumps({"role": "authenticated", "sub": str(device)})
        with home.connect() as conn:
            conn.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
            conn.commit()
            with pytest.raises(psycopg.Error, match="being moved"):
                conn.execute("select device_checkin('{}')")
            conn.rollback()
            stayed = bare("-d", home.url(), "owner", "stay", "School 8", "--json")
            assert stayed.data["was_held"] is True
            conn.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
            assert conn.execute("select device_checkin('{}') -> 'pending'").fetchone() == (0,)
