"""One large file, many devices, a bad line, and devices that are killed on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.agent.conftest import fleet, launch, wait_for
from tests.helpers.cutting_proxy import cutting_proxy
from tests.ways.test_way_of_a_file import deploy, put_file, wait_states

__all__ = ["fleet", "launch"]


@pytest.mark.timeout(600)
def test_ten_megabytes_reach_five_devices(fleet: Any, launch: Any, tmp_path: Path) -> None:
    carry(fleet, launch, tmp_path, size=10_000_000, agents=5, seconds=150)


def carry(
    fleet: Any, launch: Any, tmp_path: Path, *, size: int, agents: int, seconds: float
) -> None:
    content = os.urandom(size)
    file = put_file(fleet, "large.bin", content)
    spoilt = put_file(fleet, "spoilt.bin", content[:-1], content[:-2] + b"?")
    names = [f"many-{size}-{n:02}" for n in range(agents)]
    roots = {name: tmp_path / f"{name}-root" for name in names}
    with (
        cutting_proxy(fleet.settings.api_port, size // 6, size // 2) as (url, cuts),
        fleet.setting("lease_seconds", 3),
        fleet.setting("retry_backoff_seconds", 0.5),
    ):
        running = {}
        for name, root in roots.items():
            root.mkdir()
            options = ("--deploy-root", f"C:={root}", "--poll-seconds", "1", "--url", url)
            running[name] = (launch(name, *options), options)
        for agent, _ in running.values():
            agent.wait_live()
        schedule = deploy(fleet, names, [file])
        bad = deploy(fleet, names[-1:], [spoilt], target_path="C:\\Bad")
        for name in names[:2]:
            agent, options = running[name]
            downloads = agent.folder / "deploy" / "downloads"
            wait_for(lambda folder=downloads: list(folder.glob("*.part")), "a download", seconds)
            agent.end(signal.SIGKILL)
            launch(name, *options)
        found = wait_states(fleet, schedule, seconds)
        spoilt_end = wait_states(fleet, bad, seconds)[names[-1]]
    assert {one["state"] for one in found.values()} == {"succeeded"}, found
    assert cuts, "the line was cut"
    for root in roots.values():
        assert (root / "Config" / "large.bin").read_bytes() == content
        assert [one.name for one in (root / "Config").iterdir()] == ["large.bin"]
    assert spoilt_end["state"] == "failed" and "sha256 differs" in spoilt_end["error_message"]
    assert list((roots[names[-1]] / "Bad").iterdir()) == []
