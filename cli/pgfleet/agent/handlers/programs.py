"""Which files of a device's owner are programs, how they are run, and which are not safe."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from pgfleet.errors import NotAllowed

_INTERPRETERS: dict[str, tuple[str, ...]] = {
    ".ps1": ("powershell", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"),
    ".py": (sys.executable,),
}


# They stumble over the ends of lines that Windows writes; others do not.
_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})
_MARK = "\ufeff".encode()
_LONGEST_FIRST_LINE = 512


def words_to_run(path: Path) -> list[str]:
    """Give the words that run a program of the owner.

    The kernel reads the first line of a script, but not behind a byte order mark, nor up to a
    carriage return, as editors of Windows write them.
    """
    whole = path.resolve()
    odd = None if sys.platform == "win32" else _odd_first_line(whole)
    if odd is None:
        return [*interpreter(path), str(whole)]
    name = Path(odd[0]).name
    if name == "env" and len(odd) > 1:
        name = Path(odd[1].split()[0]).name
    if name not in _SHELLS:
        return [*odd, str(whole)]
    text = whole.read_bytes().removeprefix(_MARK).decode("utf-8", "surrogateescape")
    # As text, so that the script still sees its own path as $0.
    return [*odd, "-c", text.replace("\r\n", "\n"), str(whole)]


def _odd_first_line(path: Path) -> list[str] | None:
    """Give the interpreter, and its argument, that only we can read; None where there is none."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_FIRST_LINE)
    line = head.removeprefix(_MARK).partition(b"\n")[0]
    if not line.startswith(b"#!") or (line.rstrip(b"\r") == line and not head.startswith(_MARK)):
        return None
    return line[2:].decode("utf-8", "replace").strip().split(maxsplit=1) or None


def interpreter(path: Path) -> tuple[str, ...]:
    """Give what must run the file; on POSIX its first line says so."""
    return _INTERPRETERS.get(path.suffix.lower(), ()) if sys.platform == "win32" else ()


def is_runnable(path: Path) -> bool:
    """Tell whether this platform would run the file."""
    if sys.platform == "win32":
        return path.suffix.lower() in (".exe", ".cmd", ".bat", ".ps1", ".py")
    return os.access(path, os.X_OK) and not path.name.startswith(".")


def refuse_writable(path: Path, option: str, reason: str) -> None:
    """Refuse what somebody else on this machine could replace: the agent may run as root.

    The file, and each folder on the way to it, belongs to root or to the user of the agent, and
    nobody else may write it; an agent of root trusts no group either. A folder where everybody
    writes and only the owner of a file removes it, like /tmp, is no way to another's file.
    """
    if sys.platform == "win32":
        return
    whole = path.resolve()
    for part in (whole, *whole.parents):
        if problem := _who_else_writes(part):
            raise NotAllowed(
                f"{option}: {part} {problem}",
                reason=reason,
                hint=f"chown {os.geteuid()} {part} && chmod go-w {part}",
            )


def _who_else_writes(path: Path) -> str | None:
    found = path.stat()
    if found.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    if found.st_mode & stat.S_ISVTX and path.is_dir():
        return None
    if found.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    if os.geteuid() == 0 and found.st_mode & stat.S_IWGRP and found.st_gid != 0:
        return "can be written by its group"
    return None
