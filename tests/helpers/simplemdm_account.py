"""Accounts of an MDM with devices, and pushes for each of them."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import psycopg
from tests.helpers.sandbox import FULL, Sandbox

from pgfleet_functions.setup import ensure_worker_role


def push_to_many(
    database: Any, sandbox: Sandbox, count: int, settings: dict[str, Any]
) -> tuple[int, str]:
    """Make an account with linked devices and send each a push; give the profile and the owner."""
    [profile] = sandbox.profiles("Wi-Fi")
    devices = sandbox.devices(count)
    owner = str(uuid4())
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    with database.connect() as conn:
        conn.execute("select fleet.grant_worker()")
        conn.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
        given = {"base_url": sandbox.api, "syncEnabled": False, **settings}
        spec = {"name": "m", "integration_type": "simplemdm", "owner_id": owner, "settings": given}
        [(integration,)] = conn.execute(
            "select id from create_integration(%s::jsonb, %s)", (json.dumps(spec), FULL)
        ).fetchall()
        conn.execute(
            "with d as (insert into devices (owner_id, hostname)"
            " select %s, 'phone-' || e from unnest(%s::int[]) as e returning id, hostname)"
            " insert into device_links (device_id, integration_id, owner_id, external_id)"
            " select id, %s, %s, split_part(hostname, '-', 2) from d",
            (owner, devices, integration, owner),
        )
        conn.execute(
            "select send_command(id, 'push_profile', jsonb_build_object('profile_id', %s::text))"
            " from devices where owner_id = %s",
            (str(profile), owner),
        )
    return profile, owner
