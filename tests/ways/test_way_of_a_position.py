"""A device tells where it is over the whole platform, and gets the work of that place."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from tests.helpers.fleet import Fleet
from tests.helpers.locations import MIDDLE, Area


def test_a_position_told_over_http_brings_work_with_the_next_tick(stack: Any) -> None:
    settings = stack.settings
    with psycopg.connect(settings.db_url, autocommit=True) as conn:
        area = Area(Fleet(conn))
        area.fleet.run("update locations set min_dwell = '0' where id = %s", area.school)
        area.policy("enter", area.school, action_type="lock", payload={})
        device = area.fleet.device()
        token = stack.token(area.fleet.auth_id(device), device_id=device)
        headers = {"apikey": settings.anon_key, "Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"{settings.api_url}/rest/v1/rpc", headers=headers) as http:

            def call(name: str, **arguments: Any) -> Any:
                answer = http.post(f"/{name}", json=arguments)
                assert answer.status_code == 200, answer.text
                return answer.json()

            place = {"p_latitude": MIDDLE[0], "p_longitude": MIDDLE[1], "p_accuracy_m": 8}
            told = call("report_location", **place)
            assert [found["name"] for found in told["places"]] == ["School"]
            wrong = http.post("/report_location", json={**place, "p_latitude": 91})
            assert (wrong.status_code, wrong.json()["details"]) == (422, "position_invalid")

            # The ticker starts with the database; until then nothing acts.
            end = time.monotonic() + 90
            while not (claimed := call("claim_commands", p_limit=1, p_journal=str(uuid4()))):
                assert time.monotonic() < end, "no work came"
                time.sleep(0.2)
        assert [row["command_type"] for row in claimed] == ["lock"]
        assert [row["action_type"] for row in area.schedules()] == ["lock"]
