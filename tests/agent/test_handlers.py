"""Handlers: programs in a folder, plug-ins, built-ins, and how each failure is named."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from pgfleet.agent.client import Command
from pgfleet.agent.events import EventFile
from pgfleet.agent.execution import execute
from pgfleet.agent.handlers.interface import HandlerContext
from pgfleet.agent.handlers.registry import HandlerRegistry
from pgfleet.agent.journal import Outcome
from pgfleet.agent.settings import AgentSettings
from pgfleet.errors import InvalidInput, NotAllowed

LIMIT = 2000


def registry(tmp_path: Path, **more: Any) -> HandlerRegistry:
    return HandlerRegistry(
        AgentSettings(
            url="http://127.0.0.1:1",
            anon_key="anon",
            state_dir=tmp_path,
            hostname="lab-01",
            **more,
        )
    )


def carry_out(
    handlers: HandlerRegistry,
    command_type: str,
    payload: dict[str, Any] | None = None,
    *,
    timeout: float | None = 20,
    events: EventFile | None = None,
) -> Outcome:
    command = Command(5, command_type, payload or {}, 2, False, timeout, 60)
    context = HandlerContext(5, command_type, 2, 7, "lab-01", Path("/state"), timeout, LIMIT)
    return asyncio.run(execute(handlers, context, command, events))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "handlers"
    folder.mkdir(mode=0o755)
    return folder


def program(folder: Path, name: str, body: str, interpreter: str = "/bin/sh") -> Path:
    path = folder / name
    path.write_text(f"#!{interpreter}\n{body}\n")
    path.chmod(0o755)
    return path


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


@pytest.fixture
def open_registry(tmp_path: Path) -> HandlerRegistry:
    return registry(tmp_path, allow_run_command=True)


def test_a_command_line_runs_in_a_shell(open_registry: HandlerRegistry) -> None:
    done = carry_out(open_registry, "run_command", {"command": "echo $((6 * 7)); echo no >&2"})
    assert done.status == "completed"
    assert done.result == {"exit_code": 0, "stdout": "42\n", "stderr": "no\n", "truncated": False}


def test_a_command_that_fails_keeps_its_output(open_registry: HandlerRegistry) -> None:
    done = carry_out(open_registry, "run_command", {"command": "echo partly; exit 3"})
    assert (done.status, done.reason, done.error) == ("failed", "error", "exit code 3: partly")
    assert done.result["exit_code"] == 3


def test_a_command_has_a_time_limit_of_its_own(open_registry: HandlerRegistry) -> None:
    done = carry_out(open_registry, "run_command", {"command": "sleep 60", "timeout": 0.3})
    assert (done.status, done.reason) == ("failed", "timeout")


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"command": ""},
        {"command": ["id"]},
        {"command": "id", "shell": "perl"},
        {"command": "id", "timeout": 0},
        {"command": "id", "timeout": "soon"},
    ],
)
def test_a_wrong_payload_says_what_is_wrong(
    open_registry: HandlerRegistry, payload: dict[str, Any]
) -> None:
    done = carry_out(open_registry, "run_command", payload)
    assert (done.status, done.reason) == ("failed", "invalid_payload")
    assert done.error


def test_a_shell_that_is_not_there_is_unsupported(open_registry: HandlerRegistry) -> None:
    done = carry_out(open_registry, "run_command", {"command": "id", "shell": "cmd"})
    assert (done.status, done.reason) == ("failed", "unsupported")


@pytest.mark.parametrize("command_type", ["lock", "unlock", "buzz", "broadcast_message"])
def test_what_this_session_cannot_do_is_unsupported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_type: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = carry_out(registry(tmp_path), command_type, {"message": "hello"})
    assert (done.status, done.reason) == ("failed", "unsupported")
    assert done.error


def test_locking_asks_the_session_manager(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    program(programs, "loginctl", f'echo "$@" >> {said}; echo "1 0 root seat0"')
    monkeypatch.setenv("PATH", str(programs))
    for command_type in ("lock", "unlock"):
        assert carry_out(registry(tmp_path), command_type).status == "completed"
    assert "lock-sessions\n" in said.read_text()
    assert said.read_text().splitlines()[-1] == "unlock-sessions"


def test_a_message_reaches_the_program_as_it_was_written(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    program(programs, "wall", f'printf %s "$1" > {said}')
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    done = carry_out(registry(tmp_path), "broadcast_message", {"message": "Save! $(id)"})
    assert done.result == {"method": "wall"}
    assert said.read_text().endswith("Save! $(id)")


def test_a_message_without_text_is_an_invalid_payload(tmp_path: Path) -> None:
    assert carry_out(registry(tmp_path), "broadcast_message").reason == "invalid_payload"


def test_a_buzz_plays_a_tone_of_the_asked_length(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.wav"
    program(programs, "aplay", f'/bin/cp "$2" {kept}')
    monkeypatch.setenv("PATH", str(programs))
    done = carry_out(registry(tmp_path), "buzz", {"seconds": 1})
    assert done.result == {"method": "aplay", "seconds": 1.0}
    assert kept.stat().st_size == 44 + 2 * 16_000


def test_clearing_caches_spares_what_is_new_and_what_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches, outside = tmp_path / "caches", tmp_path / "outside"
    (caches / "deep").mkdir(parents=True)
    outside.mkdir()
    old, new, kept = caches / "deep" / "old", caches / "new", outside / "kept"
    for path in (old, new, kept):
        path.write_text("12345")
    (caches / "link").symlink_to(outside)
    for path in (old, kept):
        os.utime(path, (0, 0))
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    done = carry_out(registry(tmp_path), "clear_cache")
    assert done.result == {"files": 1, "bytes": 5, "skipped": 1, "folders": [str(caches)]}
    assert (old.exists(), new.exists(), kept.exists()) == (False, True, True)


def test_no_cache_folder_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert carry_out(registry(tmp_path), "clear_cache").reason == "unsupported"


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
