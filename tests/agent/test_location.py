"""A device that tells where it is, with the whole platform around it, and with it away."""

from __future__ import annotations

import json
import selectors
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

# Longer than a test: what arrives was rung, not looked for.
NEVER = ("--poll-seconds", "3600")
SCHOOL = (52.52, 13.405)
FAR_AWAY = (52.6, 13.405)


class Road:
    """The way to the server, through a port of its own, which can be closed and opened again."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._closing: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.url = f"http://127.0.0.1:{port}"

    def open(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        hearing, self._closing = socket.socketpair()
        self._thread = threading.Thread(target=self._carry, args=(listener, hearing))
        self._thread.start()

    def close(self) -> None:
        if self._closing is not None and self._thread is not None:
            self._closing.close()
            self._thread.join()
            self._closing = None

    def _carry(self, listener: socket.socket, hearing: socket.socket) -> None:
        ends: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as selector:
            for one in (listener, hearing):
                selector.register(one, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    one = key.fileobj
                    assert isinstance(one, socket.socket)
                    if one is hearing:
                        for each in (listener, hearing, *ends):
                            each.close()
                        return
                    if one is listener:
                        near = listener.accept()[0]
                        far = socket.create_connection(("127.0.0.1", self._target))
                        ends |= {near: far, far: near}
                        selector.register(near, selectors.EVENT_READ)
                        selector.register(far, selectors.EVENT_READ)
                    elif one in ends and not self._pass_on(one, ends[one]):
                        for each in (one, ends.pop(one)):
                            selector.unregister(each)
                            each.close()
                            ends.pop(each, None)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> bool:
        try:
            data = one.recv(65536)
            other.sendall(data)
        except OSError:
            return False
        return bool(data)


class Receiver:
    """A program that says where the device is, and the file that tells it what to say."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self._says = folder / "says"
        self.program = folder / "where"
        self.program.write_text(f"#!/bin/sh\nexec cat {self._says}\n")
        self.program.chmod(0o755)

    @property
    def options(self) -> tuple[str, ...]:
        return (*NEVER, "--location-program", str(self.program), "--location-seconds", "0.2")

    def says(self, text: str) -> None:
        new = self._says.with_suffix(".new")
        new.write_text(text)
        new.replace(self._says)

    def is_at(
        self, place: tuple[float, float], at: datetime | None = None, metres: int = 8
    ) -> None:
        fix: dict[str, Any] = {"latitude": place[0], "longitude": place[1], "accuracy_m": metres}
        if at is not None:
            fix["located_at"] = at.isoformat()
        self.says(json.dumps(fix))


@pytest.fixture
def name() -> str:
    return f"van-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "receiver")


@pytest.fixture
def road(fleet: Any, free_port: Callable[[], int]) -> Iterator[Road]:
    made = Road(free_port(), fleet.settings.api_port)
    made.open()
    yield made
    made.close()


def device(fleet: Any, name: str) -> dict[str, Any]:
    row = fleet.conn.execute("select * from public.devices where hostname = %s", (name,)).fetchone()
    return row or {"located_at": None}


def school(fleet: Any, name: str, min_dwell: str = "60 seconds") -> int:
    """Make a location with the device's owner, and a policy that locks who enters it."""
    found: int = fleet.value(
        "insert into public.locations (owner_id, name, latitude, longitude, radius_m, min_dwell)"
        " values (%s, %s, %s, %s, 150, %s::interval) returning id",
        *(device(fleet, name)["owner_id"], f"School of {name}", *SCHOOL, min_dwell),
    )
    fleet.conn.execute(
        "insert into public.location_policies (owner_id, location_id, event, action_type)"
        " values (%s, %s, 'enter', 'lock')",
        (device(fleet, name)["owner_id"], found),
    )
    return found


def crossings(fleet: Any, name: str) -> list[tuple[str, datetime, datetime]]:
    rows = fleet.conn.execute(
        "select event, at, fix_at from public.location_events"
        " where device_id = %s and event in ('entered', 'left') order by id",
        (fleet.device_id(name),),
    )
    return [(row["event"], row["at"], row["fix_at"]) for row in rows]


