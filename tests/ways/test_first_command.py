from __future__ import annotations

import time
from typing import Any

import httpx
import psycopg
from supabase import ClientOptions, create_client

OWNER = "00000000-0000-4000-8000-00000000f00d"


def test_the_whole_platform_carries_a_device_from_its_code_to_its_work(stack: Any) -> None:
    settings = stack.settings
    with psycopg.connect(settings.db_url, autocommit=True) as owner:
        owner.execute(
            "insert into owners (id, name) values (%s, 'f') on conflict do nothing", (OWNER,)
        )
        owner.execute(
            "insert into devices (owner_id, hostname) values (%s, 'stack-http') returning id",
            (OWNER,),
        )
        row = owner.execute(
            "select create_enrollment_code(id) ->> 'code', id from devices"
            " where owner_id = %s and hostname = 'stack-http'",
            (OWNER,),
        ).fetchone()
        assert row is not None
        code, device_id = row
        with httpx.Client(base_url=settings.functions_url) as http:
            enrolled = http.post("/enroll-device", json={"code": code, "hostname": "any"})
            assert enrolled.status_code == 201, enrolled.text
            secret = enrolled.json()["device_secret"]
            token = http.post("/device-token", json={"device_secret": secret}).json()
            assert _comes_true(lambda: http.get("/health").status_code == 200)
        owner.execute("select send_command(%s, 'lock')", (device_id,))

    with httpx.Client() as transport:
        options = ClientOptions(httpx_client=transport, auto_refresh_token=False)
        client = create_client(settings.api_url, settings.anon_key, options)
        client.postgrest.auth(token["access_token"])
        claimed = client.rpc("claim_commands", {"p_limit": 1}).execute().data

    assert [row["command_type"] for row in claimed] == ["lock"]


def _comes_true(holds: Any, seconds: float = 90) -> bool:
    """Wait for the ticker, which starts with the database."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
