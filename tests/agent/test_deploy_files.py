"""Files on the device: whole or not at all, whatever lies in the way and whenever it is cut."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.helpers.deploying import carry_out, files_server

from pgfleet.agent.handlers.deploy.paths import Place
from pgfleet.agent.handlers.deploy.place import open_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "c"
    made.mkdir()
    return made


def test_files_are_put_in_place_and_progress_is_told(root: Path, tmp_path: Path) -> None:
    contents = {"a.conf": b"a", "b.bin": os.urandom(50_000)}
    outcome, told = carry_out(files_server(contents), tmp_path / "state", roots={"C:": root})
    assert outcome.status == "completed", outcome
    assert outcome.result["state"] == "succeeded"
    assert {one.name: one.read_bytes() for one in (root / "Config").iterdir()} == contents
    assert told[-1]["bytes_done"] == told[-1]["bytes_total"] == 50_001
    assert [one["percent"] for one in told] == sorted(one["percent"] for one in told)
    again, _ = carry_out(files_server(contents), tmp_path / "state", roots={"C:": root})
    assert again.result["state"] == "skipped"


def test_a_download_goes_on_where_it_was_cut(root: Path, tmp_path: Path) -> None:
    server = files_server({"b.bin": os.urandom(50_000)})
    server.cuts = [10_000, 30_000]
    outcome, _ = carry_out(server, tmp_path / "state", roots={"C:": root})
    assert outcome.status == "completed", outcome
    assert server.asked == [0, 10_000, 30_000]


def test_a_storage_without_ranges_begins_anew(root: Path, tmp_path: Path) -> None:
    server = files_server({"b.bin": os.urandom(50_000)})
    server.cuts, server.knows_ranges = [10_000], False
    outcome, _ = carry_out(server, tmp_path / "state", roots={"C:": root})
    assert outcome.status == "completed", outcome


def test_a_pace_is_kept(root: Path, tmp_path: Path) -> None:
    server = files_server({"b.bin": os.urandom(50_000)})
    begun = time.monotonic()
    carry_out(server, tmp_path / "state", roots={"C:": root}, bytes_per_second=100_000)
    assert time.monotonic() - begun > 0.4


def test_wrong_bytes_are_fetched_once_more_and_then_refused(root: Path, tmp_path: Path) -> None:
    server = files_server({"b.bin": b"right" * 1000})
    (path,) = server.objects
    server.objects[path] = b"wrong" * 1000
    outcome, _ = carry_out(server, tmp_path / "state", roots={"C:": root})
    assert (outcome.status, outcome.reason) == ("failed", "error")
    assert "sha256 differs" in str(outcome.error)
    assert server.asked == [0, 0]
    assert list((root / "Config").iterdir()) == []


@pytest.mark.parametrize("where", ["Config", "Config/deep"])
def test_a_link_on_the_way_is_not_followed(root: Path, tmp_path: Path, where: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = root / where
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    server = files_server({"a": b"a"}, "C:\\Config\\deep\\er")
    outcome, _ = carry_out(server, tmp_path / "state", roots={"C:": root})
    assert (outcome.status, outcome.reason) == ("failed", "forbidden")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_plain_file_is_not_replaced(root: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    target = root / "Config" / "a"
    target.parent.mkdir()
    if kind == "link":
        target.symlink_to(victim)
    elif kind == "dangling":
        target.symlink_to(tmp_path / "new")
    elif kind == "folder":
        target.mkdir()
    else:
        os.mkfifo(target)
    outcome, _ = carry_out(files_server({"a": b"evil"}), tmp_path / "state", roots={"C:": root})
    assert (outcome.status, outcome.reason) == ("failed", "forbidden")
    assert victim.read_text() == "mine" and not (tmp_path / "new").exists()


def test_a_folder_that_becomes_a_link_meanwhile_is_still_the_folder_that_was_opened(
    root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    source = tmp_path / "source"
    source.write_bytes(b"a")
    place = Place(root, ("Config",))
    with open_folder(place, create=True) as folder:
        (root / "Config").rename(root / "moved")
        (root / "Config").symlink_to(outside)
        folder.put("a", source, hashlib.sha256(b"a").hexdigest(), ".pgfleet-1-1.part")
    assert list(outside.iterdir()) == []
    assert (root / "moved" / "a").read_bytes() == b"a"


def test_a_link_in_the_place_of_the_part_is_not_written_through(root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (root / "Config").mkdir()
    (root / "Config" / ".pgfleet-5-1.part").symlink_to(victim)
    outcome, _ = carry_out(files_server({"a": b"new"}), tmp_path / "state", roots={"C:": root})
    assert outcome.status == "completed"
    assert victim.read_text() == "mine"


def test_mode_of_the_file_before_is_kept_without_what_makes_it_act_for_others(
    root: Path, tmp_path: Path
) -> None:
    (root / "Config").mkdir()
    old = root / "Config" / "a"
    old.write_text("old")
    old.chmod(0o4750)
    carry_out(files_server({"a": b"new"}), tmp_path / "state", roots={"C:": root})
    assert old.stat().st_mode & 0o7777 == 0o750


def test_without_the_word_to_create_folders_none_is_made(root: Path, tmp_path: Path) -> None:
    server = files_server({"a": b"a"})
    server.what["create_path"] = False
    outcome, _ = carry_out(server, tmp_path / "state", roots={"C:": root})
    assert outcome.status == "failed" and list(root.iterdir()) == []
    assert server.asked == [], "known before anything is fetched"


CUT = """
    import asyncio, os, sys
    sys.path[:0] = {paths!r}
    from tests.helpers.deploying import carry_out, files_server
    from pathlib import Path
    count = 0
    real = os.fsync
    def dying(fd):
        global count
        count += 1
        if count == {at}:
            os._exit(9)
        real(fd)
    os.fsync = dying
    contents = {{"a.bin": b"new" * 5000, "b.bin": b"other" * 5000}}
    outcome, _ = carry_out(files_server(contents), Path({state!r}), roots={{"C:": Path({root!r})}})
    sys.exit(0 if outcome.status == "completed" else 3)
"""


@pytest.mark.parametrize("at", range(1, 12))
def test_after_a_power_cut_at_any_sync_every_file_is_old_or_new(
    root: Path, tmp_path: Path, at: int
) -> None:
    folder = root / "Config"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"old")
    where = {"state": str(tmp_path / "state"), "root": str(root)}
    paths = [str(Path(__file__).parents[2])]

    def run(at: int) -> int:
        program = textwrap.dedent(CUT).format(at=at, paths=paths, **where)
        return subprocess.run([sys.executable, "-c", program], timeout=60).returncode

    first = run(at)
    assert first in (0, 9)
    whole = {"a.bin": (b"old", b"new" * 5000), "b.bin": (b"other" * 5000,)}
    for name, allowed in whole.items():
        if (folder / name).exists():
            assert (folder / name).read_bytes() in allowed
    assert run(0) == 0
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == {
        name: allowed[-1] for name, allowed in whole.items()
    }
