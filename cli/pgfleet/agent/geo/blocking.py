"""How apps are kept from running: by programs of the device's owner, or, on Linux, by itself."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pgfleet.agent.handlers.interface import Handler, HandlerContext, HandlerFailed, unsupported
from pgfleet.agent.handlers.registry import Handlers
from pgfleet.agent.settings import AgentSettings

logger = logging.getLogger(__name__)

# People's accounts begin here; services and the system are never stopped.
FIRST_PERSON = 1000
_COMMAND_LIMIT = 15


class Blocker(Protocol):
    """Keeps apps from running on this device."""

    # How often `apply_block` is called again while the same apps are blocked.
    again_seconds: float

    async def apply_block(self, apps: frozenset[str]) -> None:
        """Block these apps and no others. Raises HandlerFailed."""
        ...

    async def clear_block(self) -> None:
        """Block nothing any more. Raises HandlerFailed."""
        ...


class HandlerBlocker:
    """Leave it to the handlers `apply_block` (payload {"apps": […]}) and `clear_block`."""

    again_seconds = 60.0

    def __init__(self, apply: Handler, clear: Handler, context: HandlerContext) -> None:
        self._apply, self._clear, self._context = apply, clear, context

    async def apply_block(self, apps: frozenset[str]) -> None:
        """Call the handler with all that is to be blocked."""
        await self._apply(self._context, {"apps": sorted(apps)})

    async def clear_block(self) -> None:
        """Call the handler without a payload."""
        await self._clear(self._context, {})


class ProcessBlocker:
    """Stop the processes with these names, again and again; on Linux.

    As root it stops those of people, never those of the system; else those of its own account.
    """

    again_seconds = 1.0

    def __init__(self, processes: Path = Path("/proc")) -> None:
        self._processes = processes
        self._asked: set[tuple[int, str]] = set()

    async def apply_block(self, apps: frozenset[str]) -> None:
        """Ask the processes to end, and end those that were asked before."""
        names = {app.casefold() for app in apps}
        asked: set[tuple[int, str]] = set()
        for process, name, started in self._running():
            if name not in names:
                continue
            is_stubborn = (process, started) in self._asked
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL if is_stubborn else signal.SIGTERM)
                logger.info("%s is blocked: process %d was stopped", name, process)
            asked.add((process, started))
        self._asked = asked

    async def clear_block(self) -> None:
        """Stop nobody any more."""
        self._asked = set()

    def _running(self) -> Iterator[tuple[int, str, str]]:
        """Give number, each of its names and start of the processes that may be stopped."""
        ours, mine = os.getpid(), os.geteuid()
        for folder in self._processes.iterdir():
            if not folder.name.isdecimal() or int(folder.name) == ours:
                continue
            # Whoever ends while being looked at needs no stopping.
            with contextlib.suppress(OSError, IndexError, ValueError):
                account = folder.stat().st_uid
                if account < FIRST_PERSON if mine == 0 else account != mine:
                    continue
                command, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
                started = rest.split()[19]
                for name in _names(folder, command.partition("(")[2]):
                    yield int(folder.name), name, started


class NoBlocker:
    """Say that this device cannot do it."""

    again_seconds = 3600.0

    async def apply_block(self, apps: frozenset[str]) -> None:
        """Raise HandlerFailed."""
        raise unsupported(
            f"blocking apps is not supported on {sys.platform}: add programs named apply_block and "
            "clear_block to the folder of --handlers"
        )

    async def clear_block(self) -> None:
        """Do nothing: nothing was blocked."""


def choose_blocker(handlers: Handlers, settings: AgentSettings, device_id: int) -> Blocker:
    """Give the owner's own handlers where both are there, else what this platform has."""
    apply, clear = _found(handlers, "apply_block"), _found(handlers, "clear_block")
    if apply is None or clear is None:
        return ProcessBlocker() if sys.platform == "linux" else NoBlocker()
    context = HandlerContext(
        command_id=0,
        command_type="apply_block",
        attempt=0,
        device_id=device_id,
        hostname=settings.hostname,
        state_dir=settings.state_dir,
        timeout_seconds=None,
        output_limit=settings.output_limit,
    )
    return HandlerBlocker(apply, clear, context)


def _found(handlers: Handlers, name: str) -> Handler | None:
    try:
        return handlers.find(name)
    except HandlerFailed:
        return None


def is_for_ever(error: HandlerFailed) -> bool:
    """Tell whether trying again is of no use."""
    return error.reason == "unsupported"


def _names(folder: Path, command: str) -> set[str]:
    """Give the names by which people know a process: its command, its file, its first argument."""
    names = {command}
    with contextlib.suppress(OSError):
        names.add(Path(os.readlink(folder / "exe")).name)
    argument = (folder / "cmdline").read_bytes().split(b"\0", 1)[0].decode(errors="replace")
    # The kernel cuts a command off; the whole of it begins with what is left.
    if len(command) < _COMMAND_LIMIT or Path(argument).name.startswith(command):
        names.add(Path(argument).name)
    return {name.casefold() for name in names if name}
