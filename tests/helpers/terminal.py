"""A real terminal in the test's own process: what a command prints there, as wide as it is."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import sys
import termios
import threading
import tty
from collections.abc import Callable

import pytest

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def without_styles(text: str) -> str:
    """Give the text alone."""
    return _STYLE.sub("", text)


class Terminal:
    """Runs something with stdin, stdout and stderr on a terminal of so many columns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int, lines: int = 50) -> None:
        self._patch = monkeypatch
        self._size = (lines, columns)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def run(self, action: Callable[[], object]) -> str:
        """Give what appeared, colours and all."""
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size, 0, 0))
        pieces: list[bytes] = []
        reader = threading.Thread(target=self._read, args=(ours, pieces))
        reader.start()
        before = sys.stdin, sys.stdout, sys.stderr
        streams = (
            open(os.dup(theirs), encoding="utf-8"),
            io.TextIOWrapper(open(os.dup(theirs), "wb"), encoding="utf-8", line_buffering=True),
            io.TextIOWrapper(open(os.dup(theirs), "wb"), encoding="utf-8", line_buffering=True),
        )
        sys.stdin, sys.stdout, sys.stderr = streams
        try:
            action()
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
            for stream in streams:
                stream.close()
            os.close(theirs)
            reader.join()
            os.close(ours)
        return b"".join(pieces).decode()

    @staticmethod
    def _read(fd: int, pieces: list[bytes]) -> None:
        # A terminal whose other side is closed gives an error, not an end.
        try:
            while piece := os.read(fd, 65536):
                pieces.append(piece)
        except OSError:
            return
