"""`run_command` on the device: what it refuses, and the limits that it keeps."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pgfleet.agent.client import Command
from pgfleet.agent.execution import execute
from pgfleet.agent.handlers.interface import HandlerContext
from pgfleet.agent.handlers.registry import HandlerRegistry
from pgfleet.agent.journal import Outcome
from pgfleet.agent.settings import AgentSettings

# The server takes the same list: tests/db/command_types/test_run_command.py.
BAD = json.loads((Path(__file__).parents[1] / "helpers" / "bad_commands.json").read_text())
LIMIT = 4000


def carry_out(state: Path, payload: dict[str, Any]) -> Outcome:
    registry = HandlerRegistry(
        AgentSettings(
            url="http://h", anon_key="a", state_dir=state, hostname="h", allow_run_command=True
        )
    )
    context = HandlerContext(
        *(5, "run_command", 1, 7, "h", state, 20, LIMIT), environment_allowed=frozenset({"A", "B"})
    )
    command = Command(5, "run_command", payload, 1, True, 20, 60)
    return asyncio.run(execute(registry, context, command, None))


@pytest.mark.parametrize("payload", BAD, ids=json.dumps)
def test_a_payload_that_is_more_than_a_command_is_refused(
    payload: dict[str, Any], tmp_path: Path
) -> None:
    done = carry_out(tmp_path, payload)
    assert done.status == "failed" and done.reason in ("invalid_payload", "forbidden"), done


def test_a_command_sets_only_variables_that_the_device_allows(tmp_path: Path) -> None:
    line = 'echo "$A$PGFLEET_KEY"'
    done = carry_out(tmp_path, {"command": line, "environment": {"A": "one; two"}})
    assert done.result["stdout"] == "one; two\n"
    done = carry_out(tmp_path, {"command": line, "environment": {"LD_PRELOAD": "/x.so"}})
    assert (done.status, done.reason) == ("failed", "forbidden")
    assert "--allow-environment" in str(done.error)


@pytest.mark.parametrize(("asked", "kept"), [(10, 10), (None, LIMIT), (10_000_000, LIMIT)])
def test_output_is_kept_up_to_a_limit_that_is_never_above_that_of_the_device(
    asked: int | None, kept: int, tmp_path: Path
) -> None:
    payload = {"command": "head -c 100000 /dev/zero | tr '\\0' x"}
    done = carry_out(tmp_path, payload if asked is None else {**payload, "output_limit": asked})
    assert (len(done.result["stdout"]), done.result["truncated"]) == (kept, True)


@pytest.mark.parametrize("shell", [one for one in ("sh", "bash", "zsh") if shutil.which(one)])
def test_a_shell_is_chosen_by_name(shell: str, tmp_path: Path) -> None:
    done = carry_out(tmp_path, {"command": "ps -o comm= -p $$ || echo $0", "shell": shell})
    assert shell in done.result["stdout"]
