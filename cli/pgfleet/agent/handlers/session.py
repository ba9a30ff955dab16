"""`lock` and `unlock`: the screen of whoever is signed in."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from pgfleet.agent.handlers.interface import HandlerContext, HandlerFailed, unsupported
from pgfleet.agent.handlers.process import run_process

_OUTPUT_LIMIT = 4096


async def lock(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Lock every session of this device."""
    if sys.platform == "win32":
        return await _run("tsdiscon", str(_console_session()))
    if sys.platform == "darwin":
        # The lock follows at once when the password is required immediately after sleep.
        return await _run("pmset", "displaysleepnow")
    await _require_linux_session()
    return await _run("loginctl", "lock-sessions")


async def unlock(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Unlock every session of this device, where the platform lets a program do that."""
    if sys.platform in ("win32", "darwin"):
        raise unsupported("only the signed-in person can unlock a session on this platform")
    await _require_linux_session()
    return await _run("loginctl", "unlock-sessions")


async def _require_linux_session() -> None:
    if shutil.which("loginctl") is None:
        raise unsupported("this device has no loginctl, so its sessions cannot be reached")
    listed = await run_process(["loginctl", "list-sessions", "--no-legend"], limit=_OUTPUT_LIMIT)
    if listed.exit_code != 0:
        raise unsupported(f"sessions cannot be listed: {listed.last_words}")
    if not listed.stdout.strip():
        raise unsupported("nobody is signed in, so there is no session")


async def _run(*argv: str) -> dict[str, Any]:
    program = shutil.which(argv[0])
    if program is None:
        raise unsupported(f"this device has no {argv[0]}")
    done = await run_process([program, *argv[1:]], limit=_OUTPUT_LIMIT)
    if done.exit_code != 0:
        raise HandlerFailed(f"{' '.join(argv)} failed: {done.last_words or done.exit_code}")
    return {"method": " ".join(argv)}


def _console_session() -> int:
    """Find the session at the console; a service itself runs in session 0 and has no screen."""
    import ctypes

    kernel32: Any = getattr(ctypes, "windll").kernel32  # noqa: B009 - exists on Windows only
    session = int(kernel32.WTSGetActiveConsoleSessionId()) & 0xFFFFFFFF
    if session == 0xFFFFFFFF:
        raise unsupported("nobody is signed in at the console")
    return session
