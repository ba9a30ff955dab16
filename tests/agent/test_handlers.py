"""Handlers: programs in a folder, plug-ins, built-ins, and how each failure is named."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.handlers import LIMIT, carry_out, program, registry

from pgfleet.agent.events import EventFile
from pgfleet.agent.handlers.interface import HandlerContext
from pgfleet.agent.handlers.registry import HandlerRegistry
from pgfleet.agent.journal import Outcome
from pgfleet.errors import InvalidInput, NotAllowed


def test_a_program_gets_the_payload_and_gives_the_result(tmp_path: Path, programs: Path) -> None:
    body = (
        "import json, os, sys\n"
        "print(json.dumps({'got': json.load(sys.stdin), 'id': os.environ['PGFLEET_COMMAND_ID'],"
        "'attempt': os.environ['PGFLEET_ATTEMPT'], 'host': os.environ['PGFLEET_HOSTNAME']}))"
    )
    program(programs, "greet.py", body, sys.executable)
    done = carry_out(registry(tmp_path, handlers_dir=programs), "greet", {"name": "Ü"})
    assert done == Outcome(
        "completed", {"got": {"name": "Ü"}, "id": "5", "attempt": "2", "host": "lab-01"}
    )


def test_a_program_does_not_see_the_keys_of_the_agent(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_ENROLLMENT_CODE", "do-not-tell")
    program(programs, "dump", "env")
    done = carry_out(registry(tmp_path, handlers_dir=programs), "dump")
    assert "do-not-tell" not in json.dumps(done.result)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "error"), (65, "invalid_payload"), (69, "unsupported"), (77, "forbidden")],
)
def test_the_exit_code_of_a_program_names_the_failure(
    tmp_path: Path, programs: Path, code: int, reason: str
) -> None:
    program(programs, "fail", f"echo fine; echo 'no paper left' >&2; exit {code}")
    done = carry_out(registry(tmp_path, handlers_dir=programs), "fail")
    assert (done.status, done.reason) == ("failed", reason)
    assert done.error == f"fail ended with exit code {code}: no paper left"
    assert done.result["stdout"] == "fine\n"


def test_output_beyond_the_limit_is_cut_and_said_so(tmp_path: Path, programs: Path) -> None:
    program(programs, "talk", "head -c 1000000 /dev/zero | tr '\\0' x")
    done = carry_out(registry(tmp_path, handlers_dir=programs), "talk")
    assert done.status == "completed"
    assert done.result == {"output": "x" * LIMIT, "truncated": True}


def test_a_program_that_takes_too_long_ends_with_its_children(
    tmp_path: Path, programs: Path
) -> None:
    pid_file = tmp_path / "child"
    program(programs, "hang", f"sleep 60 & echo $! > {pid_file}; wait")
    began = time.monotonic()
    done = carry_out(registry(tmp_path, handlers_dir=programs), "hang", timeout=0.5)
    assert (done.status, done.reason) == ("failed", "timeout")
    assert time.monotonic() - began < 20
    # Where nobody collects orphans, what has ended stays listed as a zombie.
    status = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_program_is_done_when_it_ends_though_a_child_holds_its_pipes(
    tmp_path: Path, programs: Path
) -> None:
    pid_file = tmp_path / "child"
    program(programs, "start", f"sleep 30 & echo $! > {pid_file}; echo '\"started\"'")
    began = time.monotonic()
    done = carry_out(registry(tmp_path, handlers_dir=programs), "start")
    assert done == Outcome("completed", "started")
    assert time.monotonic() - began < 10
    # What it left behind is somebody's service.
    child = int(pid_file.read_text())
    assert Path(f"/proc/{child}").exists()
    os.kill(child, 9)


def test_a_command_line_is_done_when_its_shell_ends(tmp_path: Path) -> None:
    handlers = registry(tmp_path, allow_run_command=True)
    began = time.monotonic()
    lines = "setsid sleep 30 & echo $!; echo failed >&2; exit 3"
    done = carry_out(handlers, "run_command", {"command": lines, "shell": "sh"})
    assert time.monotonic() - began < 10
    assert (done.status, done.error) == ("failed", "exit code 3: failed")
    os.kill(int(done.result["stdout"]), 9)


def test_a_command_line_may_have_the_line_ends_of_windows(tmp_path: Path) -> None:
    handlers = registry(tmp_path, allow_run_command=True)
    lines = "\ufeffif true; then\r\n  echo one\r\nfi\r\necho two\r\n"
    done = carry_out(handlers, "run_command", {"command": lines, "shell": "sh"})
    assert (done.status, done.result["stdout"]) == ("completed", "one\ntwo\n")


@pytest.mark.parametrize("mark", [b"", "\ufeff".encode()])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("first", "body"),
    [
        ("#!/bin/sh", ["cat >/dev/null; if true; then", 'echo "[\\"$0\\"]"', "fi"]),
        ("#!/bin/sh -e", ["cat >/dev/null", 'echo "[\\"$0\\"]"', "false", "echo never"]),
        ("#!/usr/bin/env bash", ["set -u", 'echo "[\\"$0\\"]"']),
        (
            f"#!{sys.executable}",
            ["import json, sys", "if True:", "    print(json.dumps([sys.argv[0]]))"],
        ),
    ],
)
def test_a_script_runs_whatever_its_editor_wrote_around_it(
    tmp_path: Path, programs: Path, mark: bytes, end: bytes, first: str, body: list[str]
) -> None:
    path = program(programs, "odd", "")
    path.write_bytes(mark + end.join(line.encode() for line in [first, *body, ""]))
    done = carry_out(registry(tmp_path, handlers_dir=programs), "odd", {"a": 1})
    found = done.result if done.status == "completed" else json.loads(done.result["stdout"])
    assert found == [str(path)]


def test_a_program_need_not_read_its_payload(tmp_path: Path, programs: Path) -> None:
    program(programs, "deaf", "exit 0")
    payload = {"text": "x" * 1_000_000}
    done = carry_out(registry(tmp_path, handlers_dir=programs), "deaf", payload)
    assert done == Outcome("completed", None)


def test_a_type_that_is_no_file_name_finds_no_program(tmp_path: Path, programs: Path) -> None:
    program(tmp_path, "outside", "echo '\"reached\"'")
    done = carry_out(registry(tmp_path, handlers_dir=programs), "../outside")
    assert (done.status, done.reason) == ("failed", "unsupported")


def test_programs_that_everybody_can_write_are_refused(tmp_path: Path, programs: Path) -> None:
    program(programs, "open", "exit 0").chmod(0o777)
    handlers = registry(tmp_path, handlers_dir=programs)
    done = carry_out(handlers, "open")
    assert done.status == "failed"
    programs.chmod(0o777)
    with pytest.raises(NotAllowed):
        registry(tmp_path, handlers_dir=programs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder, file: os.chown(file, 12345, -1),
        lambda folder, file: os.chown(folder, 12345, -1),
        lambda folder, file: os.chown(folder.parent, 12345, -1),
        lambda folder, file: (os.chown(file, 0, 12345), file.chmod(0o770)),
        lambda folder, file: (os.chown(folder.parent, 0, 12345), folder.parent.chmod(0o775)),
        lambda folder, file: folder.parent.chmod(0o757),
    ],
    ids=["file", "folder", "parent", "group of file", "group of parent", "anybody's parent"],
)
def test_an_agent_of_root_runs_nothing_that_another_user_could_replace(
    tmp_path: Path, spoil: Callable[[Path, Path], Any]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    folder = tmp_path / "site" / "handlers"
    folder.mkdir(parents=True)
    file = program(folder, "shutters", "exit 0")
    assert carry_out(registry(tmp_path, handlers_dir=folder), "shutters").status == "completed"
    spoil(folder, file)
    with pytest.raises(NotAllowed):
        registry(tmp_path, handlers_dir=folder).find("shutters")


def test_a_missing_folder_of_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a folder"):
        registry(tmp_path, handlers_dir=tmp_path / "nowhere")


def test_a_program_comes_before_what_is_built_in(tmp_path: Path, programs: Path) -> None:
    program(programs, "lock", 'echo \'{"by": "program"}\'')
    done = carry_out(registry(tmp_path, handlers_dir=programs), "lock")
    assert done.result == {"by": "program"}


async def plugin(context: HandlerContext, payload: dict[str, Any]) -> Any:
    match payload:
        case {"break": message}:
            raise RuntimeError(message)
        case {"not_json": _}:
            return {1, 2}
        case {"nul": _}:
            return {"text": "a\0b\ud800"}
        case _:
            return {"hostname": context.hostname}


@pytest.fixture
def with_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandlerRegistry:
    monkeypatch.setitem(sys.modules, "pgfleet_test_plugin", sys.modules[__name__])
    points = [
        EntryPoint("greet", "pgfleet_test_plugin:plugin", "pgfleet.handlers"),
        EntryPoint("absent", "pgfleet_no_such_module:plugin", "pgfleet.handlers"),
    ]
    monkeypatch.setattr(
        "pgfleet.agent.handlers.registry.entry_points", lambda **_: points, raising=True
    )
    return registry(tmp_path)


def test_a_plugin_carries_out_its_type(with_plugin: HandlerRegistry) -> None:
    assert carry_out(with_plugin, "greet") == Outcome("completed", {"hostname": "lab-01"})


def test_a_plugin_that_breaks_is_an_error(with_plugin: HandlerRegistry) -> None:
    done = carry_out(with_plugin, "greet", {"break": "out of ink"})
    assert done == Outcome("failed", None, "RuntimeError: out of ink", "error")


def test_a_result_that_is_no_json_is_an_error(with_plugin: HandlerRegistry) -> None:
    done = carry_out(with_plugin, "greet", {"not_json": 1})
    assert (done.status, done.reason) == ("failed", "error")
    assert "not JSON" in (done.error or "")


def test_a_result_is_made_fit_for_jsonb(with_plugin: HandlerRegistry) -> None:
    done = carry_out(with_plugin, "greet", {"nul": 1})
    assert done.result == {"text": "a\ufffdb?"}


def test_a_plugin_that_cannot_be_loaded_is_unsupported(with_plugin: HandlerRegistry) -> None:
    assert carry_out(with_plugin, "absent").reason == "unsupported"


def test_an_unknown_type_is_unsupported(tmp_path: Path) -> None:
    done = carry_out(registry(tmp_path), "levitate")
    assert done == Outcome(
        "failed", None, "this device has no handler for 'levitate'", "unsupported"
    )


def test_commands_are_forbidden_unless_they_are_allowed(tmp_path: Path, programs: Path) -> None:
    program(programs, "run_command", "echo '\"let in\"'")
    done = carry_out(registry(tmp_path, handlers_dir=programs), "run_command", {"command": "id"})
    assert (done.status, done.reason) == ("failed", "forbidden")
    assert "--allow-run-command" in (done.error or "")


def test_entries_and_exits_are_written_as_they_happen(
    with_plugin: HandlerRegistry, tmp_path: Path
) -> None:
    events = EventFile(tmp_path / "events.jsonl", durable=True)
    carry_out(with_plugin, "greet", events=events)
    carry_out(with_plugin, "greet", {"break": "x"}, events=events)
    events.close()
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(line["event"], line.get("outcome")) for line in lines] == [
        ("entered", None),
        ("left", "completed"),
        ("entered", None),
        ("left", "failed"),
    ]
    entered = lines[0]
    assert isinstance(entered.pop("at"), float)
    assert entered == {
        "event": "entered",
        "command_id": 5,
        "command_type": "greet",
        "device_id": 7,
        "hostname": "lab-01",
        "attempt": 2,
    }
