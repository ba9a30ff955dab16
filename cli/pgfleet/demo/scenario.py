"""The demo's story: a fleet enrols, schedules fire, the gateway is killed, nothing is lost.

Then profiles come and go through an MDM.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgfleet.demo.deployments import DeploymentAct
from pgfleet.demo.platform import Platform, running_devices
from pgfleet.demo.profiles import STAY_SECONDS, ProfileAct
from pgfleet.demo.report import Entered, Outage, build_report
from pgfleet.errors import Unavailable

LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 90.0
# A large fleet is called room by room, as people would: a laptop that is database, gateway,
# functions and every device at once would need seconds for all of it.
ROOM = 25

Tell = Callable[[str], None]
Show = Callable[[dict[str, Any]], None]

# The first body of the task API that pgfleet understands as it is; only the time is of today.
SYSTEM_INFO = {
    "task_name": "System Info Check",
    "task_type": "command",
    "recurrence_type": "once",
    "device_ids": [1, 2],
    "command_payload": {"command": "systeminfo", "shell": "cmd"},
}

# A demo is short: handlers are quick, and devices look often.
_QUICK = ("--duration", "0.05", "--poll-seconds", "5")

_PROGRESS = """
select
  (select count(*) from public.devices where last_seen is not null) as devices,
  (select count(*) from public.schedule_runs) as runs,
  count(*) as commands,
  count(*) filter (where status = 'pending') as pending,
  count(*) filter (where status = 'running') as running,
  count(*) filter (where status = 'completed') as completed
