"""What the agent carries out by itself: command lines, locking, messages, a tone, caches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.handlers import carry_out, program, registry

from pgfleet.agent.handlers.registry import HandlerRegistry


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
