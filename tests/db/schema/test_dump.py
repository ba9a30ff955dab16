"""A dump of the documented schemas is a whole: restored, it is up to date and ticks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from tests.conftest import Database
from tests.helpers.dumping import dump, restore
from tests.helpers.fleet import Fleet, Row

from pgfleet.schema.migrate import migrate, status

RIGHTS = """
select o.name, coalesce(r.rolname, 'everybody'), a.privilege_type
from (
  select c.oid::regclass::text as name, c.relnamespace as room,
    coalesce(c.relacl, acldefault('r', c.relowner)) as acl
  from pg_class as c where c.relkind in ('r', 'p', 'v') and c.relname not like 'points_2%'
  union all
  select p.oid::regprocedure::text, p.pronamespace, coalesce(p.proacl, acldefault('f', p.proowner))
  from pg_proc as p
  union all
  select a.attrelid::regclass || '.' || a.attname, c.relnamespace, a.attacl
  from pg_attribute as a join pg_class as c on c.oid = a.attrelid where a.attacl is not null
) as o
cross join lateral aclexplode(o.acl) as a
left join pg_roles as r on r.oid = a.grantee
where o.room::regnamespace::text in ('public', 'fleet', 'telemetry')
  and coalesce(r.rolname, '') <> 'fleet_worker'
order by 1, 2, 3
"""


def test_what_is_restored_is_up_to_date_and_ticks(
    own_database: Database, empty_database: Any
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
    restore(dump(own_database.url()), empty_database.url())

    found = status(empty_database.url())
    assert (found.pending.migrations, found.edited) == ([], [])
    migrate(empty_database.url())
    assert rights(empty_database) == rights(own_database)
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


def rights(database: Any) -> list[tuple[Any, ...]]:
    """List who may do what to every table, column and function."""
    with psycopg.connect(database.url("supabase_admin")) as conn:
        return conn.execute(RIGHTS).fetchall()


def accounted(runs: list[Row]) -> dict[str, int]:
    """Count the instants of a ledger by what became of them."""
    found: dict[str, int] = {}
    for run in runs:
        kind = run["status"] if run["status"] == "skipped" else run["trigger"]
        found[kind] = found.get(kind, 0) + (run["missed_count"] or 1)
    return found


def test_instants_since_the_backup_follow_the_catch_up_of_each_schedule(
    own_database: Database, empty_database: Any
) -> None:
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    today = begin + timedelta(hours=25, minutes=10)
    policies = {
        "none": {"catchup": "none"},
        "latest": {},
        "all": {"catchup": "all", "catchup_window": "2 days", "catchup_limit": 100},
    }
    with own_database.connect(autocommit=True) as conn:
        fleet = Fleet(conn)
        device = fleet.device("pc-1")
        made = {
            name: fleet.create(
                device_ids=[device],
                recurrence_type="interval",
                recurrence_config={"hours": 1},
                start_time=begin.isoformat(),
                policies={**given, "overlap": "allow", "max_concurrent": 100},
            )["id"]
            for name, given in policies.items()
        }
        fleet.tick_until_idle(begin)
        dumped = dump(own_database.url())
        # A day goes by after the backup: all of it is lost.
        fleet.tick_until_idle(today)
    restore(dumped, empty_database.url())
    migrate(empty_database.url())

    with psycopg.connect(empty_database.url(), autocommit=True) as conn:
        restored = Fleet(conn, fleet.owner_id)
        restored.tick_until_idle(today)
        found = {name: accounted(restored.runs(number)) for name, number in made.items()}
    assert found == {
        "none": {"schedule": 1, "skipped": 25},
        "latest": {"schedule": 1, "skipped": 24, "catchup": 1},
        "all": {"schedule": 1, "catchup": 25},
    }


def test_no_number_is_given_twice(own_database: Database, empty_database: Any) -> None:
    tables = ("device_commands", "schedule_runs", "devices", "webhook_deliveries", "audit_log")
    dumped = dump(own_database.url())
    with own_database.connect(autocommit=True) as conn:
        lost = next_numbers(conn, tables)
    restore(dumped, empty_database.url())

    with psycopg.connect(empty_database.url(), autocommit=True) as conn:
        later = next_numbers(conn, tables)
    assert all(one < two < 2**53 for one, two in zip(lost, later, strict=True))


def next_numbers(conn: psycopg.Connection[Any], tables: tuple[str, ...]) -> list[int]:
    """Take the next id of each table."""
    query = (
        "select nextval(pg_get_serial_sequence('public.' || t, 'id')) from unnest(%s::text[]) as t"
    )
    return [row[0] for row in conn.execute(query, (list(tables),))]
