"""Whose a row is: every table says it itself, or belongs to nobody for a reason."""

from __future__ import annotations

from typing import Any

# Tables whose rows are no owner's.
GLOBAL = {
    "fleet.heartbeat": "one row about the ticker",
    "fleet.pokes": "names of our functions",
    "fleet.judged_movers": "of a run, which says whose it is",
    "fleet.rollout_authors": "of a schedule, which says whose it is",
    "fleet.rollout_progress": "of a rollout, which says whose it is",
    "fleet.rollout_queue": "of a rollout, which says whose it is",
    "fleet.rollout_releases": "of a rollout, which says whose it is",
    "fleet.run_zones": "of a run, which says whose it is",
    "fleet.run_progress": "added up within a second; an owner that rests has none",
    "fleet.settings": "of the whole platform",
    "fleet.tick_work": "what the ticker is doing",
    "fleet.time_zones": "read from Postgres",
    "fleet.told_runs": "one row about what collects traces",
    "fleet.webhook_handlers": "names of our functions",
    "public.command_types": "of whom it says, or there for everybody",
    "public.owners": "the owners themselves",
    "public.pg_cron_secrets": "of the whole platform, or named after the integration they are of",
}

TABLES = """
    select c.relnamespace::regnamespace || '.' || c.relname,
      exists (
        select from pg_attribute as a
        where a.attrelid = c.oid and a.attname = 'owner_id' and a.atttypid = 'uuid'::regtype
          and a.attnotnull and not a.attisdropped
      )
    from pg_class as c
    where c.relnamespace in ('public'::regnamespace, 'fleet'::regnamespace)
      and c.relkind in ('r', 'p') and not c.relispartition
"""


def test_every_table_says_whose_its_rows_are_or_why_they_are_nobodys(db: Any) -> None:
    tables = dict(db.execute(TABLES).fetchall())
    # What nobody is named for was done by whoever runs the platform.
    tables["public.audit_log"] = True
    assert {name for name, owned in tables.items() if not owned} == set(GLOBAL)


def test_identities_of_a_numbered_database_begin_where_no_other_is(db: Any) -> None:
    db.execute("select fleet.number_database(3)")
    made = db.execute(
        "insert into owners (id, name) values (gen_random_uuid(), 'x') returning id"
    ).fetchone()
    for statement in (
        "insert into devices (owner_id, hostname) values (%s, 'x') returning id",
        "insert into device_groups (owner_id, name) values (%s, 'x') returning id",
    ):
        (found,) = db.execute(statement, made).fetchone()
        assert 3 * 2**44 < found < 4 * 2**44
    # Again changes nothing; another number would hand out what another database may have.
    db.execute("select fleet.number_database(3)")
    (later,) = db.execute(
        "insert into devices (owner_id, hostname) values (%s, 'y') returning id", made
    ).fetchone()
    assert later < 3 * 2**44 + 100


# Tables whose rows stay where they are when an owner goes to another database.
STAYS = {
    "fleet.arriving_rows": "on their way here",
    "fleet.heartbeat": "one row about the ticker",
    "fleet.moved_devices": "what is left of those who went",
    "fleet.owner_moves": "what is left of those who went",
    "fleet.pokes": "names of our functions",
    "fleet.settings": "of the whole platform",
    "fleet.tick_work": "what the ticker is doing",
    "fleet.time_zones": "read from Postgres",
    "fleet.told_runs": "one row about what collects traces",
    "fleet.webhook_handlers": "names of our functions",
}


def test_every_table_goes_with_its_owner_or_stays_for_a_reason(db: Any) -> None:
    goes = {name for (name,) in db.execute("select name from fleet.owned_tables()")}
    every = {name for name, _ in db.execute(TABLES).fetchall()}
    assert every - goes == set(STAYS)
    # No two tables refer to each other in a circle: there is an order in which rows arrive.
    assert db.execute("select max(depth) < 25 from fleet.owned_tables()").fetchone() == (True,)


def test_whatever_a_device_writes_asks_whether_its_fleet_is_still_here(db: Any) -> None:
    # A result that is taken after the fleet was copied would be lost.
    asking = db.execute(
        "select p.proname from pg_proc as p where p.provolatile = 'v'"
        " and p.pronamespace in ('public'::regnamespace, 'fleet'::regnamespace)"
        " and p.prosrc ~ 'current_device_id'"
    ).fetchall()
    # One writes the policy of whoever listens, and nothing of a device.
    assert asking == [("let_devices_hear",)]
