"""Two fleets with a row of everything, and every kind of caller who may come for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from pgfleet_functions.setup import ensure_worker_role

Conn = psycopg.Connection[Any]


@dataclass(frozen=True)
class Fleet:
    """The ids of one owner's rows."""

    owner: UUID
    person: UUID
    device: int
    device_auth: UUID
    sibling: int
    sibling_auth: UUID
    retired: int
    retired_auth: UUID
    group: int
    empty_group: int
    schedule: int
    run: int
    command: int
    code: int
    endpoint: int
    delivery: int
    feed: int
    calendar: int
    integration: int
    integration_webhook: int
    install: int
    assignment: int
    profile: int
    location: int
    location_policy: int
    location_event: int
    geo_schedule: int
    geo_action: int
    template: str
    hostname: str
    plain_code: str
    plain_secrets: tuple[str, ...]
    plain_token: str
    plain_webhook_token: str


@dataclass(frozen=True)
class Caller:
    """Who comes, as the platform would introduce them: a role and the text of their claims."""

    role: str
    claims: str = ""


@dataclass(frozen=True)
class World:
    """A committed database with my fleet, theirs, and everybody who may knock."""

    database: Any
    mine: Fleet
    theirs: Fleet
    callers: dict[str, Caller] = field(default_factory=dict)

    @contextmanager
    def acting(self, caller: str | Caller) -> Iterator[Conn]:
        """Give a transaction of that caller, which is rolled back."""
        with self.database.connect("supabase_admin") as conn:
            self.become(conn, caller)
            yield conn
            conn.rollback()

    def become(self, conn: Conn, caller: str | Caller) -> None:
        """Make the rest of the transaction that of the caller."""
        who = self.callers[caller] if isinstance(caller, str) else caller
        conn.execute("reset role")
        conn.execute("select set_config('request.jwt.claims', %s, true)", (who.claims,))
        conn.execute(sql.SQL("set local role {}").format(sql.Identifier(who.role)))

    def outcome(self, conn: Conn, query: str, *args: Any) -> Any:
        """Run a query: its first value, or (SQLSTATE, message, detail, hint) of its error."""
        try:
            with conn.transaction():
                row = conn.execute(query.encode(), args or None).fetchone()
        except psycopg.Error as error:
            diag = error.diag
            return (error.sqlstate, diag.message_primary, diag.message_detail, diag.message_hint)
        return row[0] if row else None


def person(sub: UUID, **claims: Any) -> Caller:
    """Describe a signed-in person."""
    return Caller("authenticated", json.dumps({"role": "authenticated", "sub": str(sub), **claims}))


def device(sub: UUID, device_id: int) -> Caller:
    """Describe a device with the token that the function device-token signs."""
    return person(sub, aud="authenticated", device_id=device_id)


@pytest.fixture(scope="session")
def callers_of() -> Any:
    """Give the makers of callers."""
    return {"person": person, "device": device, "caller": Caller}


@pytest.fixture(scope="module", params=["new", "old"])
def world(request: pytest.FixtureRequest) -> World:
    """Build both fleets, under each style of default privileges."""
    names = {"new": "database", "old": "old_style_database"}
    return build_world(request.getfixturevalue(names[request.param]))


@pytest.fixture(scope="module")
def one_world(database: Any) -> World:
    """Build both fleets under the default privileges of a new project."""
    return build_world(database)


def build_world(database: Any) -> World:
    with database.connect("supabase_admin", autocommit=True) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    with database.connect() as conn:
        conn.execute("select fleet.grant_worker()")
        conn.execute("select fleet.set_setting('doorbell_rate', '100')")
        mine = _fill(conn, "mine")
        theirs = _fill(conn, "theirs")
        conn.execute(
            "insert into fleet.doorbells (device_id, ring_at, command_id, command_type)"
            " values (%s, now() + interval '1 day', 1, 'lock'),"
            " (%s, now() + interval '1 day', 2, 'lock')",
            (mine.device, theirs.device),
        )
    return World(database, mine, theirs, _callers(mine, theirs))


