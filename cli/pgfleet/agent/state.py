"""The folder in which one device keeps what it must not lose."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import IO

from pgfleet.errors import Conflict, NotAllowed, Unavailable

CREDENTIALS = "credentials.json"
JOURNAL = "journal.jsonl"
LOCK = "agent.lock"

_PATIENCE_SECONDS = 0.5


def prepare(folder: Path) -> None:
    """Create the state folder for its user alone, or refuse one that others can enter.

    On Windows the folder inherits the access list of its parent; there is no mode to check.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the state folder {folder} cannot be made: {error.strerror}",
            reason="state_dir_unusable",
            hint="Pass --state-dir with a folder that this user may write.",
        ) from error
    refuse_shared(folder)


def refuse_shared(path: Path) -> None:
    """Raise when a file or folder belongs to somebody else or others can read it."""
    if sys.platform == "win32":
        return
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise NotAllowed(
            f"{path} is a symbolic link",
            reason="state_dir_unsafe",
            hint="Pass --state-dir with the folder itself.",
        )
    if found.st_uid != os.geteuid():
        raise NotAllowed(
            f"{path} belongs to user {found.st_uid}, not to the user of this agent",
            reason="state_dir_unsafe",
            hint="Run the agent as the owner of the folder, or pass another --state-dir.",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise NotAllowed(
            f"{path} can be read by other users (mode {stat.S_IMODE(found.st_mode):o})",
            reason="state_dir_unsafe",
            hint=f"chmod {mode} {path}",
        )


def write_private(path: Path, content: str) -> None:
    """Replace a file at once, so that a crash leaves either the old or the new one."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed entry of a folder durable where the platform allows it."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FolderLock:
    """Keep a second agent away from a state folder; the system frees it when we die."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock, or raise Conflict when another process holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        file = os.fdopen(descriptor, "r+", encoding="ascii", errors="replace")
        end = time.monotonic() + _PATIENCE_SECONDS
        while not _lock(descriptor):
            if time.monotonic() < end:
                # Somebody who only looks whether it is held holds it for a moment.
                time.sleep(0.02)
                continue
            holder = _read_holder(file)
            file.close()
            raise Conflict(
                f"another agent{f' (process {holder})' if holder else ''} uses {self._path.parent}",
                reason="state_dir_locked",
                hint="Stop the other agent, or pass another --state-dir.",
            )
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; doing so twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None


def lock_holder(folder: Path) -> int | None:
    """Tell which process runs an agent on this folder, without disturbing it."""
    path = folder / LOCK
    try:
        file = path.open("r+", encoding="ascii", errors="replace")
    except OSError:
        return None
    with file:
        if _lock(file.fileno()):
            return None
        holder = _read_holder(file)
        return int(holder) if holder.isdigit() else 0


def _read_holder(file: IO[str]) -> str:
    try:
        file.seek(0)
        return file.read(20).strip()
    except OSError:
        return ""


if sys.platform == "win32":
    import msvcrt

    # Far behind the process id, which stays readable: locks are mandatory on Windows.
    _LOCKED_BYTE = 1 << 20

    def _lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
