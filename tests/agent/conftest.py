"""A fleet on the local platform, and agents as processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

PATIENCE_SECONDS = 40.0


def wait_for(
    condition: Callable[[], Any], what: str = "it", seconds: float = PATIENCE_SECONDS
) -> Any:
    """Give the first truthy value of the condition."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.05)
    return found


class Fleet:
    """What an operator does, as one signed-in person with an owner of their own."""

    def __init__(self, stack: Any) -> None:
        self.stack = stack
        self.settings = stack.settings
        self.wait_for = wait_for
        self.conn: psycopg.Connection[dict[str, Any]] = psycopg.connect(
            stack.url(), autocommit=True, row_factory=dict_row
        )
        claims = json.dumps({"role": "authenticated", "sub": str(uuid.uuid4())})
        self.conn.execute("select set_config('request.jwt.claims', %s, false)", (claims,))

    def value(self, query: str, *params: Any) -> Any:
        row = self.conn.execute(query, params).fetchone()
        return None if row is None else next(iter(row.values()))

    def code(self, uses: int = 1) -> str:
        made = self.value("select public.create_enrollment_code(p_max_uses => %s)", uses)
        return str(made["code"])

    def device_id(self, hostname: str) -> int:
        found = self.value("select id from public.devices where hostname = %s", hostname)
        assert found is not None, f"{hostname} is not enrolled"
        return int(found)

    def send(
        self, hostname: str, command_type: str, payload: dict[str, Any] | None = None, **more: Any
    ) -> int:
        named = {
            "p_device_id": self.device_id(hostname),
            "p_command_type": command_type,
            "p_payload": Jsonb(payload or {}),
            **more,
        }
        arguments = ", ".join(f"{name} => %({name})s" for name in named)
        query = f"select (public.send_command({arguments})).id"
        row = self.conn.execute(query, named).fetchone()
        assert row is not None
        return int(row["id"])

    def command(self, command_id: int) -> dict[str, Any]:
        query = "select * from public.device_commands where id = %s"
        row = self.conn.execute(query, (command_id,)).fetchone()
        assert row is not None
        return row

    def wait_status(
        self, command_id: int, *statuses: str, seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            row = self.command(command_id)
            return row if row["status"] in statuses else None

        found: dict[str, Any] = wait_for(reached, f"{command_id} {statuses}", seconds)
        return found

    @contextmanager
    def setting(self, name: str, value: Any) -> Iterator[None]:
        """Let a setting of the engine have another value for a while."""
        before = self.value("select fleet.setting(%s)", name)
        self.conn.execute("select fleet.set_setting(%s, %s)", (name, Jsonb(value)))
        try:
            yield
        finally:
            self.conn.execute("select fleet.set_setting(%s, %s)", (name, Jsonb(before)))

    def realtime(self, method: str = "POST", **body: Any) -> dict[str, Any]:
        """Flip the fault switches of the local Realtime server."""
        key = self.settings.service_role_key
        answer = httpx.request(
            method,
            f"{self.settings.api_url}/realtime/v1/faults",
            headers={"apikey": key, "Authorization": f"Bearer {key}"},
            json=body or None,
            trust_env=False,
        )
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


@dataclass
class AgentProcess:
    """One agent that runs as a process, with its log and its events."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path
    events_file: Path
    lines: list[str] = field(default_factory=list)

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_said(self, pattern: str, times: int = 1, seconds: float = PATIENCE_SECONDS) -> None:
        def found() -> bool:
            enough = len(re.findall(pattern, self.said())) >= times
            assert enough or self.process.poll() is None, f"the agent ended:\n{self.said()}"
            return enough

        try:
            wait_for(found, f"{pattern!r} in the log", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from error

    def wait_live(self) -> None:
        self.wait_said("the doorbell is live")

    def events(self, event: str, command_id: int | None = None) -> list[dict[str, Any]]:
        if not self.events_file.exists():
            return []
        found = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [
            line
            for line in found
            if line["event"] == event and command_id in (None, line["command_id"])
        ]

    def wait_entered(self, command_id: int, times: int = 1) -> None:
        wait_for(lambda: len(self.events("entered", command_id)) >= times, "handler entry")

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def fleet(stack: Any) -> Iterator[Fleet]:
    """Give an operator's view of the platform that all tests share."""
    made = Fleet(stack)
    yield made
    made.realtime("DELETE")
    made.conn.close()


@pytest.fixture
def launch(fleet: Fleet, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Give a function that starts an agent; the same name again is the same device."""
    started: list[AgentProcess] = []

    def start(
        name: str, *options: str, code: str | None = None, **environment: str
    ) -> AgentProcess:
        folder = tmp_path / name
        log = tmp_path / f"{name}-{len(started)}.log"
        events = tmp_path / f"{name}.events"
        words = [
            *("--url", fleet.settings.api_url, "--anon-key", fleet.settings.anon_key),
            *("--state-dir", str(folder), "--hostname", name, "--events", str(events)),
            *("--reconnect-seconds", "0.2", "--reconnect-limit-seconds", "1"),
            *("--log-level", "DEBUG", "--log-file", str(log)),
        ]
        if code is not None or not folder.exists():
            words += ["--code", code or fleet.code()]
        with (tmp_path / f"{name}-{len(started)}.err").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "pgfleet", "agent", "run", *words, *options],
                env={**os.environ, "NO_PROXY": "127.0.0.1", **environment},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        made = AgentProcess(process, folder, log, events)
        started.append(made)
        return made

    yield start
    for agent in started:
        agent.end(signal.SIGKILL)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Give the folder in which an operator puts programs that are handlers."""
    folder = tmp_path / "handlers"
    folder.mkdir(mode=0o755)
    return folder