def status(folder: Path) -> dict[str, Any]:
    words = ["agent", "status", "--json", "--state-dir", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pgfleet", *words], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_entering_a_location_brings_the_command_of_its_policy_by_the_doorbell(
    fleet: Any, launch: Callable[..., Any], name: str, receiver: Receiver, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir(mode=0o755)
    lock = programs / "lock"
    lock.write_text('#!/bin/sh\necho "{\\"locked\\": true}"\n')
    lock.chmod(0o755)
    receiver.is_at(FAR_AWAY)
    agent = launch(name, *receiver.options, "--handlers", str(programs))
    agent.wait_live()
    fleet.wait_for(lambda: device(fleet, name)["located_at"], "the first position")
    school(fleet, name, min_dwell="0")

    receiver.is_at(SCHOOL)
    agent.wait_said(f"this device is now in School of {name}")
    query = "select id from public.device_commands where device_hostname = %s"
    # The ticker starts with the database; until then nothing acts.
    command_id = fleet.wait_for(lambda: fleet.value(query, name), "the command", 90)
    assert fleet.wait_status(command_id, "completed", "failed")["result"] == {"locked": True}
    assert f"rung: doorbell for command {command_id}" in agent.said()

    fleet.wait_for(lambda: status(agent.folder)["places"], "the place in the status")
    found = status(agent.folder)
    assert found["places"] == [f"School of {name}"]
    assert (found["latitude"], found["longitude"], found["accuracy_m"]) == (*SCHOOL, 8.0)
    assert datetime.fromisoformat(found["located_at"]) == device(fleet, name)["located_at"]
    assert found["position_accepted_at"] >= found["located_at"]
    assert found["waiting_positions"] == 0
    assert (agent.folder / "location.json").stat().st_mode & 0o777 == 0o600
    # Where somebody is, is for their server alone.
    assert str(SCHOOL[0]) not in agent.said()


@pytest.mark.parametrize("restarted", [False, True])
def test_fixes_of_an_outage_arrive_afterwards_with_their_own_times(
    fleet: Any,
    launch: Callable[..., Any],
    name: str,
    receiver: Receiver,
    road: Road,
    restarted: bool,
) -> None:
    began = datetime.now(UTC) - timedelta(minutes=20)
    outside, entered, confirmed, left, gone = (
        began + timedelta(seconds=seconds) for seconds in (0, 300, 370, 700, 790)
    )
    receiver.is_at(FAR_AWAY, outside)
    options = (*receiver.options, "--url", road.url, "--functions-url", f"{road.url}/functions/v1")
    agent = launch(name, *options)
    agent.wait_live()
    fleet.wait_for(lambda: device(fleet, name)["located_at"] == outside, "the first position")
    school(fleet, name)

    road.close()
    agent.wait_said("connection lost")
    for number, (place, at) in enumerate(
        [(SCHOOL, entered), (SCHOOL, confirmed), (FAR_AWAY, left), (FAR_AWAY, gone)], start=2
    ):
        receiver.is_at(place, at)
        agent.wait_said("a position waits to be sent", times=number)
    agent.wait_said("location: no answer from")
    fleet.wait_for(lambda: status(agent.folder)["waiting_positions"] == 4, "four kept positions")
    assert device(fleet, name)["located_at"] == outside
    if restarted:
        agent.end(signal.SIGKILL)
    road.open()
    if restarted:
        agent = launch(name, *options)
        agent.wait_said("4 positions wait to be sent")
    fleet.wait_for(lambda: device(fleet, name)["located_at"] == gone, "the last position")
    assert crossings(fleet, name) == [("entered", entered, confirmed), ("left", left, gone)]
    fleet.wait_for(lambda: status(agent.folder)["waiting_positions"] == 0, "nothing kept")
    assert agent.end() == 0


def test_a_clock_that_is_ahead_is_told_and_holds_up_nothing(
    fleet: Any, launch: Callable[..., Any], name: str, receiver: Receiver
) -> None:
    receiver.is_at(FAR_AWAY, datetime.now(UTC) + timedelta(hours=1))
    agent = launch(name, *receiver.options)
    agent.wait_said("WARN .* a position was refused and dropped: .*future; set this device's clock")
    right = datetime.now(UTC)
    receiver.is_at(SCHOOL, right)
    fleet.wait_for(lambda: device(fleet, name)["located_at"] == right, "the right position")
    fleet.wait_for(lambda: status(agent.folder)["waiting_positions"] == 0, "nothing kept")


def test_a_program_without_a_fix_is_told_once_until_it_has_one_again(
    fleet: Any, launch: Callable[..., Any], name: str, receiver: Receiver
) -> None:
    receiver.says("no satellites")
    agent = launch(name, *receiver.options)
    agent.wait_said("no fix now: where did not print a fix", times=4)
    assert agent.said().count("WARN  ") == agent.said().count("WARN") == 1
    receiver.is_at(SCHOOL)
    agent.wait_said("there are fixes again")
    fleet.wait_for(lambda: device(fleet, name)["located_at"], "the first position")
    receiver.says("")
    agent.wait_said("WARN .*no fix now: where did not print a fix", times=2)


def test_a_fixed_place_comes_from_the_environment_and_is_told_once(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    agent = launch(name, *NEVER, PGFLEET_LOCATION="52.52,13.405,20", PGFLEET_LOCATION_SECONDS="0.1")
    agent.wait_live()
    fleet.wait_for(lambda: device(fleet, name)["located_at"], "the position")
    assert device(fleet, name)["accuracy_m"] == 20
    assert agent.said().count("a position waits to be sent") == 1


def test_a_retired_device_learns_it_from_its_position_too(
    fleet: Any, launch: Callable[..., Any], name: str, receiver: Receiver
) -> None:
    receiver.is_at(FAR_AWAY)
    agent = launch(name, *receiver.options)
    agent.wait_live()
    fleet.wait_for(lambda: device(fleet, name)["located_at"], "the first position")
    fleet.conn.execute("select public.retire_device(%s)", (fleet.device_id(name),))
    receiver.is_at(SCHOOL)
    assert agent.process.wait(40) == 77


def test_a_stop_ends_a_program_that_is_still_searching(
    fleet: Any, launch: Callable[..., Any], name: str, receiver: Receiver, tmp_path: Path
) -> None:
    pid_file = tmp_path / "child"
    receiver.program.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {pid_file}; wait\n")
    agent = launch(name, *receiver.options)
    pid = fleet.wait_for(lambda: pid_file.exists() and pid_file.read_text().strip(), "its child")
    assert agent.end() == 0
    process = Path(f"/proc/{pid}/stat")
    assert not process.exists() or process.read_text().split()[2] == "Z"


def test_simulated_devices_walk_where_they_are_told_to(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    options = ("--simulate", "3", "--prefix", name, "--location-walk", "52.52,13.405,300")
    launch(name, *NEVER, *options, "--location-seconds", "1", code=fleet.code(uses=3))
    query = (
        "select count(*)::int from public.devices as d where hostname like %s and located_at"
        " is not null and fleet.distance_m(latitude, longitude, 52.52, 13.405) <= 300 + accuracy_m"
    )
    fleet.wait_for(lambda: fleet.value(query, f"{name}-%") == 3, "three positions")


def test_what_waits_is_bounded_and_the_oldest_goes_first(
    fleet: Any, launch: Callable[..., Any], name: str, receiver: Receiver, road: Road
) -> None:
    agent = launch(name, *NEVER)
    agent.wait_live()
    assert agent.end() == 0
    times = [datetime.now(UTC) - timedelta(minutes=minutes) for minutes in range(500, 0, -1)]
    waiting = [{"latitude": 1, "longitude": 2, "located_at": at.isoformat()} for at in times]
    kept = {"device_id": fleet.device_id(name), "position": None, "accepted_at": None, "places": []}
    path = agent.folder / "location.json"
    path.touch(0o600)
    path.write_text(json.dumps({**kept, "waiting": waiting}))
    road.close()
    receiver.is_at(SCHOOL)
    again = launch(name, *receiver.options, "--url", road.url)
    again.wait_said("WARN .*more than 500 positions wait; the oldest is dropped")
    assert again.end() == 0
    found = json.loads(path.read_text())["waiting"]
    assert (len(found), found[0]["located_at"]) == (500, times[1].isoformat())
    assert found[-1]["latitude"] == SCHOOL[0]


def test_another_devices_positions_are_not_sent_as_ones_own(
    fleet: Any, launch: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    agent = launch(name, *NEVER)
    agent.wait_live()
    assert agent.end() == 0
    fix = {
        "latitude": 1,
        "longitude": 2,
        "accuracy_m": 3,
        "located_at": datetime.now(UTC).isoformat(),
    }
    kept = {"position": fix, "accepted_at": None, "places": [], "waiting": [fix]}
    path = agent.folder / "location.json"
    path.touch(0o600)
    for content in (json.dumps({"device_id": 0, **kept}), '{"device_id": 1}', "rubbish"):
        path.write_text(content)
        found = status(agent.folder)
        assert (found["latitude"], found["waiting_positions"]) == (None, 0)
    path.write_text(json.dumps({"device_id": fleet.device_id(name), **kept}))
    found = status(agent.folder)
    assert (found["latitude"], found["waiting_positions"]) == (1.0, 1)
