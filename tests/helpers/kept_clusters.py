"""Clusters that are made once for each state of what makes them, and copied from then on.

To build a database takes seconds, to copy one a moment. Workers of one run, and runs that follow
each other, share what the first of them made; a change of anything that goes into it makes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pgfleet_local.server.binaries import find_binaries

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".local" / "test-clusters"
INGREDIENTS = (
    "db",
    "cli/pgfleet/schema",
    "functions/pgfleet_functions/settings.py",
    "supabase/local/pgfleet_local",
    "tests/conftest.py",
    "tests/helpers/kept_clusters.py",
    "tests/helpers/running_stack.py",
)
# What an earlier state made is of use to whoever goes back and forth between two of them.
KEEP_STATES = 2


def copy_kept(name: str, make: Callable[[], Path], to: Path) -> None:
    """Copy the cluster of that name, which has to be at rest, to a folder that does not exist.

    `make` is called where there is none yet for the present state, and gives its folder.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    with _alone(KEPT / f"{name}.lock"):
        kept = KEPT / f"{name}-{_state()}"
        if not kept.exists():
            half = KEPT / f"{name}.half"
            shutil.rmtree(half, ignore_errors=True)
            _copy(make(), half)
            half.rename(kept)
        os.utime(kept)
        _copy(kept, to)
        states = sorted(KEPT.glob(f"{name}-*"), key=lambda one: one.stat().st_mtime)
        for old in states[:-KEEP_STATES]:
            shutil.rmtree(old)


def _copy(source: Path, to: Path) -> None:
    # The files belong to the server's account, and have to go on doing so.
    subprocess.run(["cp", "-a", str(source), str(to)], check=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _state() -> str:
    digest = hashlib.sha256(f"{find_binaries()} {os.geteuid()}".encode())
    for name in INGREDIENTS:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
