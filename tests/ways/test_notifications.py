"""From a schedule to the receiver, through the whole platform: pg_cron ticks, pg_net pokes."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from standardwebhooks import Webhook


class Rest:
    """The API as one signed-in person."""

    def __init__(self, stack: Any) -> None:
        self.user = uuid4()
        self._base = f"{stack.settings.api_url}/rest/v1"
        self._headers = {
            "apikey": stack.settings.anon_key,
            "Authorization": f"Bearer {stack.token(self.user)}",
        }

    def rpc(self, name: str, **arguments: Any) -> Any:
        """Call a function."""
        return self._send("POST", f"/rpc/{name}", json=arguments)

    def insert(self, table: str, **row: Any) -> Any:
        """Insert a row and give it."""
        return self._send(
            "POST", f"/{table}", json=row, headers={"Prefer": "return=representation"}
        )[0]

    def select(self, query: str) -> Any:
        """Read rows."""
        return self._send("GET", f"/{query}")

    def _send(self, method: str, path: str, **options: Any) -> Any:
        headers = {**self._headers, **options.pop("headers", {})}
        answer = httpx.request(method, self._base + path, headers=headers, **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


@pytest.fixture
def me(stack: Any) -> Rest:
    with stack.connect(autocommit=True) as conn:
        conn.execute("select fleet.set_setting('webhook_allow_private', 'true')")
    return Rest(stack)


def test_what_happens_to_a_schedule_is_told_within_seconds(
    me: Rest, stack: Any, receive: Any, waiting: Any
) -> None:
    receiver = receive()
    endpoint = me.rpc(
        "create_webhook_endpoint",
        p_spec={"url": receiver.url, "events": ["run.*", "schedule.paused", "command.failed"]},
    )
    device = me.insert("devices", hostname=f"pc-{me.user}")

    past = me.rpc(
        "create_schedule",
        p_spec={
            "name": "Too late",
            "action_type": "lock",
            "start_time": "2020-01-01T00:00:00",
            "device_ids": [device["id"]],
        },
    )
    nightly = me.rpc(
        "create_schedule",
        p_spec={
            "name": "Nightly",
            "action_type": "lock",
            "recurrence_type": "daily",
            "recurrence_config": {"time": "03:00"},
            "device_ids": [device["id"]],
        },
    )
    run = me.rpc("run_schedule", p_schedule_id=nightly["id"])
    with stack.connect(autocommit=True) as conn:
        conn.execute(
            "update device_commands set status = 'failed', error_message = 'no screen'"
            " where run_id = %s",
            (run["id"],),
        )
    me.rpc("pause_schedule", p_schedule_id=nightly["id"], p_reason="holidays")

    wanted = {"run.skipped", "run.failed", "schedule.paused", "command.failed"}
    waiting(lambda: {body["type"] for body in receiver.bodies} >= wanted, 30)
    told = {body["type"]: body["data"] for body in receiver.bodies}
    assert told["run.skipped"]["schedule_id"] == past["id"]
    assert told["run.skipped"]["reason"] == "outside the catch-up window"
    assert (told["run.failed"]["run_id"], told["run.failed"]["schedule_name"]) == (
        run["id"],
        "Nightly",
    )
    assert told["schedule.paused"]["reason"] == "holidays"
    assert told["command.failed"]["error_message"] == "no screen"
    for headers, body in receiver.requests:
        Webhook(endpoint["secret"]).verify(body, headers)
    waiting(
        lambda: (
            {row["status"] for row in me.select("webhook_deliveries?select=status")}
            == {"delivered"}
        )
    )
    assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == len(
        receiver.requests
    )
    assert Rest(stack).select("webhook_deliveries?select=id") == []
