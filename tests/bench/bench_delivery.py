"""From a row to the device's handler, over the whole platform: 25, 300 and 1,000 devices.

Each device is a real agent with its own socket, journal and requests; all of them run in one
process. CPU is that of whole processes, as the kernel counts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from measure import make_owner, row, value
from websockets.asyncio.client import connect

from pgfleet.demo.platform import Platform, running_devices, running_platform
from pgfleet.demo.report import Entered, percentiles
from pgfleet_local.server.processes import command_line

FLEETS = (25, 300, 1000)
SECONDS = 20.0
# Commands a second: two a device and minute, and never less than the demo's.
RATES = {25: 10, 300: 50, 1000: 100}
PATIENCE_SECONDS = 240.0
LISTENERS, HEARTBEAT_SECONDS = 5000, 25.0
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """What a while of work came to."""

    commands: int
    seconds: float
    late: dict[str, float | None]
    simulator: float
    gateway: float

    def ms(self, cpu: float) -> float:
        """Give CPU a command, in milliseconds."""
        return round(cpu * 1000 / self.commands, 2)


def run(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Measure each fleet on a platform of its own; the one that was given is not used."""
    found: list[dict[str, Any]] = []
    few: Load | None = None
    for count in FLEETS:
        with running_platform() as platform:
            load, idle = _measure(platform, count)
        few = few or load
        rate = f"{RATES[count]} commands a second"
        # What passes in any case weighs the less the more is done.
        cpu_goal = "≤ 3 ms" if count == max(FLEETS) else None
        found += [
            row(
                f"row to handler, {count} devices, {rate}: p95",
                load.late["p95"],
                "ms",
                few.late["p95"],
                goal="≤ 250 ms",
            ),
            row(f"the same: p50, p99 {load.late['p99']} ms", load.late["p50"], "ms"),
            row(
                f"CPU of the simulator a command, {count} devices",
                load.ms(load.simulator),
                "ms",
                goal=cpu_goal,
            ),
            row(
                f"CPU of the gateway a command, {count} devices (about three requests)",
                load.ms(load.gateway),
                "ms",
                goal=cpu_goal,
            ),
            row(f"CPU of the gateway, {count} devices connected and idle", round(idle, 3), "cores"),
        ]
    return [*found, _idle_row()]


def _idle_row() -> dict[str, Any]:
    """Hold many sockets open that only say that they are there."""
    # The platform's processes inherit it: a socket is a file.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with running_platform() as platform:
        cores = asyncio.run(_hold(platform, LISTENERS))
    return row(
        f"CPU of the gateway, {LISTENERS} connected, a heartbeat each {HEARTBEAT_SECONDS:.0f} s",
        round(cores, 3),
        "cores",
        goal="≤ 0.1",
    )


async def _hold(platform: Platform, count: int) -> float:
    gateway = int((platform.folder / "data" / "gateway.pid").read_text())
    doors = asyncio.Semaphore(20)
    there = asyncio.Event()
    joined = 0

    async def listen(number: int) -> None:
        nonlocal joined
        url = f"{platform.api_url.replace('http', 'ws', 1)}/realtime/v1/websocket"
        async with doors:
            socket = await connect(
                f"{url}?apikey={platform.service_role_key}&vsn=1.0.0",
                compression=None,
                ping_interval=None,
            )
            await socket.send(json.dumps(_join(number, platform.service_role_key)))
            await socket.recv()
        joined += 1
        if joined == count:
            there.set()
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            beat = {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "2"}
            await socket.send(json.dumps(beat))
            await socket.recv()

    tasks = [asyncio.create_task(listen(number)) for number in range(count)]
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await there.wait()
        # The heartbeats are spread by how the sockets came; whole rounds of them are measured.
        before = _cpu(gateway)
        await asyncio.sleep(2 * HEARTBEAT_SECONDS)
        return (_cpu(gateway) - before) / (2 * HEARTBEAT_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _join(number: int, token: str) -> dict[str, Any]:
    config = {"private": True, "broadcast": {}, "presence": {}, "postgres_changes": []}
    return {
        "topic": f"realtime:device:{number}",
        "event": "phx_join",
        "payload": {"config": config, "access_token": token},
        "ref": "1",
        "join_ref": "1",
    }


def _measure(platform: Platform, count: int) -> tuple[Load, float]:
    with psycopg.connect(platform.db_url, autocommit=True) as db:
        make_owner(db)
        made = value(db, "select create_enrollment_code(p_max_uses => %s)", count)
        options = ("--duration", "0", "--poll-seconds", "300")
        with running_devices(platform, str(made["code"]), count, *options):
            _wait(lambda: value(db, SEEN) >= count)
            db.execute("select send_command(id, 'lock') from devices")
            _wait(lambda: value(db, OPEN) == 0)
            gateway = int((platform.folder / "data" / "gateway.pid").read_text())
            before = _cpu(gateway)
            time.sleep(SECONDS / 2)
            idle = (_cpu(gateway) - before) / (SECONDS / 2)
            return _work(platform, db, gateway, RATES[count]), idle


SEEN = "select count(*) from devices where last_seen is not null"
OPEN = "select count(*) from device_commands where status in ('pending', 'running')"


def _work(platform: Platform, db: psycopg.Connection[Any], gateway: int, rate: int) -> Load:
    ids = [one for (one,) in db.execute("select id from devices").fetchall()]
    simulator = _simulator(platform)
    first = value(db, "select max(id) from device_commands")
    cpu = _cpu(simulator), _cpu(gateway)
    chance, began = random.Random(7), time.monotonic()
    for number in range(int(rate * SECONDS)):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        db.execute("select send_command(%s, 'clear_cache')", (chance.choice(ids),))
    _wait(lambda: value(db, OPEN) == 0)
    seconds = time.monotonic() - began
    used = _cpu(simulator) - cpu[0], _cpu(gateway) - cpu[1]
    rows = db.execute(
        "select id, extract(epoch from created_at)::float8 from device_commands where id > %s",
        (first,),
    ).fetchall()
    entered = Entered(platform.events).look()
    late = [(entered[number][0] - created) * 1000 for number, created in rows]
    return Load(len(rows), seconds, percentiles(late), *used)


def _simulator(platform: Platform) -> int:
    """Find the process of the devices: the one that was told to write these events."""
    for entry in Path("/proc").glob("[0-9]*"):
        if str(platform.events) in command_line(int(entry.name)):
            return int(entry.name)
    raise LookupError("the devices' process is gone")


def _cpu(pid: int) -> float:
    """Give the seconds of CPU that a process has had."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICK


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)
