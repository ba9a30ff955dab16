"""Whole agents against the whole platform: rung, deaf, killed, stopped and retired."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Longer than a test: what arrives was rung, not looked for.
NEVER = ("--poll-seconds", "3600")
OFTEN = ("--poll-seconds", "0.5")


@pytest.fixture
def name() -> str:
    return f"lab-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir(mode=0o755)
    path = folder / "lock"
    path.write_text('#!/bin/sh\necho "{\\"locked\\": true}"\n')
    path.chmod(0o755)
    return folder


def simulated(name: str, duration: float, *options: str) -> list[str]:
    return ["--simulate", "1", "--prefix", name, "--duration", str(duration), *options]


def test_a_command_sent_by_sql_reaches_its_handler_by_the_doorbell(
    fleet: Any, launch: Callable[..., Any], name: str, programs: Path
) -> None:
    agent = launch(name, *NEVER, "--handlers", str(programs))
    agent.wait_live()
    agent.wait_said("rung: ready")
    began = time.monotonic()
    command_id = fleet.send(name, "lock")
    row = fleet.wait_status(command_id, "completed", "failed")
    assert time.monotonic() - began < 5
    assert (row["status"], row["result"], row["attempt"]) == ("completed", {"locked": True}, 1)
    assert len(agent.events("entered", command_id)) == 1
    assert f"rung: doorbell for command {command_id}" in agent.said()


def test_what_waited_is_done_at_the_start(
    fleet: Any, launch: Callable[..., Any], name: str, programs: Path
) -> None:
    launch(name, "--handlers", str(programs)).wait_live()
    first = launch(name + "-other", *NEVER, "--handlers", str(programs))
    first.wait_live()
    assert first.end() == 0
    command_id = fleet.send(name + "-other", "lock")
    launch(name + "-other", *NEVER, "--handlers", str(programs))
    assert fleet.wait_status(command_id, "completed", "failed")["status"] == "completed"


@pytest.mark.parametrize(
    "fault", [{"lose_events": True}, {"refuse_status": 401}, {"refuse_status": 503}]
)
def test_a_deaf_agent_looks_by_itself(
    fleet: Any, launch: Callable[..., Any], name: str, programs: Path, fault: dict[str, Any]
) -> None:
    fleet.realtime(set=fault)
    agent = launch(name, *OFTEN, "--handlers", str(programs))
    agent.wait_said("rung: poll")
    command_id = fleet.send(name, "lock")
    assert fleet.wait_status(command_id, "completed", "failed")["status"] == "completed"


@pytest.mark.parametrize(
    "action", ["drop", "close", "phx_close", "phx_error", "system_error", "expire", "oversize"]
)
def test_a_lost_connection_is_rebuilt_and_hears_again(
    fleet: Any, launch: Callable[..., Any], name: str, programs: Path, action: str
) -> None:
    agent = launch(name, *NEVER, "--handlers", str(programs))
    agent.wait_live()
    before = agent.said().count("the doorbell is live")
    assert fleet.realtime(do=action)["struck"] >= 1
    agent.wait_said("connection lost")
    agent.wait_said("the doorbell is live", times=before + 1)
    command_id = fleet.send(name, "lock")
    assert fleet.wait_status(command_id, "completed", "failed")["status"] == "completed"
    assert f"rung: doorbell for command {command_id}" in agent.said()


def test_a_refused_join_is_tried_again(fleet: Any, launch: Callable[..., Any], name: str) -> None:
    fleet.realtime(set={"join_error": "ClientJoinRateLimitReached: Too many joins per second"})
    agent = launch(name, *NEVER)
    agent.wait_said("connection lost: CHANNEL_ERROR .*Too many joins")
    fleet.realtime("DELETE")
    agent.wait_live()


def test_rings_that_come_twice_and_in_disorder_run_nothing_twice(
    fleet: Any, launch: Callable[..., Any], name: str, programs: Path
) -> None:
    agent = launch(name, *NEVER, "--handlers", str(programs))
    agent.wait_live()
    fleet.realtime(set={"duplicate_events": True, "reorder_events": True})
    sent = [fleet.send(name, "lock") for _ in range(6)]
    for command_id in sent:
        assert fleet.wait_status(command_id, "completed", "failed")["attempt"] == 1
    assert sorted(line["command_id"] for line in agent.events("entered")) == sent


def test_a_server_that_no_longer_answers_is_noticed(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    agent = launch(name, *NEVER, "--probe-seconds", "0.3")
    agent.wait_said(r"\[live\] rung")
    # The first probe learns that a device may hear but not send.
    agent.wait_said("probe answered")
    fleet.realtime(set={"frozen": True})
    agent.wait_said("connection lost: probe: timeout", seconds=30)
    before = agent.said().count("the doorbell is live")
    fleet.realtime("DELETE")
    agent.wait_said("the doorbell is live", times=before + 1)


def test_a_device_that_may_send_is_probed_by_acknowledgements(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    fleet.conn.execute(
        "create policy test_devices_send on realtime.messages for insert to authenticated"
        " with check (true)"
    )
    try:
        agent = launch(name, *NEVER, "--probe-seconds", "0.3")
        agent.wait_live()
        # Without acknowledgements as many would take longer.
        agent.wait_said("probe answered", times=4, seconds=25)
        fleet.realtime(set={"frozen": True})
        agent.wait_said("connection lost: probe: timeout", seconds=15)
    finally:
        fleet.conn.execute("drop policy test_devices_send on realtime.messages")


def test_a_killed_agent_runs_again_what_is_safe_and_nothing_else(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    device = f"{name}-0001"
    with fleet.setting("lease_seconds", 3):
        agent = launch(name, *simulated(name, 3600, *OFTEN))
        agent.wait_live()
        safe, unsafe = fleet.send(device, "lock"), fleet.send(device, "buzz")
        agent.wait_entered(safe)
        agent.wait_entered(unsafe)
        agent.end(signal.SIGKILL)

        again = launch(name, *simulated(name, 0.01, *OFTEN))
        done, ended = fleet.wait_status(safe, "completed"), fleet.wait_status(unsafe, "failed")
    assert (done["attempt"], ended["reason"]) == (2, "interrupted")
    assert len(again.events("entered", safe)) == 2
    assert len(again.events("entered", unsafe)) == 1
    assert again.end() == 0


def test_a_killed_agent_whose_journal_is_gone_repeats_nothing_unsafe(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    device = f"{name}-0001"
    with fleet.setting("lease_seconds", 3):
        agent = launch(name, *simulated(name, 3600, *OFTEN))
        agent.wait_live()
        unsafe = fleet.send(device, "buzz")
        agent.wait_entered(unsafe)
        agent.end(signal.SIGKILL)
        (agent.folder / device / "journal.jsonl").unlink()
        again = launch(name, *simulated(name, 0.01, *OFTEN))
        row = fleet.wait_status(unsafe, "failed", "completed")
    assert row["reason"] == "interrupted"
    assert len(again.events("entered", unsafe)) == 1


def test_a_long_command_keeps_its_lease(fleet: Any, launch: Callable[..., Any], name: str) -> None:
    device = f"{name}-0001"
    with fleet.setting("lease_seconds", 2):
        agent = launch(name, *simulated(name, 5, *OFTEN))
        agent.wait_live()
        command_id = fleet.send(device, "buzz")
        row = fleet.wait_status(command_id, "completed", "failed")
    assert (row["status"], row["attempt"]) == ("completed", 1)
    assert len(agent.events("entered", command_id)) == 1


def test_a_cancelled_command_is_stopped(fleet: Any, launch: Callable[..., Any], name: str) -> None:
    device = f"{name}-0001"
    with fleet.setting("lease_seconds", 2):
        agent = launch(name, *simulated(name, 3600, *OFTEN))
        agent.wait_live()
        command_id = fleet.send(device, "buzz")
        agent.wait_entered(command_id)
        fleet.conn.execute("select public.cancel_command(%s, 'changed my mind')", (command_id,))
        fleet.wait_for(lambda: agent.events("left", command_id), "the handler's end")
    assert agent.events("left", command_id)[0]["outcome"] == "stopped"
    assert fleet.command(command_id)["status"] == "cancelled"
    assert agent.end() == 0


def test_a_graceful_stop_lets_what_runs_end_and_starts_nothing(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    device = f"{name}-0001"
    agent = launch(name, *simulated(name, 1.5, *OFTEN, "--concurrency", "1"))
    agent.wait_live()
    running = fleet.send(device, "buzz")
    agent.wait_entered(running)
    waiting = fleet.send(device, "buzz")
    assert agent.end(signal.SIGTERM) == 0
    assert fleet.command(running)["status"] == "completed"
    assert (fleet.command(waiting)["status"], fleet.command(waiting)["attempt"]) == ("pending", 0)


def test_a_stop_that_cannot_wait_leaves_it_to_the_journal(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    device = f"{name}-0001"
    with fleet.setting("lease_seconds", 3):
        agent = launch(name, *simulated(name, 3600, *OFTEN, "--stop-seconds", "0.2"))
        agent.wait_live()
        command_id = fleet.send(device, "buzz")
        agent.wait_entered(command_id)
        assert agent.end(signal.SIGINT) == 0
        assert fleet.command(command_id)["status"] == "running"
        again = launch(name, *simulated(name, 0.01, *OFTEN))
        assert fleet.wait_status(command_id, "failed", "completed")["reason"] == "interrupted"
    assert len(again.events("entered", command_id)) == 1


def test_a_retired_device_says_so_and_ends(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    agent = launch(name, *OFTEN)
    agent.wait_live()
    fleet.conn.execute("select public.retire_device(%s)", (fleet.device_id(name),))
    assert agent.process.wait(40) == 77
    assert "ERROR" in agent.said()
    assert "retired or re-keyed" in agent.said()


def test_a_new_disk_enrols_as_the_same_device_and_ends_the_old_one(
    fleet: Any, launch: Callable[..., Any], name: str, programs: Path
) -> None:
    old = launch(name, *OFTEN)
    old.wait_live()
    device_id = fleet.device_id(name)
    code = fleet.value("select public.rekey_device(%s)", device_id)["code"]
    new = launch("new-disk", *NEVER, "--handlers", str(programs), "--hostname", name, code=code)
    new.wait_live()
    assert old.process.wait(40) == 77
    command_id = fleet.send(name, "lock")
    row = fleet.wait_status(command_id, "completed", "failed")
    assert (row["status"], row["device_id"]) == ("completed", device_id)


def test_a_retired_device_enrols_again_where_it_was(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    agent = launch(name, *OFTEN)
    agent.wait_live()
    device_id = fleet.device_id(name)
    fleet.conn.execute("select public.retire_device(%s)", (device_id,))
    assert agent.process.wait(40) == 77
    code = fleet.value("select public.rekey_device(%s)", device_id)["code"]
    again = launch(name, *OFTEN, code=code)
    again.wait_live()
    assert again.end() == 0
    # What it was given is used up, and not needed any more.
    launch(name, *OFTEN, code=code).wait_live()


def test_a_second_agent_on_the_same_folder_is_refused(
    fleet: Any, launch: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    agent = launch(name, *NEVER)
    agent.wait_live()
    second = launch(name, *NEVER)
    assert second.process.wait(30) == 1
    errors = (tmp_path / f"{name}-1.err").read_text()
    assert "another agent" in errors
    assert "--state-dir" in errors


def test_a_used_code_is_refused_at_once_with_the_next_step(
    launch: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    agent = launch(name, code="NO-SUCH-CODE")
    assert agent.process.wait(30) == 1
    assert "enroll" in (tmp_path / f"{name}-0.err").read_text()


def test_status_tells_who_the_device_is_and_no_secret(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    agent = launch(name, *NEVER)
    agent.wait_live()
    words = ["agent", "status", "--json", "--state-dir", str(agent.folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pgfleet", *words], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    stored = json.loads((agent.folder / "credentials.json").read_text())
    assert stored["device_secret"] not in done.stdout
    assert found["device_id"] == fleet.device_id(name)
    assert (found["running"], found["process_id"]) == (True, agent.process.pid)
    assert (found["running_commands"], found["unreported"]) == ([], [])


def test_a_log_holds_no_secret(fleet: Any, launch: Callable[..., Any], name: str) -> None:
    code = fleet.code()
    agent = launch(name, *OFTEN, code=code)
    agent.wait_live()
    agent.wait_said("rung: poll")
    stored = json.loads((agent.folder / "credentials.json").read_text())
    for secret in (code, stored["device_secret"], stored["anon_key"], "eyJ"):
        assert secret not in agent.said()


def test_simulated_devices_each_do_their_own_work(
    fleet: Any, launch: Callable[..., Any], name: str
) -> None:
    options = ["--simulate", "5", "--prefix", name, "--duration", "0.01", *NEVER]
    agent = launch(name, *options, code=fleet.code(uses=5))
    agent.wait_said("the doorbell is live", times=5)
    names = [f"{name}-{number:04}" for number in range(1, 6)]
    sent = {fleet.send(one, "lock"): one for one in names for _ in range(3)}
    for command_id in sent:
        fleet.wait_status(command_id, "completed")
    entered = agent.events("entered")
    assert {line["command_id"]: line["hostname"] for line in entered} == sent
    assert len(entered) == 15
    assert agent.end() == 0
