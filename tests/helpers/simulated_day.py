"""A day of many agents within seconds: their own code on a clock that leaps to the next thing.

Nothing of an agent is left out but the wire: what it would send is asked of the database at the
time that its clock shows, and its doorbell hears what the day lets it hear.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import uuid4

import httpx
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from pgfleet.agent import credentials, enroll, realtime, state
from pgfleet.agent.agent import Agent
from pgfleet.agent.credentials import Credentials
from pgfleet.agent.realtime import Session, SessionEnded, Signal
from pgfleet.agent.settings import AgentSettings, Timing
from pgfleet.agent.simulate import SimulatedHandlers, SimulatedWork
from pgfleet.agent.tasks import first_to_end

DAY_SECONDS = 24 * 3600.0
TOKEN_SECONDS = 3600
_URL = "http://fleet.example"


class _Leaping(selectors.DefaultSelector):
    """A selector that does not wait: time has passed by then."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self.now += timeout
        return found


class _LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


class _Here(ThreadPoolExecutor):
    """Does at once what is given to it: on this clock a thread would take no time at all."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **more))
        except BaseException as error:
            done.set_exception(error)
        return done


@dataclass
class Day:
    """What happens on the day, and what became of it."""

    connection: psycopg.Connection[Any]
    agents: int
    folder: Path
    # How many commands each device gets, and after how many seconds its socket is cut; None
    # is a doorbell that never comes to work.
    commands: int = 3
    session_seconds: float | None = DAY_SECONDS / 2
    chance: random.Random = field(default_factory=lambda: random.Random(3))
    ears: dict[str, Callable[[Signal], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin at midnight, in UTC, as days are counted."""
        now = datetime.now(UTC)
        self.begins = now.replace(hour=0, minute=0, second=0, microsecond=0)
        self.owner = str(uuid4())

    def run(self) -> dict[str, Any]:
        """Let the day pass, and give the row of it in request_list."""
        self._ask("insert into owners (id, name) values (%s, 'a day')", self.owner)
        with asyncio.Runner(loop_factory=_LeapingLoop) as runner, self._patched(runner):
            runner.get_loop().set_default_executor(_Here())
            runner.run(self._pass())
        query = "select * from request_list where owner_id = %s and day = %s"
        (row,) = self._ask(query, self.owner, self.begins.date())
        return row

    @contextmanager
    def _patched(self, runner: asyncio.Runner) -> Iterator[None]:
        clock = SimpleNamespace(
            monotonic=runner.get_loop().time, time=lambda: self._now().timestamp()
        )
        self._loop = runner.get_loop()
        with (
            mock.patch.object(enroll, "time", clock),
            mock.patch.object(realtime, "Session", _session_of(self)),
        ):
            yield

    def _now(self) -> datetime:
        return self.begins + timedelta(seconds=self._loop.time())

    async def _pass(self) -> None:
        async with httpx.AsyncClient(transport=_Wire(self)) as http:
            agents = [self._agent(number, http) for number in range(self.agents)]
            tasks = [asyncio.create_task(self._live(agent)) for agent in agents]
            tasks += [
                asyncio.create_task(self._send(number, self.chance.uniform(0, DAY_SECONDS)))
                for number in self._numbers
                for _ in range(self.commands)
            ]
            await asyncio.sleep(DAY_SECONDS - 1)
            for agent in agents:
                agent.stop()
            await asyncio.gather(*tasks)

    async def _live(self, agent: Agent) -> None:
        # Not all of them are switched on in the same second.
        await asyncio.sleep(self.chance.uniform(0, 300))
        await agent.run()

    def _agent(self, number: int, http: httpx.AsyncClient) -> Agent:
        auth, half = str(uuid4()), secrets.token_hex(32)
        (row,) = self._ask(
            "insert into devices (owner_id, hostname, auth_id) values (%s, %s, %s) returning id",
            *(self.owner, f"day-{number}", auth),
        )
        secret = f"pgfd_{row['id']}_{half}"
        self._ask(
            "insert into fleet.device_credentials (device_id, owner_id, secret_hash)"
            " values (%s, %s, fleet.hash_secret(%s))",
            *(row["id"], self.owner, secret),
        )
        folder = self.folder / f"day-{number}"
        state.prepare(folder)
        topic = f"device:{auth}"
        known = Credentials(
            device_id=row["id"],
            auth_id=auth,
            hostname=f"day-{number}",
            topic=topic,
            device_secret=secret,
            url=_URL,
            functions_url=f"{_URL}/functions/v1",
            anon_key="anon",
        )
        credentials.save(folder, known)
        self._numbers.append((row["id"], topic))
        settings = AgentSettings(
            url=_URL,
            anon_key="anon",
            state_dir=folder,
            hostname=f"day-{number}",
            timing=Timing(zone=3600),
        )
        return Agent(settings, http, handlers=SimulatedHandlers(SimulatedWork(duration=1)))

    @property
    def _numbers(self) -> list[tuple[int, str]]:
        return self.__dict__.setdefault("_made", [])

    async def _send(self, device: tuple[int, str], after: float) -> None:
        await asyncio.sleep(after)
        now = self._now()
        self._ask(
            "insert into device_commands (device_id, command_type, not_before, expires_at)"
            " values (%s, 'lock', %s, %s)",
            *(device[0], now, now + timedelta(days=2)),
        )
        if (hear := self.ears.get(device[1])) is not None:
            hear(Signal("doorbell", "for command 1"))

    def answer(self, path: str, body: dict[str, Any], sub: str) -> Any:
        """Ask the database what the server would."""
        now, name = self._now(), path.rpartition("/")[2]
        if name == "device-token":
            (row,) = self._ask(
                "select fleet.worker_device_token(%s, %s, %s) as identity",
                *(body["device_secret"], now, body["instance"]),
            )
            token = {"access_token": row["identity"]["auth_id"], "expires_in": TOKEN_SECONDS}
            return row["identity"] | token
        claims = json.dumps({"role": "authenticated", "sub": sub})
        with self.connection.transaction():
            self._ask("select set_config('request.jwt.claims', %s, true)", claims)
            if name == "claim_commands":
                return self._ask(
                    "select * from fleet.claim_commands(%s, %s, %s)",
                    *(body["p_limit"], body["p_journal"], now),
                )
            if name == "device_checkin":
                query = "select fleet.device_checkin(%s, %s) as answer"
                return self._ask(query, Jsonb(body["p_facts"]), now)[0]["answer"]
            if name == "finish_command":
                query = "select public.finish_command(%s, %s, %s, %s) as answer"
                values = [body[f"p_{key}"] for key in ("command_id", "attempt", "status")]
                return self._ask(query, *values, Jsonb(body["p_result"]))[0]["answer"]
        raise AssertionError(f"nobody answers {path}")

    def _ask(self, query: str, *values: Any) -> list[dict[str, Any]]:
        cursor = self.connection.cursor(row_factory=dict_row)
        cursor.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


class _Wire(httpx.AsyncBaseTransport):
    def __init__(self, day: Day) -> None:
        self._day = day

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sub = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = self._day.answer(request.url.path, json.loads(await request.aread()), sub)
        text = json.dumps(found, default=lambda value: value.isoformat())
        return httpx.Response(200, text=text, headers={"content-type": "application/json"})


class _Socket:
    async def set_auth(self, token: str) -> None:
        """Take a token, as a socket does without another request."""


def _session_of(day: Day) -> type[Session]:
    class Heard(Session):
        """A session whose doorbell works until it is cut."""

        async def run(self, token: Any) -> None:
            if day.session_seconds is None:
                raise SessionEnded("there is no way through")
            self._socket = _Socket()  # type: ignore[assignment]
            for kind in ("joined", "ready", "probe"):
                self._hear(Signal(kind))
            day.ears[self._client.topic] = self._hear
            await first_to_end(self._keep_token(), asyncio.sleep(day.session_seconds))
            raise SessionEnded("the network has changed")

    return Heard
