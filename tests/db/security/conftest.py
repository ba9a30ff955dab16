"""Two fleets with a row of everything, and every kind of caller who may come for it."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from tests.helpers.two_fleets import Caller, Fleet, World, callers, device, person

from pgfleet_functions.setup import ensure_worker_role

Conn = psycopg.Connection[Any]


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
            "insert into fleet.doorbells (device_id, owner_id, ring_at, command_id, command_type)"
            " select d.id, d.owner_id, now() + interval '1 day', 1, 'lock'"
            " from devices as d where d.id in (%s, %s)",
            (mine.device, theirs.device),
        )
        for owner in (mine.owner, theirs.owner):
            conn.execute(
                "insert into fleet.doorbell_stretches (owner_id, ring_at, next_id, last_id)"
                " values (%s, now() + interval '1 day', 1, 2)",
                (owner,),
            )
            conn.execute("select fleet.set_quota(%s, 'groups', 900)", (owner,))
    return World(database, mine, theirs, callers(mine, theirs))


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
    invitation = one("select public.invite_member(%s)", owner)
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
    conn.execute(
        "insert into fleet.chain_steps (owner_id, schedule_id, after_run_id, device_id)"
        " select owner_id, schedule_id, id, %s from schedule_runs where id = %s",
        (devices[0][0], run),
    )
    conn.execute(
        "insert into fleet.run_zones (run_id, due_at, starts_at, zones)"
        " values (%s, 'infinity', 'infinity', '{UTC}')",
        (run,),
    )
    conn.execute(
        "insert into fleet.judged_movers (run_id, device_id) values (%s, %s)", (run, devices[0][0])
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
        "insert into fleet.mdm_rereads (integration_id, owner_id, external_id, asked_at, look_at)"
        " select i.id, i.owner_id, %s, now(), now() from device_integrations as i where i.id = %s",
        (f"{name}-1", integration),
    )
    cloud = one(
        "select id from public.create_integration(jsonb_build_object('name', %s::text,"
        " 'integration_type', 'golioth', 'settings', '{\"projectId\": \"acme\"}'::jsonb))",
        f"{name}-cloud",
    )
    one("select public.backfill_sync(%s, now() - interval '1 day')", cloud)
    conn.execute(
        "insert into fleet.sync_cursors (integration_id, device_id, stream, owner_id, read_to)"
        " values (%s, %s, '/', %s, now())",
        (cloud, devices[0][0], owner),
    )
    conn.execute(
        "insert into public.device_links (device_id, integration_id, owner_id, external_id)"
        " values (%s, %s, %s, 'x')",
        (devices[0][0], cloud, owner),
    )
    conn.execute(
        "insert into fleet.sync_bases (integration_id, device_id, owner_id) values (%s, %s, %s)",
        (cloud, devices[0][0], owner),
    )
    conn.execute(
        "insert into public.blocklist_entries (owner_id, kind, pattern)"
        " values (%s, 'website', 'example.com')",
        (owner,),
    )
    conn.execute(
        "insert into public.device_requests (device_id, day, owner_id)"
        " values (%s, current_date, %s)",
        (devices[0][0], owner),
    )
    conn.execute(
        "update public.devices set reported = '{\"health\": {}}' where id = %s",
        (devices[0][0],),
    )
    sync_conflict = one(
        "insert into public.sync_conflicts (owner_id, integration_id, device_id, field)"
        " values (%s, %s, %s, 'name') returning id",
        owner,
        cloud,
        devices[0][0],
    )
    conn.execute(
        "insert into fleet.webhook_inbox (owner_id, integration_id, message_key, external_id,"
        " digest, received_at) values (%s, %s, '\\x01', 'x', gen_random_uuid(), now())",
        (owner, cloud),
    )
    conn.execute(
        "insert into public.command_types (owner_id, name) values (%s, 'kiosk-reload')", (owner,)
    )
    rule = one(
        "insert into public.telemetry_rules (owner_id, condition, action_type)"
        " values (%s, 't > 1', 'lock') returning id",
        owner,
    )
    conn.execute(
        "insert into fleet.telemetry_rule_states values (%s, %s, %s, true, now())",
        (rule, devices[0][0], owner),
    )
    conn.execute("insert into fleet.telemetry_seen values (%s, %s, now())", (devices[0][0], owner))
    batch = uuid4()
    for known in devices[:2]:
        conn.execute(
            "insert into telemetry.staging values"
            " (%s, %s, '/', now(), gen_random_uuid(), %s, 'pull', false, null, '{}')",
            (batch, known[0], owner),
        )
    one("select telemetry.worker_store(%s, 90)", batch)
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
    file = one(
        "insert into public.deployment_files (owner_id, name, size_bytes, sha256)"
        " values (%s, %s, 1, repeat('a', 64)) returning id",
        owner,
        f"{name}-file",
    )
    conn.execute(
        "insert into public.software_packages (owner_id, name, version) values (%s, %s, '1')",
        (owner, f"{name}-package"),
    )
    deploy_command = one(
        "select id from public.send_command(%s, 'deploy_files', jsonb_build_object("
        "'file_ids', jsonb_build_array(%s::bigint), 'target_path', '/etc/app'))",
        devices[0][0],
        file,
    )
    deployment = one("select id from public.deployments where owner_id = %s", owner)
    rolled_out = one(
        "select public.create_schedule(jsonb_build_object('name', %s::text, 'action_type', 'lock',"
        " 'recurrence_type', 'daily', 'device_ids', jsonb_build_array(%s::bigint),"
        ' \'policies\', \'{"rollout": {"groups": [{"percent": 100, "gate": "manual"}]}}\'::jsonb))'
        " -> 'id'",
        f"{name}-rollout",
        devices[0][0],
    )
    rollout = one("select id from public.run_schedule(%s)", rolled_out)
    conn.execute(
        "insert into public.rollout_approvals (run_id, wave, user_id, owner_id)"
        " values (%s, 0, %s, %s)",
        (rollout, user, owner),
    )
    conn.execute(
        "insert into fleet.rollout_releases (run_id, released_at, n) values (%s, now(), 1)",
        (rollout,),
    )
    conn.execute(
        "insert into fleet.rollout_authors (schedule_id, user_id) values (%s, %s)",
        (rolled_out, user),
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
        invitation=invitation["id"],
        endpoint=endpoint,
        sync_conflict=sync_conflict,
        rule=rule,
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
        rollout=rollout,
        deployment=deployment,
        deploy_command=deploy_command,
        template=f"{name}-template",
        hostname=f"{name}-pc",
        plain_code=code["code"],
        plain_secrets=tuple(found["device_secret"] for found in enrolled),
        plain_token=feed["token"],
        plain_webhook_token=webhook["token"],
    )