def _callers(mine: Fleet, theirs: Fleet) -> dict[str, Caller]:
    return {
        "anon": Caller("anon", '{"role": "anon"}'),
        "nobody": Caller("authenticated"),
        "member": person(mine.person),
        "stranger": person(theirs.person),
        "device": device(mine.device_auth, mine.device),
        "sibling": device(mine.sibling_auth, mine.sibling),
        "retired": device(mine.retired_auth, mine.retired),
        "foreign_device": device(theirs.device_auth, theirs.device),
        "fleet_worker": Caller("fleet_worker"),
        "service_role": Caller("service_role", '{"role": "service_role"}'),
    }


def _fill(conn: Conn, name: str) -> Fleet:
    def one(query: str, *args: Any) -> Any:
        row = conn.execute(query.encode(), args or None).fetchone()
        assert row is not None
        return row[0]

    owner, user = uuid4(), uuid4()
    conn.execute("insert into public.owners (id, name) values (%s, %s)", (owner, name))
    conn.execute(
        "insert into public.owner_members (owner_id, user_id, permissions)"
        " values (%s, %s, '{view,operate,manage,destructive,admin}')",
        (owner, user),
    )
    group = one(
        "insert into public.device_groups (owner_id, name) values (%s, %s) returning id",
        owner,
        f"{name}-lab",
    )
    empty = one(
        "insert into public.device_groups (owner_id, name) values (%s, %s) returning id",
        owner,
        f"{name}-empty",
    )
    conn.execute("select fleet.set_setting('default_owner', to_jsonb(%s::text))", (str(owner),))
    code = one("select public.create_enrollment_code(p_max_uses => 9, p_group_ids => %s)", [group])
    enrolled = [
        one("select fleet.worker_enroll_device(%s, %s, '{}')", code["code"], f"{name}-{host}")
        for host in ("pc", "laptop", "old")
    ]
    devices = [(found["device_id"], UUID(found["auth_id"])) for found in enrolled]
    schedule = one(
        "select public.create_schedule(jsonb_build_object('name', %s::text, 'action_type', 'lock',"
        " 'recurrence_type', 'daily', 'recurrence_config', '{\"time\": \"03:00\"}'::jsonb,"
        " 'device_ids', jsonb_build_array(%s::bigint))) -> 'id'",
        f"{name}-nightly",
        devices[0][0],
    )
    run = one("select id from public.run_schedule(%s)", schedule)
    command = one("select id from public.send_command(%s, 'lock')", devices[0][0])
    conn.execute(
        "insert into fleet.run_progress (run_id, completed, failed) values (%s, 0, 0)", (run,)
    )
    conn.execute("select public.retire_device(%s)", (devices[2][0],))
    endpoint = one(
        "select public.create_webhook_endpoint(jsonb_build_object("
        "'name', %s::text, 'url', 'https://hooks.example.com/')) -> 'id'",
        f"{name}-hook",
    )
    feed = one("select public.create_calendar_feed('{}', %s)", f"{name}-feed")
    calendar = one(
        "select public.create_blackout_calendar(%s, '[{\"starts_on\": \"2030-01-01\"}]') -> 'id'",
        f"{name}-holidays",
    )
    one(
        "select public.create_template(jsonb_build_object('name', %s::text,"
        ' \'spec\', \'{"action_type": "lock", "selector": {}}\'::jsonb))',
        f"{name}-template",
    )
    location = one(
        "insert into public.locations (owner_id, name, latitude, longitude, radius_m, min_dwell)"
        " values (%s, %s, 52.52, 13.405, 100, '0') returning id",
        owner,
        f"{name}-school",
    )
    # For nobody: the rows that a command would make are there already.
    policy = one(
        "insert into public.location_policies"
        " (owner_id, location_id, event, action_type, group_id)"
        " values (%s, %s, 'enter', 'lock', %s) returning id",
        owner,
        location,
        empty,
    )
    one(
        "select fleet.take_fixes(jsonb_build_array(jsonb_build_object('device_id', %s::bigint,"
        " 'latitude', 52.52, 'longitude', 13.405, 'accuracy_m', 5, 'located_at', now())), now())",
        devices[0][0],
    )
    event = one(
        "select id from public.location_events where owner_id = %s and event = 'entered'", owner
    )
    conn.execute(
        "insert into public.location_actions (event_id, policy_id, owner_id) values (%s, %s, %s)",
        (event, policy, owner),
    )
    conn.execute(
        "insert into public.app_categories (owner_id, name, apps) values (%s, %s, '{chess}')",
        (owner, f"{name}-games"),
    )
    geo_schedule = one(
        "insert into public.geo_schedules"
        " (owner_id, name, device_id, apps, start_minute, end_minute)"
        " values (%s, %s, %s, '{chess}', 0, 0) returning id",
        owner,
        f"{name}-geo",
        devices[0][0],
    )
    geo_action = one(
        "select max(id) from public.geo_actions where geo_schedule_id = %s", geo_schedule
    )
    conn.execute(
        "insert into public.geo_action_reports"
        " (geo_action_id, device_id, owner_id, status, reported_at)"
        " values (%s, %s, %s, 'running', now())",
        (geo_action, devices[0][0], owner),
    )
    conn.execute(
        "insert into fleet.pokes (function, poked_at) values ('x', now()) on conflict do nothing"
    )
    integration = one(
        "select id from public.create_integration(jsonb_build_object('name', %s::text,"
        " 'integration_type', 'simplemdm'), %s)",
        f"{name}-mdm",
        f"{name}-mdm-key-5f1a",
    )
    conn.execute(
        "insert into public.device_links (device_id, integration_id, owner_id, external_id)"
        " values (%s, %s, %s, '1')",
        (devices[0][0], integration, owner),
    )
    one(
        "select fleet.worker_begin_mdm_call(jsonb_build_object("
        "'integration_id', %s::bigint, 'url', 'https://mdm.example.com'))",
        integration,
    )
    webhook = one("select public.create_integration_webhook(%s)", integration)
    one("select fleet.worker_take_integration_webhook(%s, '{}')", webhook["token"])
    conn.execute(
        "insert into fleet.mdm_rereads (integration_id, external_id, asked_at, look_at)"
        " values (%s, %s, now(), now())",
        (integration, f"{name}-1"),
    )
    install = one(
        "select id from public.install_profile('7', %s, '1 day', '2031-01-01')", devices[0][0]
    )
    assignment = one(
        "select id from public.assign_profile('8', jsonb_build_object("
        "'device_ids', jsonb_build_array(%s::bigint)))",
        devices[1][0],
    )
    profile = one(
        "select id from public.upload_profile(%s, '<plist/>', %s)", f"{name}-wifi", integration
    )
    conn.execute("select fleet.store_profile_state(%s, '9', true, false, now())", (devices[0][0],))
    conn.execute(
        "insert into public.profile_holds (device_id, profile_id, holder, owner_id)"
        " values (%s, '7', %s, %s)",
        (devices[0][0], f"{name}-holder", owner),
    )
    return Fleet(
        owner=owner,
        person=user,
        device=devices[0][0],
        device_auth=devices[0][1],
        sibling=devices[1][0],
        sibling_auth=devices[1][1],
        retired=devices[2][0],
        retired_auth=devices[2][1],
        group=group,
        empty_group=empty,
        schedule=schedule,
        run=run,
        command=command,
        code=code["id"],
        endpoint=endpoint,
        delivery=one("select id from public.test_webhook_endpoint(%s)", endpoint),
        feed=feed["id"],
        calendar=calendar,
        integration=integration,
        integration_webhook=webhook["id"],
        install=install,
        assignment=assignment,
        profile=profile,
        location=location,
        location_policy=policy,
        location_event=event,
        geo_schedule=geo_schedule,
        geo_action=geo_action,
        template=f"{name}-template",
        hostname=f"{name}-pc",
        plain_code=code["code"],
        plain_secrets=tuple(found["device_secret"] for found in enrolled),
        plain_token=feed["token"],
        plain_webhook_token=webhook["token"],
    )