from public.device_commands
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the demo goes on, and how much it sends."""

    devices: int
    busy_seconds: float
    ipads: int = 20
    sends_per_second: float = 4.0

    @property
    def rooms(self) -> list[list[int]]:
        """Give the ids of the devices by room."""
        ids = list(range(1, self.devices + 1))
        return [ids[first : first + ROOM] for first in range(0, self.devices, ROOM)]

    @property
    def every_seconds(self) -> int:
        """Tell how often the roll is called in a room: each second in another one."""
        return max(3, len(self.rooms))


class Scenario:
    """Play the story on a running platform, through what any user of the database has."""

    def __init__(self, platform: Platform, plan: Plan, tell: Tell, show: Show) -> None:
        self._platform = platform
        self._plan = plan
        self._tell = tell
        self._show = show
        self._db = psycopg.connect(platform.db_url, autocommit=True)
        self._random = random.Random(7)
        self._entered = Entered(platform.events)

    def play(self, conclude: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Play everything and give the report, which is told while the devices are still there."""
        with self._db:
            code = self._open_fleet()
            deploys = ("--deploy-root", f"C:={self._platform.drive}", "--allow-install")
            self._tell(f"enrolling {self._plan.devices} simulated devices over real WebSockets")
            with running_devices(self._platform, code, self._plan.devices, *_QUICK, *deploys):
                self._await_devices()
                outage = self._keep_busy()
                self._tell("waiting until every command is final")
                self._await(self._all_final, "commands did not become final")
                self._await(self._all_settled, "runs did not end")
                self._tell("sending two files and two packages by the bodies of a task scheduler")
                deployed = DeploymentAct(self._platform, self._db, self._await).play()
                report = (
                    build_report(self._db, self._entered.look(), outage)
                    | deployed
                    | self._install_profiles()
                )
                conclude(report)
            return report

    def _install_profiles(self) -> dict[str, Any]:
        self._tell(f"installing a profile for {STAY_SECONDS} s on {self._plan.ipads} iPads")
        act = ProfileAct(self._platform, self._db, self._await)
        return act.play(self._plan.ipads)

    def _value(self, statement: str, *parameters: Any) -> Any:
        row = self._db.execute(statement, parameters).fetchone()
        return row[0] if row else None

    def _open_fleet(self) -> str:
        owner = self._value("insert into public.owners (name) values ('Demo school') returning id")
        self._value("select fleet.set_setting('default_owner', %s)", Jsonb(str(owner)))
        made = self._value(
            "select public.create_enrollment_code(p_max_uses => %s)", self._plan.devices
        )
        return str(made["code"])

    def _await_devices(self) -> None:
        """Wait until each device has carried out a first command: its way is open then."""
        self._await(
            lambda: self._look()["devices"] >= self._plan.devices, "devices did not enrol in time"
        )
        for ids in self._plan.rooms:
            self._db.execute("select public.send_command(id, 'lock') from unnest(%s) as id", (ids,))
            self._await(self._all_final, "the first commands were not carried out")

    def _keep_busy(self) -> Outage:
        self._tell("creating the schedule 'System Info Check', due now")
        self._db.execute("select public.create_schedule(%s)", (Jsonb(SYSTEM_INFO),))
        self._call_the_roll()
        started = time.monotonic()
        outage: Outage | None = None
        while (passed := time.monotonic() - started) < self._plan.busy_seconds:
            self._send_one()
            if outage is None and passed > self._plan.busy_seconds / 2:
                outage = self._restart_gateway()
            self._look()
            time.sleep(1 / self._plan.sends_per_second)
        assert outage is not None
        return outage

    def _call_the_roll(self) -> None:
        rooms, every = self._plan.rooms, self._plan.every_seconds
        what = "a schedule" if len(rooms) == 1 else f"a schedule for each of {len(rooms)} rooms"
        self._tell(f"creating {what} that fires every {every} seconds")
        for number, ids in enumerate(rooms):
            self._db.execute(
                "select public.create_schedule(jsonb_build_object("
                " 'name', %s::text, 'action_type', 'broadcast_message',"
                " 'payload', jsonb_build_object('message', 'Still there?'),"
                " 'device_ids', %s, 'recurrence_type', 'interval',"
                " 'recurrence_config', jsonb_build_object('every', %s::text),"
                ' \'policies\', \'{"overlap": "allow", "max_concurrent": 1000,'
                ' "expires_after": "10 minutes"}\'::jsonb,'
                " 'start_time', date_trunc('second', now()) + make_interval(secs => %s),"
                " 'end_time', now() + make_interval(secs => %s)))",
                (
                    *(
                        "Roll call" if len(rooms) == 1 else f"Roll call, room {number + 1}",
                        Jsonb(ids),
                    ),
                    *(f"{every} seconds", 1 + number, self._plan.busy_seconds + number),
                ),
            )

    def _send_one(self) -> None:
        device = self._random.randint(1, self._plan.devices)
        self._db.execute("select public.send_command(%s, 'clear_cache')", (device,))

    def _restart_gateway(self) -> Outage:
        """Kill the gateway with commands in flight, and send more while it is away."""
        started = time.time()
        self._db.execute("select public.send_command(id, 'buzz') from public.devices")
        pid = self._platform.kill_gateway()
        self._tell(f"killed the gateway (process {pid}) with commands in flight")
        self._db.execute("select public.send_command(id, 'unlock') from public.devices")
        known = self._value("select max(id) from public.device_commands")
        self._await(lambda: self._reached(known), "the fleet did not come back")
        self._tell("the gateway is back, the fleet has caught up")
        return Outage(started, time.time())

    def _reached(self, command_id: int) -> bool:
        self._look()
        left = self._value(
            "select count(*) from public.device_commands"
            " where id <= %s and status in ('pending', 'running')",
            command_id,
        )
        return bool(left == 0)

    def _all_final(self) -> bool:
        seen = self._look()
        return bool(seen["pending"] + seen["running"] == 0)

    def _all_settled(self) -> bool:
        left = self._value(
            "select (select count(*) from public.schedules where status = 'active')"
            " + (select count(*) from public.schedule_runs where status in ('pending', 'running'))"
        )
        return bool(left == 0)

    def _look(self) -> dict[str, Any]:
        cursor = self._db.execute(_PROGRESS)
        assert cursor.description is not None
        row = cursor.fetchone()
        assert row is not None
        seen = dict(zip((column.name for column in cursor.description), row, strict=True))
        seen["handled"] = len(self._entered.look())
        self._show(seen)
        return seen

    def _await(self, condition: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{problem} within {PATIENCE_SECONDS:.0f} s",
                    reason="demo_stuck",
                    hint="The machine may be too busy: run it again on its own.",
                )
            time.sleep(LOOK_SECONDS)
