"""A device that blocks apps as geo schedules say, with the whole platform around it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

# Longer than a test: what arrives was rung, not looked for.
NEVER = ("--poll-seconds", "3600")
PROGRAM = "#!/bin/sh\n{ cat; echo; } >> %s\n"


class Programs:
    """The owner's own `apply_block` and `clear_block`, which write down what they are told."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        self._told = folder.parent / "told"
        for name in ("apply_block", "clear_block"):
            program = folder / name
            program.write_text(PROGRAM % self._told)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def told(self) -> list[Any]:
        """Give the payloads in their order, each once until another comes."""
        if not self._told.exists():
            return []
        found = [json.loads(line) for line in self._told.read_text().splitlines() if line]
        return [one for nr, one in enumerate(found) if nr == 0 or one != found[nr - 1]]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path / "programs")


def create(fleet: Any, **spec: Any) -> int:
    whole = {"name": "block", "start_minute": 0, "end_minute": 0, "timezone": "UTC", **spec}
    made: int = fleet.value("select id from public.create_geo_schedule(%s)", Jsonb(whole))
    return made


def statuses(fleet: Any, geo_schedule: int) -> set[str]:
    rows = fleet.conn.execute(
        "select r.status from public.geo_action_reports as r"
        " join public.geo_actions as a on a.id = r.geo_action_id where a.geo_schedule_id = %s",
        (geo_schedule,),
    )
    return {row["status"] for row in rows}


def test_a_device_is_rung_blocks_tells_and_stops(
    fleet: Any, launch: Callable[..., Any], programs: Programs
) -> None:
    agent = launch("geo-1", *NEVER, "--handlers", str(programs.folder))
    agent.wait_live()
    fleet.wait_for(lambda: programs.told() == [{}], "nothing is blocked at the start")

    made = create(fleet, device="geo-1", apps=["steam"])
    fleet.wait_for(lambda: programs.told()[-1] == {"apps": ["steam"]}, "the block")
    fleet.wait_for(lambda: "running" in statuses(fleet, made), "the report")

    fleet.value("select public.delete_geo_schedule(%s)", made)
    fleet.wait_for(lambda: programs.told()[-1] == {}, "the end of the block")
    fleet.wait_for(lambda: "finished" in statuses(fleet, made), "the report of the end")


def test_a_device_that_starts_without_its_server_blocks_what_it_knew(
    fleet: Any, launch: Callable[..., Any], programs: Programs
) -> None:
    handlers = ("--handlers", str(programs.folder))
    agent = launch("geo-2", *NEVER, *handlers)
    agent.wait_live()
    create(fleet, device="geo-2", apps=["chat"])
    fleet.wait_for(lambda: programs.told()[-1:] == [{"apps": ["chat"]}], "the block")
    agent.end()
    before = programs.told()

    # Nobody listens there.
    gone = ("--url", "http://127.0.0.1:9", "--functions-url", "http://127.0.0.1:9")
    again = launch("geo-2", *NEVER, *handlers, *gone)
    again.wait_said("blocked now: chat")
    assert programs.told() == before


def test_who_does_not_block_apps_does_not_ask(fleet: Any, launch: Callable[..., Any]) -> None:
    agent = launch("geo-3", *NEVER, "--no-block-apps")
    agent.wait_live()
    made = create(fleet, device="geo-3", apps=["chat"])
    command = fleet.send("geo-3", "broadcast_message", {"message": "hello"})
    fleet.wait_status(command, "completed", "failed")
    assert statuses(fleet, made) == set()
