"""Starting processes that end with us, and finding those that an earlier run left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pgfleet_local.settings import LocalError


class ProcessError(LocalError):
    """A process could not be started or did not do what it was started for."""


def server_account() -> pwd.struct_passwd | None:
    """Give the account that Postgres runs as when we are root, None when it runs as us."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ProcessError("root cannot run Postgres and there is no account postgres or nobody")


def as_account(account: pwd.struct_passwd | None, command: list[str]) -> list[str]:
    """Prefix a command so that it runs as the account."""
    if account is None:
        return command
    if shutil.which("setpriv") is None:
        raise ProcessError("setpriv is missing: install util-linux, or do not run this as root")
    user = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
    return ["setpriv", *user, "--reset-env", *command]


def ending_with_us(command: list[str], death_signal: str = "TERM") -> list[str]:
    """Prefix a command so that the kernel, where it can, signals it when we end, however we do.

    "We" is the thread that starts it: one that lives as long as the process should.
    """
    if sys.platform == "linux" and shutil.which("setpriv"):
        return ["setpriv", f"--pdeathsig={death_signal}", *command]
    return command


def spawn(
    command: list[str],
    *,
    log: IO[bytes],
    account: pwd.struct_passwd | None = None,
    environment: Mapping[str, str] | None = None,
    death_signal: str = "TERM",
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, out of reach of the terminal's Ctrl-C.

    It gets `death_signal` when the thread that started it ends.
    """
    return subprocess.Popen(
        # The death signal innermost, because changing the user clears it.
        as_account(account, ending_with_us(command, death_signal)),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment) if environment is not None else None,
        cwd="/",
        start_new_session=True,
    )


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return not Path("/proc/self").exists()


def command_line(pid: int) -> list[str]:
    """Give the words with which a process was started, none when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        if Path("/proc/self").exists() or shutil.which("ps") is None:
            return []
    words = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def running_in(folder: Path, program: str) -> list[int]:
    """List the processes of one program that work in a folder (where there is a /proc)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            works_here = (entry / "cwd").readlink() == folder
            if works_here and (entry / "exe").readlink().name == program:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_gone(pids: list[int], seconds: float) -> bool:
    """Wait until none of the processes runs any more and tell whether that came true."""
    end = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def end_process(pid: int, first: int = signal.SIGTERM, seconds: float = 10) -> None:
    """End a process, politely first."""
    send(pid, first)
    if not wait_gone([pid], seconds):
        send(pid, signal.SIGKILL)
        wait_gone([pid], seconds)
