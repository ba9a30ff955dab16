"""`clear_cache`: free what programs keep only to be faster."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pgfleet.agent.handlers.interface import HandlerContext, invalid_payload, unsupported

_DEFAULT_HOURS = 24


@dataclass(slots=True)
class Cleared:
    """Count what was removed and what had to stay."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0


async def clear_cache(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Remove files from the cache folders of the agent's user.

    Payload: {"older_than_hours"?: number}; what was changed later than that is in use.
    """
    hours = payload.get("older_than_hours", _DEFAULT_HOURS)
    if isinstance(hours, bool) or not isinstance(hours, int | float) or hours < 0:
        raise invalid_payload("older_than_hours must be a number of 0 or more")
    folders = [folder for folder in cache_folders() if folder.is_dir()]
    if not folders:
        raise unsupported("the user of this agent has no cache folder")
    cleared = Cleared()
    for folder in folders:
        await asyncio.to_thread(clear_folder, folder, time.time() - hours * 3600, cleared)
    return {**asdict(cleared), "folders": [str(folder) for folder in folders]}


def cache_folders() -> list[Path]:
    """Name the folders that the platform sets aside for what may be lost."""
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return [Path(local) / "Temp"] if local else []
    if sys.platform == "darwin":
        return [Path.home() / "Library" / "Caches"]
    chosen = os.environ.get("XDG_CACHE_HOME")
    return [Path(chosen) if chosen else Path.home() / ".cache"]


def clear_folder(folder: Path, before: float, cleared: Cleared) -> None:
    """Remove files last changed before an instant; never follow a link out of the folder."""
    if shutil.rmtree.avoids_symlink_attacks:
        # Names are resolved below an open folder, so that swapping a folder for a link
        # while this runs leads nowhere.
        for _, _, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
            for name in files:
                _remove(name, before, cleared, descriptor)
        return
    for path in _files_below(folder):
        _remove(str(path), before, cleared, None)


def _files_below(folder: Path) -> Iterator[Path]:
    for root, _, files in os.walk(folder, topdown=False, followlinks=False):
        for name in files:
            yield Path(root) / name


def _remove(name: str, before: float, cleared: Cleared, descriptor: int | None) -> None:
    try:
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if found.st_mtime >= before:
            cleared.skipped += 1
            return
        os.unlink(name, dir_fd=descriptor)
    except OSError:
        # In use, or gone already.
        cleared.skipped += 1
        return
    cleared.files += 1
    cleared.bytes += found.st_size
