"""Put a whole file in place, or none: written aside, synced, and renamed in one step.

Each folder on the way is opened from the one before and never through a link, so nobody who
may write below a root can lead the agent out of it while it works.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pgfleet.agent.handlers.deploy.paths import Place
from pgfleet.agent.handlers.interface import HandlerFailed, Reason

_CHUNK = 1 << 20
_LEFT_OVER = re.compile(r"\.pgfleet-\d+-\d+\.part")
_POSIX = sys.platform != "win32"


class Folder:
    """An open folder below a root."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self._path = path
        self._fd = fd

    def put(self, name: str, source: Path, sha256: str, aside: str) -> bool:
        """Bring the file in place under its name; False where it is there already.

        The hash is of the bytes that were written, not of those that were read before.
        """
        present = self._present(name)
        if present is not None and self._hash(name) == sha256:
            return False
        with contextlib.suppress(FileNotFoundError):
            self._unlink(aside)
        try:
            with self._create(aside) as file:
                if _copy(source, file) != sha256:
                    raise HandlerFailed(f"{name}: the bytes changed on their way")
                _keep_owner_and_mode(file, present)
                file.flush()
                os.fsync(file.fileno())
            self._rename(aside, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self._unlink(aside)
            raise
        self._sync()
        return True

    def remove_left_overs(self) -> None:
        """Delete what a power cut left half written; one deployment works here at a time."""
        for name in os.listdir(self._path if self._fd is None else self._fd):
            if _LEFT_OVER.fullmatch(name):
                with contextlib.suppress(OSError):
                    self._unlink(name)

    def hash_of(self, name: str) -> str | None:
        """Give the hash of a file that is there; None where there is no plain file."""
        try:
            return None if self._present(name) is None else self._hash(name)
        except HandlerFailed:
            return None

    def _present(self, name: str) -> os.stat_result | None:
        """Look at what has the name now; a link or a folder is not replaced."""
        try:
            if self._fd is None:
                found = os.lstat(self._path / name)
            else:
                found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode) or _is_reparse(found):
            raise HandlerFailed(f"{name} is there already and is no plain file", Reason.FORBIDDEN)
        return found

    def _hash(self, name: str) -> str:
        with self._open(name, os.O_RDONLY) as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            return digest.hexdigest()

    def _create(self, name: str) -> IO[bytes]:
        return self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _open(self, name: str, flags: int) -> IO[bytes]:
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        if self._fd is None:
            fd = os.open(self._path / name, flags, 0o600)
        else:
            fd = os.open(name, flags, 0o600, dir_fd=self._fd)
        return os.fdopen(fd, "rb" if flags & 3 == os.O_RDONLY else "wb")

    def _rename(self, old: str, new: str) -> None:
        if self._fd is None:
            os.replace(self._path / old, self._path / new)
        else:
            os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _unlink(self, name: str) -> None:
        if self._fd is None:
            os.unlink(self._path / name)
        else:
            os.unlink(name, dir_fd=self._fd)

    def _sync(self) -> None:
        if self._fd is not None:
            os.fsync(self._fd)


@contextmanager
def open_folder(place: Place, *, create: bool) -> Iterator[Folder]:
    """Open a folder step by step; with `create` what is missing below the root is made.

    Raises HandlerFailed: forbidden where a step is a link, error where one is missing.
    """
    if not place.root.is_dir():
        raise HandlerFailed(f"the deploy root {place.root} is no folder")
    if not _POSIX:
        yield Folder(_walk_plainly(place, create=create), None)
        return
    fd = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for step in place.steps:
            deeper = _step_into(fd, step, create=create)
            os.close(fd)
            fd = deeper
        yield Folder(place.root.joinpath(*place.steps), fd)
    finally:
        os.close(fd)


def _step_into(fd: int, step: str, *, create: bool) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return os.open(step, flags, dir_fd=fd)
    except FileNotFoundError as error:
        if not create:
            raise HandlerFailed(
                f"the folder {step!r} is not there and create_path_if_not_exists is not set"
            ) from error
    except OSError as error:
        raise _not_a_folder(step, error) from error
    with contextlib.suppress(FileExistsError):
        os.mkdir(step, 0o755, dir_fd=fd)
        os.fsync(fd)
    try:
        return os.open(step, flags, dir_fd=fd)
    except OSError as error:
        raise _not_a_folder(step, error) from error


def _not_a_folder(step: str, error: OSError) -> HandlerFailed:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return HandlerFailed(f"{step!r} is a link or no folder", Reason.FORBIDDEN)
    return HandlerFailed(f"the folder {step!r} cannot be opened: {error.strerror}")


def _walk_plainly(place: Place, *, create: bool) -> Path:
    """Walk where folders cannot be opened from one another, as on Windows."""
    path = place.root
    for step in place.steps:
        path = path / step
        try:
            found = os.lstat(path)
        except FileNotFoundError as error:
            if not create:
                raise HandlerFailed(
                    f"the folder {step!r} is not there and create_path_if_not_exists is not set"
                ) from error
            path.mkdir()
            continue
        if not stat.S_ISDIR(found.st_mode) or _is_reparse(found):
            raise HandlerFailed(f"{step!r} is a link or no folder", Reason.FORBIDDEN)
    return path


def _is_reparse(found: os.stat_result) -> bool:
    return bool(getattr(found, "st_file_attributes", 0) & 0x400)


def _copy(source: Path, target: IO[bytes]) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _keep_owner_and_mode(file: IO[bytes], present: os.stat_result | None) -> None:
    """Give a file the owner and the mode of the one that it replaces."""
    if sys.platform == "win32":
        return
    if present is None:
        os.fchmod(file.fileno(), 0o644)
        return
    # Only root may give a file away; another user's file is then one of the agent's.
    with contextlib.suppress(PermissionError):
        os.fchown(file.fileno(), present.st_uid, present.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(present.st_mode) & 0o1777)
