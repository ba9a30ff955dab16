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


def interpreter(path: Path) -> tuple[str, ...]:
    """Give what must run the file; on POSIX its first line says so."""
    return _INTERPRETERS.get(path.suffix.lower(), ()) if sys.platform == "win32" else ()


def is_runnable(path: Path) -> bool:
    """Tell whether this platform would run the file."""
    if sys.platform == "win32":
        return path.suffix.lower() in (".exe", ".cmd", ".bat", ".ps1", ".py")
    return os.access(path, os.X_OK) and not path.name.startswith(".")


def refuse_writable(path: Path, option: str, reason: str) -> None:
    """Refuse what anybody on this machine could replace: the agent may run as root."""
    if sys.platform != "win32" and stat.S_IMODE(path.stat().st_mode) & stat.S_IWOTH:
        raise NotAllowed(
            f"{option}: {path} can be written by every user",
            reason=reason,
            hint=f"chmod o-w {path}",
        )
