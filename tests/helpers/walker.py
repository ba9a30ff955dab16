"""Somebody at a real terminal of 80 columns, who types what a page says, line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pexpect
from rich.cells import cell_len
from tests.helpers.pages import ROOT, Block

_COLUMNS, _LINES = 80, 50
_PROMPT = re.compile(r"walk-(\d+)> $")
_CONTINUED = re.compile(r"more> $")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\x07]*\x07")


class StepFailed(AssertionError):
    """A step of a walk does not work, or cannot be read."""


class Walker:
    """One terminal; `type` gives what it answered to a line."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        settings = folder / "inputrc"
        settings.write_text("set enable-bracketed-paste off\n")
        self._shell = pexpect.spawn(
            "bash",
            ["--noprofile", "--norc"],
            env=environment
            | {"TERM": "xterm-256color", "INPUTRC": str(settings), "PS1": "walk-$?> "}
            | {"PS2": "more> ", "HISTFILE": "", "VIRTUAL_ENV_DISABLE_PROMPT": "1"},
            cwd=ROOT,
            dimensions=(_LINES, _COLUMNS),
            encoding="utf-8",
            timeout=150,
        )
        self._shell.expect(_PROMPT)

    def __enter__(self) -> Walker:
        """Sit down."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the terminal and what runs in it; a shell that is killed tells its jobs nothing."""
        if self._shell.isalive():
            self._shell.sendintr()
            self._shell.sendline("kill $(jobs -p) 2> /dev/null; wait; exit")
            with suppress(pexpect.TIMEOUT, pexpect.EOF):
                self._shell.expect(pexpect.EOF, timeout=20)
        self._shell.close(force=True)

    def type(self, line: str) -> str:
        """Type a line and give what was answered; a status that is not 0 is a failure."""
        self._shell.sendline(line)
        if self._shell.expect([_PROMPT, _CONTINUED]) == 1:
            return ""
        said = _ESCAPES.sub("", self._shell.before).replace("\r\n", "\n").replace("\r", "")
        if self._shell.match[1] != "0":
            raise StepFailed(f"$ {line}\n{said}\nended with {self._shell.match[1]}")
        if line.startswith("pgfleet "):
            self._read(line, said)
        return said

    def stay(self, line: str, until: str) -> None:
        """Type a line that runs on, and wait for what it says."""
        self._shell.sendline(line)
        self._shell.expect_exact(until)

    def follow(self, blocks: Sequence[Block]) -> str:
        """Type all lines of some blocks; saves what the page says to save."""
        said = ""
        for block in blocks:
            if block.saved_as is not None:
                # An editor does that; a terminal would show every line.
                here = self.type("pwd").strip().splitlines()[-1]
                (Path(here) / block.saved_as).write_text(block.text)
                continue
            for line in block.text.splitlines():
                said += self.type(line)
        return said

    @staticmethod
    def _read(line: str, said: str) -> None:
        """See that no line is longer than the window, but for keys that are to be copied."""
        shown = said.split("\n", 1)[-1].splitlines()
        long = [one for one in shown if cell_len(one) > _COLUMNS and "=" not in one]
        # What was typed is shown, too, and broken by the shell.
        if [one for one in long if one not in line]:
            raise StepFailed(f"$ {line}\nwider than {_COLUMNS} columns: {long}")
        if "Traceback" in said:
            raise StepFailed(f"$ {line}\n{said}")
