"""Run a program with bounded output, and end it with its children when it is not wanted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Between the polite request to end and the end.
_KILL_AFTER_SECONDS = 3.0
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProcessResult:
    """Hold how a program ended and what it printed, up to the limit."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool

    @property
    def last_words(self) -> str:
        """Give the last line that it printed, errors first."""
        for text in (self.stderr, self.stdout):
            lines = [line for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-1].strip()
        return ""


async def run_process(
    argv: Sequence[str | Path],
    *,
    limit: int,
    stdin: bytes = b"",
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> ProcessResult:
    """Run a program to its end; when cancelled, end it and everything that it started.

    Raises OSError when it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(part) for part in argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**clean_environment(), **(environment or {})},
        cwd=folder,
        # A group of its own, so that its children can be ended with it.
        start_new_session=sys.platform != "win32",
    )
    try:
        _, stdout, stderr = await asyncio.gather(
            _feed(process, stdin), _drain(process.stdout, limit), _drain(process.stderr, limit)
        )
        exit_code = await process.wait()
    except BaseException:
        await asyncio.shield(_end(process))
        raise
    return ProcessResult(
        exit_code=exit_code,
        stdout=stdout[:limit].decode("utf-8", "replace").replace("\0", "\ufffd"),
        stderr=stderr[:limit].decode("utf-8", "replace").replace("\0", "\ufffd"),
        truncated=len(stdout) > limit or len(stderr) > limit,
    )


def clean_environment() -> dict[str, str]:
    """Give the agent's environment without its own settings, which hold keys and codes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PGFLEET_")}


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None
    # A program need not read what it is given.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _drain(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """Read to the end, but keep one byte more than the limit at most."""
    assert stream is not None
    kept = bytearray()
    while chunk := await stream.read(_CHUNK):
        kept += chunk[: limit + 1 - len(kept)]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _signal_group(process, hard=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_AFTER_SECONDS)
    _signal_group(process, hard=True)
    await process.wait()


def _signal_group(process: asyncio.subprocess.Process, *, hard: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL if hard else signal.SIGTERM)
        elif process.returncode is None:
            process.kill() if hard else process.terminate()
