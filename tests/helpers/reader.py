"""A reader at a shell: pastes blocks into terminals, and looks at what they answer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from tests.helpers.pages import ROOT, Block

# Told on a file of its own: what a block prints stays as it is.
_PRELUDE = """
trap 'echo "line $LINENO: $BASH_COMMAND (exit status $?)" >>"$READER_TROUBLE"' ERR
"""


class PasteFailed(AssertionError):
    """What a page tells the reader to paste does not work."""


class Reader:
    """Somebody who pastes, in one terminal, and in further ones for what runs on."""

    def __init__(self, environment: dict[str, str], folder: Path, database_url: str) -> None:
        self._environment = {**environment, "READER_TROUBLE": str(folder / "trouble")}
        self._folder = folder
        self._database_url = database_url
        self._count = 0
        self._others: list[subprocess.Popen[bytes]] = []
        self._shell = self._open(subprocess.PIPE)

    def __enter__(self) -> Reader:
        """Sit down."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close all terminals, with what runs in them."""
        for process in (self._shell, *self._others):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in (self._shell, *self._others):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def paste(self, block: Block) -> str:
        """Paste one block, wait for its end, and give what it answered; or raise PasteFailed."""
        if block.stays:
            return self._leave_running(block)
        if block.saved_as is not None:
            return self._run_shell(replace(block, text=_saving(block)))
        said = self._run_sql(block) if block.language == "sql" else self._run_shell(block)
        if block.answer is not None:
            _compare(block, said)
        return said

    def _open(self, stdin: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,
        )

    def _file(self, block: Block, before: str = "") -> Path:
        self._count += 1
        file = self._folder / f"block-{self._count}.sh"
        file.write_text(before + block.text)
        return file

    def _run_shell(self, block: Block, seconds: float = 120) -> str:
        """Read the block into the open shell, so that variables and jobs stay."""
        assert self._shell.stdin is not None
        trouble = Path(self._environment["READER_TROUBLE"])
        trouble.unlink(missing_ok=True)
        mark = f"--- block {self._count} ends ---"
        # Whoever pastes types nothing in between: commands that read find nothing.
        line = f"{_PRELUDE.strip()}\n. {self._file(block)} </dev/null\ntrap - ERR\necho '{mark}'\n"
        self._shell.stdin.write(line.encode())
        self._shell.stdin.flush()
        said = self._read_until(self._shell, mark, seconds, block)
        if trouble.exists():
            raise PasteFailed(f"{block.where}\n{block.text}\n{trouble.read_text()}\n{said}")
        return said

    def _run_sql(self, block: Block) -> str:
        """Run the block as an SQL editor does: all of it at once, and show the last rows."""
        with psycopg.connect(self._database_url, autocommit=True) as conn:
            try:
                cursor = conn.execute(block.text.encode())
            except psycopg.Error as error:
                raise PasteFailed(f"{block.where}\n{block.text}\n{error}") from error
            while cursor.nextset():
                pass
            rows = cursor.fetchall() if cursor.description else []
        return "\n".join("\t".join(_shown(value) for value in row) for row in rows)

    def _leave_running(self, block: Block) -> str:
        """Run the block in a terminal of its own, and go on when it says that it is ready."""
        process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", str(self._file(block))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,
        )
        self._others.append(process)
        return self._read_until(process, "In another terminal", 180, block)

    def _read_until(
        self, process: subprocess.Popen[bytes], mark: str, seconds: float, block: Block
    ) -> str:
        assert process.stdout is not None
        said = b""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while mark.encode() not in said:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise PasteFailed(f"{block.where}: no end after {seconds:g} s\n{said.decode()}")
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    raise PasteFailed(f"{block.where}: the terminal closed\n{said.decode()}")
                said += chunk
        return said.decode(errors="replace").split(mark)[0]


def _saving(block: Block) -> str:
    """Write the line that saves a block in the folder that the shell is in."""
    return f"printf '%s' {shlex.quote(block.text)} >{block.saved_as}\n"


def _shown(value: Any) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)


def _compare(block: Block, said: str) -> None:
    """Compare what was answered with what the page shows, where … stands for anything."""
    assert block.answer is not None
    check: Callable[[str, str], str | None] = (
        _json_differs if block.answer.language == "json" else _text_differs
    )
    problem = check(block.answer.text, said)
    if problem is not None:
        raise PasteFailed(
            f"{block.answer.where}: {problem}\nshown:\n{block.answer.text}\nanswered:\n{said}"
        )


def _text_differs(shown: str, said: str) -> str | None:
    """Look for each line that is shown, in its order; there may be others between them."""
    rest = iter(line.strip() for line in said.splitlines())
    for line in filter(None, (line.strip() for line in shown.splitlines())):
        parts = [re.escape(" ".join(part.split())) for part in line.split("…")]
        pattern = re.compile(".*".join(parts).replace("\\ ", r"\s+"))
        if not any(pattern.fullmatch(" ".join(candidate.split())) for candidate in rest):
            return f"no line like {line!r}"
    return None


def _json_differs(shown: str, said: str) -> str | None:
    """Look for each key that is shown; the answer may have others."""
    start = min((said.find(sign) for sign in "{[" if sign in said), default=0)
    try:
        found = json.loads(said[start:])
    except ValueError:
        return "the answer is not JSON"
    return _part_differs("", json.loads(shown), found)


def _part_differs(path: str, shown: Any, found: Any) -> str | None:
    if isinstance(shown, str) and "…" in shown:
        pattern = ".*".join(re.escape(part) for part in shown.split("…"))
        # Alone it stands for anything, also for what is no text.
        is_like = shown == "…" or re.fullmatch(pattern, str(found), re.DOTALL)
        return None if is_like else f"{path} is {found!r}"
    if isinstance(shown, dict) and isinstance(found, dict):
        missing = [key for key in shown if key not in found]
        if missing:
            return f"{path}.{missing[0]} is not there"
        return next(
            filter(None, (_part_differs(f"{path}.{key}", shown[key], found[key]) for key in shown)),
            None,
        )
    if isinstance(shown, list) and isinstance(found, list):
        if len(shown) > len(found):
            return f"{path} has {len(found)} elements"
        pairs = zip(shown, found, strict=False)
        return next(
            filter(None, (_part_differs(f"{path}[{n}]", *pair) for n, pair in enumerate(pairs))),
            None,
        )
    return None if shown == found else f"{path} is {found!r}"
