"""Processes with a blocked name are stopped, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgfleet.agent.geo.blocking import FIRST_PERSON, NoBlocker, ProcessBlocker
from pgfleet.agent.handlers.interface import HandlerFailed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="blocks by /proc")

PERSON = FIRST_PERSON + 4321
Play = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    """Give a function that starts a program under a name, as a person where we may."""
    folder = tmp_path_factory.mktemp("games")
    # Another account has to be able to pass to it.
    for one in (folder, *folder.parents):
        if one.owner() == "root" and os.geteuid() == 0 and "pytest" in str(one):
            one.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, account: int = PERSON, program: str = "") -> subprocess.Popen[bytes]:
        path = folder / name
        if program:
            path.write_text(program)
        else:
            shutil.copy("/bin/sleep", path)
        path.chmod(0o755)
        account = account if os.geteuid() == 0 else os.geteuid()
        process = subprocess.Popen([str(path), "300"], user=account, cwd="/")
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def block(*apps: str) -> ProcessBlocker:
    blocker = ProcessBlocker()
    asyncio.run(blocker.apply_block(frozenset(apps)))
    return blocker


@pytest.mark.parametrize("name", ["steam", "Steam", "a-game-with-a-rather-long-name"])
def test_a_process_with_that_name_ends(play: Play, name: str) -> None:
    game, other = play(name), play("calculator")
    block(name.lower())
    assert game.wait(10) != 0
    assert other.poll() is None


def test_one_that_does_not_listen_is_ended(play: Play) -> None:
    deaf = "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.05; done\n"
    game = play("deaf-game", program=deaf)
    # Only a shell that has come to its trap is deaf.
    status = Path(f"/proc/{game.pid}/status")
    end = time.monotonic() + 20
    while not any(
        line.startswith("SigIgn") and int(line.split()[1], 16) & 1 << 14
        for line in status.read_text().splitlines()
    ):
        assert time.monotonic() < end
    blocker = block("deaf-game")
    assert game.poll() is None
    asyncio.run(blocker.apply_block(frozenset({"deaf-game"})))
    assert game.wait(10) == -9


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two accounts")
def test_services_of_the_system_are_left_alone(play: Play) -> None:
    service, game = play("chess", account=FIRST_PERSON - 1), play("chess-2")
    block("chess", "chess-2")
    assert game.wait(10) != 0
    assert service.poll() is None


def test_a_name_that_only_begins_alike_is_another_one(play: Play) -> None:
    game = play("steamroller")
    block("steam", "roller", "")
    assert game.poll() is None


def test_where_it_cannot_be_done_that_is_said() -> None:
    with pytest.raises(HandlerFailed, match="apply_block") as caught:
        asyncio.run(NoBlocker().apply_block(frozenset({"steam"})))
    assert caught.value.reason == "unsupported"
    asyncio.run(NoBlocker().clear_block())
