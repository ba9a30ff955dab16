"""Long lists in the pager that the person has, as git shows them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys

from pgfleet.output.streams import is_terminal, write

_DEFAULT = "less"


def show(text: str) -> None:
    """Write text, page by page where it is longer than the window."""
    height = shutil.get_terminal_size().lines
    command = _command()
    if not command or text.count("\n") + 1 < height or not is_terminal(sys.stdin):
        write(text)
        return
    # F: one screen needs no pager; R: colours; X: what was read stays in the window.
    environment = {"LESS": "FRX", "LV": "-c", **os.environ}
    try:
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    except OSError:
        write(text)
        return
    assert pager.stdin is not None
    # Who has seen enough closes the pager before the end.
    with contextlib.suppress(BrokenPipeError), pager.stdin as stream:
        stream.write(text.encode() + b"\n")
    while True:
        try:
            pager.wait()
            return
        except KeyboardInterrupt:
            # It is the pager that answers to Ctrl-C.
            continue


def _command() -> list[str]:
    named = os.environ.get("PGFLEET_PAGER", os.environ.get("PAGER"))
    if named is not None:
        words = shlex.split(named)
        return [] if words == ["cat"] else words
    return [_DEFAULT] if shutil.which(_DEFAULT) else []
