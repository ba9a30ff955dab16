"""Each check finds the fault that it is for, and tells it with what to do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.conftest import Database
from tests.helpers.fleet import Fleet, Row
from tests.helpers.mdm import Mdm

NOW = datetime.now(UTC)
Break = Callable[[Fleet], None]

# What a database without ticker, archive and functions has to say of itself.
WITHOUT_MORE = {"ticks", "backups"}


def checkup(fleet: Fleet, now: datetime = NOW) -> dict[str, Row]:
    """Give every check by its name."""
    return {row["name"]: row for row in fleet.rows("select * from fleet_checkup(%s)", now)}


@pytest.fixture(autouse=True)
def login_of_the_functions(database: Database) -> None:
    """Give the login its rights, which some other test may have made on this server."""
    with database.connect() as conn:
        conn.execute("select fleet.grant_worker()")


def faults(fleet: Fleet, now: datetime = NOW) -> dict[str, str]:
    """Give the state of what is not well, but for what a bare database cannot have."""
    found = checkup(fleet, now)
    return {
        name: row["state"]
        for name, row in found.items()
        if row["state"] != "ok" and name not in WITHOUT_MORE
    }


def paused(fleet: Fleet) -> None:
    made = fleet.minutely(fleet.devices(1), NOW + timedelta(days=1))
    fleet.run(
        "update schedules set status = 'paused', status_reason = 'three failed' where id = %s",
        made["id"],
    )


def overdue(fleet: Fleet) -> None:
    made = fleet.minutely(fleet.devices(1), NOW - timedelta(minutes=9))
    due = NOW - timedelta(seconds=75)
    fleet.run("update schedules set next_run_at = %s where id = %s", due, made["id"])


def failing_commands(fleet: Fleet) -> None:
    for device in fleet.devices(21):
        fleet.send(device)
        (command,) = fleet.claim(device)
        fleet.finish(device, command, "failed", reason="unsupported")


def stopped(fleet: Fleet) -> None:
    made = fleet.minutely(fleet.devices(1), NOW + timedelta(days=1))
    fleet.run("select fleet.begin_work('start', array[%s]::bigint[], false, %s)", made["id"], NOW)
    fleet.run("select fleet.note_stop('start', %s)", NOW)


def failing_step(fleet: Fleet) -> None:
    fleet.run("alter function fleet.poke_mdm(timestamptz) rename to poke_mdm_gone")
    fleet.run("select fleet.tick(%s)", NOW)


def calls(fleet: Fleet, status: int | None) -> None:
    fleet.run(
        "insert into mdm_api_logs (owner_id, method, url, status)"
        " select %s, 'GET', 'https://a.example.com', %s from generate_series(1, 9)",
        fleet.owner_id,
        status,
    )


def open_engine(fleet: Fleet) -> None:
    fleet.run("grant execute on function fleet.setting(text) to public")


def clone(fleet: Fleet) -> None:
    fleet.run("update devices set clone_seen_at = now() where id = %s", fleet.device("copied"))


def silent(fleet: Fleet) -> None:
    fleet.run(
        "update devices set enrolled_at = %s, last_seen = %s where id = %s",
        NOW - timedelta(days=9),
        NOW - timedelta(hours=25),
        fleet.device(),
    )


def unrung(fleet: Fleet) -> None:
    fleet.run(
        "insert into fleet.doorbells (device_id, owner_id, ring_at, command_id, command_type)"
        " values (%s, %s, %s, 1, 'lock')",
        fleet.device(),
        fleet.owner_id,
        NOW - timedelta(minutes=2),
    )


def address(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('functions_url', '\"https://functions.example.com\"')")


def endpoint(fleet: Fleet, **columns: object) -> int:
    address(fleet)
    made: int = fleet.insert(
        "webhook_endpoints",
        owner_id=fleet.owner_id,
        name="chat",
        url="https://example.com/hook",
        **columns,
    )["id"]
    return made


def does(statement: str) -> Break:
    return lambda fleet: fleet.run(statement)


BREAKS: list[tuple[str, str, Break]] = [
    ("ticker_enabled", "broken", does("select fleet.set_setting('ticker_enabled', 'false')")),
    ("steps", "broken", failing_step),
    ("stops", "warning", stopped),
    ("suspects", "warning", stopped),
    ("tick_time", "warning", does("update fleet.heartbeat set tick_ms = 4321")),
    ("row_security", "broken", does("alter table device_links disable row level security")),
    ("engine_is_closed", "broken", open_engine),
    ("due_in_time", "broken", overdue),
    ("paused_for_faults", "warning", paused),
    ("doorbells", "warning", unrung),
    ("commands_succeed", "warning", failing_commands),
    ("devices_heard", "warning", silent),
    ("clones", "warning", clone),
    ("rate_limits", "warning", lambda f: calls(f, 429)),
    ("providers_answer", "warning", lambda f: calls(f, None)),
    (
        "webhooks",
        "warning",
        lambda f: (endpoint(f, enabled=False, disabled_reason="it answered 410"), None)[1],
    ),
]


def test_a_database_that_is_well_has_nothing_to_tell(fleet: Fleet) -> None:
    fleet.tick(NOW)
    found = checkup(fleet)
    assert len(found) >= 35
    assert {name: row for name, row in found.items() if row["state"] != "ok"}.keys() <= {"backups"}
    assert all(row["found"] is None for row in found.values() if row["state"] == "ok")


@pytest.mark.parametrize(("name", "state", "breaks"), BREAKS, ids=[one[0] for one in BREAKS])
def test_a_fault_is_found_and_told(fleet: Fleet, name: str, state: str, breaks: Break) -> None:
    assert name not in faults(fleet)
    breaks(fleet)
    told = checkup(fleet)[name]
    assert told["state"] == state
    assert told["found"] and told["hint"]


def test_an_engine_that_does_not_tick_is_broken(fleet: Fleet) -> None:
    fleet.tick(NOW)
    assert checkup(fleet)["ticks"]["state"] == "ok"
    assert checkup(fleet, NOW + timedelta(seconds=31))["ticks"]["state"] == "broken"


def test_what_time_brings_is_found(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.run("update devices set last_seen = %s where id = %s", NOW + timedelta(hours=2), device)
    fleet.send(device)
    assert faults(fleet, NOW + timedelta(hours=2))["claims"] == "warning"
    fleet.claim(device)
    assert faults(fleet, NOW + timedelta(hours=2))["leases"] == "broken"
    assert faults(fleet, NOW + timedelta(days=30))["partitions"] == "broken"
    assert faults(fleet, NOW + timedelta(days=500))["history"] == "warning"


def test_a_transaction_that_stays_open_is_named(
    fleet: Fleet, connect: Callable[..., Fleet]
) -> None:
    other = connect()
    other.conn.autocommit = False
    other.run("set application_name = 'forgotten'")
    other.run("select txid_current()")
    told = Fleet(connect().conn).row(
        "select * from fleet_checkup(%s) where name = 'open_transactions'",
        datetime.now(UTC) + timedelta(minutes=11),
    )
    assert told["state"] == "warning"
    assert "forgotten" in told["found"]
    other.conn.rollback()


def test_what_an_mdm_does_not_take_and_does_not_say_is_found(mdm: Mdm) -> None:
    fleet = mdm.fleet
    assert faults(fleet)["functions_url"] == "warning"
    address(fleet)
    assert "functions_url" not in faults(fleet)
    fleet.send(mdm.device(), "mdm_refresh")
    fleet.run("update device_integrations set last_sync_at = now() where id = %s", mdm.id)
    late = faults(fleet, NOW + timedelta(hours=2))
    assert (late["mdm_commands"], late["syncs"]) == ("warning", "warning")
    fleet.run("select pause_integration(%s, 'for a while')", mdm.id)
    assert "integrations" not in faults(fleet)
    fleet.run("select resume_integration(%s)", mdm.id)
    assert fleet.value(
        "select fleet.worker_pause_integration(i.id, 'key refused', fleet.hash_secret("
        " fleet.stored_secret('integration:' || i.id))) from device_integrations as i"
        " where i.id = %s",
        mdm.id,
    )
    assert "key refused" in checkup(fleet)["integrations"]["found"]


def test_messages_that_nobody_tries_to_deliver_are_found(fleet: Fleet) -> None:
    fleet.run("select test_webhook_endpoint(%s)", endpoint(fleet))
    assert "deliveries" not in faults(fleet)
    assert faults(fleet, datetime.now(UTC) + timedelta(minutes=15))["deliveries"] == "warning"


def test_rights_of_the_functions_that_are_lost_are_given_again(database: Database) -> None:
    with database.connect("supabase_admin") as conn:
        see_rights_given_again(Fleet(conn))
        # The role is of the whole server.
        conn.rollback()


def see_rights_given_again(fleet: Fleet) -> None:
    if not fleet.rows("select from pg_roles where rolname = 'fleet_worker'"):
        fleet.run("create role fleet_worker")
    address(fleet)
    fleet.run("select fleet.grant_worker()")
    assert "functions_login" not in faults(fleet)
    fleet.run("revoke execute on function fleet.worker_health(timestamptz) from fleet_worker")
    told = checkup(fleet)["functions_login"]
    assert (told["state"], told["can_be_repaired"]) == ("broken", True)
    assert fleet.value("select fleet_repair('functions_login')") == "functions_login"
    assert "functions_login" not in faults(fleet)


def test_an_address_of_functions_without_their_login_is_told(database: Database) -> None:
    with database.connect("supabase_admin") as conn:
        fleet = Fleet(conn)
        if fleet.rows("select from pg_roles where rolname = 'fleet_worker'"):
            fleet.run("alter role fleet_worker rename to somebody_else")
        address(fleet)
        assert checkup(fleet)["functions_login"]["state"] == "warning"
        conn.rollback()


def test_partitions_that_are_missing_are_made(fleet: Fleet) -> None:
    tomorrow = (NOW + timedelta(days=1)).date()
    fleet.run(f"drop table telemetry.points_{tomorrow:%Y%m%d}")
    assert checkup(fleet)["partitions"]["can_be_repaired"]
    fleet.run("select fleet_repair('partitions')")
    assert "partitions" not in faults(fleet)


@pytest.mark.parametrize("name", ["ticks", "", None, "jobs; drop table owners"])
def test_what_has_no_repair_is_refused_by_name(fleet: Fleet, name: str | None) -> None:
    with fleet.refused("PT422", "repair_unknown"):
        fleet.run("select fleet_repair(%s)", name)


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_nobody_but_the_platform_may_look(fleet: Fleet, role: str) -> None:
    for call in ("fleet_checkup()", "fleet_repair('jobs')"):
        with (
            pytest.raises(Exception, match="permission denied"),
            fleet.conn.transaction(),
            fleet.acting(fleet.owner_id, role),
        ):
            fleet.run(f"select {call}")
