"""Tokens that end soon: renewed in time, and after an outage of whoever makes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

LIFE_SECONDS = 5

SERVER = """
import sys
import uvicorn
from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings
uvicorn.run(create_app(FunctionSettings.from_environment()), host="127.0.0.1",
            port=int(sys.argv[1]), access_log=False, log_level="warning")
"""


class Functions:
    """The functions on a port of their own, which can go away and come back."""

    def __init__(self, fleet: Any, port: int) -> None:
        self._fleet = fleet
        self._port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {
            "PGFLEET_FUNCTIONS_DATABASE_URL": self._fleet.settings.worker_url,
            "SUPABASE_JWT_SECRET": self._fleet.settings.jwt_secret,
            "PGFLEET_TOKEN_TTL_SECONDS": str(LIFE_SECONDS),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self._port)], env={**os.environ, **environment}
        )
        self._fleet.wait_for(self._answers, "the functions")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/health", trust_env=False).status_code)
        except httpx.HTTPError:
            return False


@pytest.fixture
def functions(fleet: Any, free_port: Callable[[], int]) -> Iterator[Functions]:
    made = Functions(fleet, free_port())
    made.start()
    yield made
    made.stop()


def test_a_fresh_token_is_sent_before_the_old_one_ends(
    fleet: Any, launch: Callable[..., Any], functions: Functions
) -> None:
    name = f"token-{uuid.uuid4().hex[:8]}"
    agent = launch(
        *(f"{name}", "--simulate", "1", "--prefix", name, "--poll-seconds", "3600"),
        *("--duration", "0", "--functions-url", functions.url),
    )
    agent.wait_live()
    agent.wait_said("sent a fresh token", times=3)
    assert "connection lost" not in agent.said()
    command_id = fleet.send(f"{name}-0001", "lock")
    assert fleet.wait_status(command_id, "completed", "failed")["status"] == "completed"
    assert f"rung: doorbell for command {command_id}" in agent.said()


def test_an_agent_whose_token_ended_comes_back_when_it_can_get_another(
    fleet: Any, launch: Callable[..., Any], functions: Functions
) -> None:
    name = f"token-{uuid.uuid4().hex[:8]}"
    agent = launch(
        *(f"{name}", "--simulate", "1", "--prefix", name, "--poll-seconds", "3600"),
        *("--duration", "0", "--functions-url", functions.url),
    )
    agent.wait_live()
    functions.stop()
    agent.wait_said("no new token")
    agent.wait_said("connection lost")
    before = agent.said().count("the doorbell is live")
    command_id = fleet.send(f"{name}-0001", "lock")
    functions.start()
    agent.wait_said("the doorbell is live", times=before + 1)
    assert fleet.wait_status(command_id, "completed", "failed")["status"] == "completed"


def clones(fleet: Any) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "pgfleet", "device", "clones", "--json"],
        env={**os.environ, "PGFLEET_DATABASE_URL": fleet.stack.url()},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_two_machines_of_one_disk_are_noticed_told_of_and_listed(
    fleet: Any, launch: Callable[..., Any], functions: Functions
) -> None:
    name = f"disk-{uuid.uuid4().hex[:8]}"
    fleet.value(
        "select create_webhook_endpoint(%s)",
        Jsonb({"name": name, "url": "https://hooks.example.com/x", "events": ["device.cloned"]}),
    )
    told = "select count(*) from webhook_deliveries where event = 'device.cloned'"
    seen = "select clone_seen_at from device_list where hostname = %s"
    options = ("--poll-seconds", "3600", "--functions-url", functions.url)
    machine = launch(name, *options)
    machine.wait_live()
    copied = machine.folder.with_name(f"{name}-copy")
    shutil.copytree(machine.folder, copied)
    # A restart is another running agent of the same machine, which the one before never follows.
    machine.end()
    machine = launch(name, *options)
    machine.wait_said("sent a fresh token", times=2)
    assert fleet.value(seen, name) is None

    copy = launch(copied.name, *options)

    said = "another machine works with this device's secret"
    machine.wait_said(said)
    copy.wait_said(said)
    assert fleet.value(seen, name) is not None
    assert fleet.value(told) == 1
    assert name in [row["hostname"] for row in clones(fleet)]
