"""Keeping the logs of the servers from filling the disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

LARGEST_BYTES = 32_000_000
KEPT_BYTES = 1_000_000


def shorten(log: Path) -> None:
    """Keep the end of a log that has grown too large.

    It is shortened in place, because the server that writes it has it open; servers append.
    """
    with contextlib.suppress(FileNotFoundError), log.open("r+b") as file:
        if file.seek(0, 2) <= LARGEST_BYTES:
            return
        file.seek(-KEPT_BYTES, 2)
        kept = file.read().partition(b"\n")[2]
        file.seek(0)
        file.truncate()
        file.write(b"(older lines were dropped)\n" + kept)


def tail(log: Path, lines: int = 15, start: int = 0) -> str:
    """Give the last lines of a log, of what was written from `start` on."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 20_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
