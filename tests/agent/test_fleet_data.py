"""What agents tell of their health, and what they keep of blocklists."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pgfleet.agent.handlers.fleet_data import (
    collect_battery_data,
    send_osquery_data,
    sync_software_blocklist,
    sync_website_blocklist,
)
from pgfleet.agent.handlers.interface import HandlerContext, HandlerFailed
from pgfleet.agent.health import battery, battery_of_pmset, health


class Fleet:
    """A server that says what is to be blocked, and remembers what it was told."""

    def __init__(self, *entries: str) -> None:
        self.entries = list(entries)
        self.told: list[Any] = []

    async def blocklist(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "version": str(len(self.entries)), "entries": self.entries}

    async def tell(self, facts: dict[str, Any]) -> None:
        self.told.append(facts)


def context(folder: Path, server: Any = None) -> HandlerContext:
    return HandlerContext(5, "x", 1, 7, "lab-01", folder, 20, 2000, server=server)


def supply(folder: Path, name: str, **facts: str) -> None:
    (folder / name).mkdir()
    for fact, value in facts.items():
        (folder / name / fact).write_text(value + "\n")


def test_health_says_what_is_known_of_this_machine() -> None:
    found = health()

    assert found["os"]
    assert 0 < found["disk_free_bytes"] < found["disk_total_bytes"]
    assert datetime.fromisoformat(found["booted_at"]) < datetime.now().astimezone()
    assert health()["booted_at"] == found["booted_at"]


def test_the_battery_is_that_of_the_machine_and_not_of_its_mouse(tmp_path: Path) -> None:
    assert battery(tmp_path) == {}
    supply(tmp_path, "AC", type="Mains")
    supply(tmp_path, "mouse", type="Battery", scope="Device", capacity="5", status="Discharging")
    assert battery(tmp_path) == {}
    supply(tmp_path, "BAT0", type="Battery", capacity="80", status="Discharging")
    supply(tmp_path, "BAT1", type="Battery", capacity="41", status="Discharging")
    assert battery(tmp_path) == {"battery_percent": 60, "is_charging": False}


def test_what_macos_says_of_its_battery_is_read() -> None:
    told = "Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t93%; charging; 0:20 remaining"
    assert battery_of_pmset(told) == {"battery_percent": 93, "is_charging": True}
    assert battery_of_pmset("Now drawing from 'AC Power'") == {}


def test_battery_data_is_told_as_health_too(tmp_path: Path) -> None:
    server = Fleet()
    found = asyncio.run(collect_battery_data(context(tmp_path, server), {}))
    assert server.told == [{"attributes": {"health": found}}]


def test_a_blocklist_is_kept_in_two_files_and_only_when_it_is_new(tmp_path: Path) -> None:
    server = Fleet("a.example.com", "b.example.com\n0.0.0.0 bank.example.com")
    first = asyncio.run(sync_website_blocklist(context(tmp_path, server), {}))
    kept = tmp_path / "blocklists" / "website.hosts"

    # One with a line break would be two.
    assert (first["entries"], first["is_new"]) == (1, True)
    assert kept.read_text() == "0.0.0.0 a.example.com\n"
    before = os.stat(kept).st_mtime_ns
    again = asyncio.run(sync_website_blocklist(context(tmp_path, server), {}))
    assert (again["is_new"], os.stat(kept).st_mtime_ns) == (False, before)

    server.entries = ["chess"]
    asyncio.run(sync_software_blocklist(context(tmp_path, server), {}))
    assert (tmp_path / "blocklists" / "software.txt").read_text() == "chess\n"
    assert json.loads((tmp_path / "blocklists" / "software.json").read_text())["version"] == "1"


def test_osquery_is_asked_only_what_it_may_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "osqueryi"
    program.write_text('#!/bin/sh\necho "[{\\"asked\\": \\"$2\\"}]"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    found = asyncio.run(send_osquery_data(context(tmp_path), {"queries": ["uptime"]}))

    assert found == {"uptime": [{"asked": "select total_seconds from uptime"}]}
    for queries in (["select 1"], "uptime", [7]):
        with pytest.raises(HandlerFailed, match="queries must be"):
            asyncio.run(send_osquery_data(context(tmp_path), {"queries": queries}))


def test_a_device_without_osquery_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HandlerFailed, match="not installed"):
        asyncio.run(send_osquery_data(context(tmp_path), {}))
