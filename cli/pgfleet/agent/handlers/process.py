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

from pgfleet.agent.tasks import within

# Between the polite request to end and the end.
_KILL_AFTER_SECONDS = 3.0
_CHUNK = 64 * 1024
# For what an ended program's pipes still hold.
_LAST_WORDS_SECONDS = 0.5
_EXIT_LOOK_SECONDS = 0.1
# Readers of pipes that children of ended programs hold.
_left: set[asyncio.Task[None]] = set()


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
    output = [_Output(process.stdout, limit), _Output(process.stderr, limit)]
    feeding = asyncio.create_task(_feed(process, stdin))
    try:
        await _wait_for_exit(process)
        # What it has printed is in the pipes by now. A child that it left behind may hold them open
        # for years: it goes on, and what it prints is read and forgotten.
        readers = [one.task for one in output]
        await asyncio.wait(readers, timeout=_LAST_WORDS_SECONDS)
        feeding.cancel()
        for reader in readers:
            if not reader.done():
                _left.add(reader)
                reader.add_done_callback(_left.discard)
    except BaseException:
        feeding.cancel()
        await asyncio.shield(_end(process))
        for one in output:
            one.task.cancel()
        raise
    texts = [bytes(one.kept) for one in output]
    stdout_text, stderr_text = (
        text[:limit].decode("utf-8", "replace").replace("\0", "\ufffd") for text in texts
    )
    return ProcessResult(
        exit_code=process.returncode or 0,
        stdout=stdout_text,
        stderr=stderr_text,
        truncated=any(len(text) > limit for text in texts),
    )


class _Output:
    """What a program prints, while it is read: one byte more than the limit at most."""

    def __init__(self, stream: asyncio.StreamReader | None, limit: int) -> None:
        assert stream is not None
        self.kept = bytearray()
        self.task = asyncio.create_task(self._read(stream, limit))

    async def _read(self, stream: asyncio.StreamReader, limit: int) -> None:
        try:
            while chunk := await stream.read(_CHUNK):
                self.kept += chunk[: max(0, limit + 1 - len(self.kept))]
        finally:
            # Where the agent ends first, nobody else closes what a child still holds.
            if (pipe := getattr(stream, "_transport", None)) is not None:
                pipe.close()


async def _wait_for_exit(process: asyncio.subprocess.Process) -> None:
    """Wait until the program has ended; some Pythons' own wait also waits for its pipes."""
    waiting = asyncio.create_task(process.wait())
    try:
        while process.returncode is None:
            await asyncio.wait({waiting}, timeout=_EXIT_LOOK_SECONDS)
    finally:
        waiting.cancel()


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


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        _signal_group(process, hard=False)
        with contextlib.suppress(TimeoutError):
            await within(_KILL_AFTER_SECONDS, _wait_for_exit(process))
    _signal_group(process, hard=True)
    await _wait_for_exit(process)


def _signal_group(process: asyncio.subprocess.Process, *, hard: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL if hard else signal.SIGTERM)
        elif process.returncode is None:
            process.kill() if hard else process.terminate()
