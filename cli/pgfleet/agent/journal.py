"""What this device began and finished, written down before anything depends on it.

One JSON object a line, appended to one file:

    {"journal": uuid, "version": 1}                                  first line
    {"at", "event": "started", "command_id", "attempt", "command_type", "rerun_safe", "made_at"}
    {"at", "event": "finished", "command_id", "attempt", "status", "result", "error", "reason"}
    {"at", "event": "settled", "command_id", "attempt", "final"}
    {"at", "event": "done", "command_id", "attempt", "made_at", "status", "error", "reason"}

`started` is on disk before a handler is entered and `finished` before its result is sent;
`settled` says that the server has answered for good. What has no `settled` line is open.
A new file gets a new uuid, by which the server knows that what it leased before is forgotten.

A server that was restored from a backup hands out again what it does not know to have ended, and
gives later commands numbers that others had before. So how the last commands ended is remembered,
without their results, and a command is known by its number and by when it was made.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from pgfleet.agent import state
from pgfleet.errors import InvalidInput

logger = logging.getLogger(__name__)

VERSION = 1
COMPACT_AFTER_LINES = 1000
REMEMBERED = 500

FinalStatus = Literal["completed", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what a handler's run came to."""

    status: FinalStatus
    result: Any = None
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Hold one command that was begun and perhaps finished; it is open until it is settled."""

    command_id: int
    attempt: int
    command_type: str
    rerun_safe: bool
    outcome: Outcome | None = None
    made_at: str = ""
    settled: bool = False

    @property
    def finished(self) -> bool:
        """Tell whether the handler came to an end."""
        return self.outcome is not None


class Journal:
    """Append to the journal of one state folder; its methods may be called from any thread.

    The caller holds the folder's lock: two writers would each lose what the other wrote.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._known = _Known()
        self._lines = 0
        self.id = ""
        existing = path.read_bytes() if path.exists() else b""
        if existing:
            state.refuse_shared(path)
        self._replay(existing)
        self._file = self._rewrite()

    def open_entries(self) -> list[Entry]:
        """Give every command that was begun here and is not settled."""
        with self._mutex:
            return list(self._known.open.values())

    def find(self, command_id: int, made_at: str = "") -> Entry | None:
        """Give the entry of a command that is open, or remembered, if there is one."""
        with self._mutex:
            entry = self._known.open.get(command_id)
            if entry is not None and (not made_at or entry.made_at in ("", made_at)):
                return entry
            done = self._known.done.get(command_id)
            return done if made_at and done is not None and done.made_at == made_at else None

    def started(
        self,
        command_id: int,
        attempt: int,
        command_type: str,
        *,
        rerun_safe: bool,
        made_at: str = "",
    ) -> None:
        """Record durably that a handler is about to be entered."""
        self._append(
            {
                "at": time.time(),
                "event": "started",
                "command_id": command_id,
                "attempt": attempt,
                "command_type": command_type,
                "rerun_safe": rerun_safe,
                "made_at": made_at,
            },
            durable=True,
        )

    def finished(self, command_id: int, attempt: int, outcome: Outcome) -> None:
        """Record durably how a handler ended."""
        self._append(
            {
                "at": time.time(),
                "event": "finished",
                "command_id": command_id,
                "attempt": attempt,
                "status": outcome.status,
                "result": outcome.result,
                "error": outcome.error,
                "reason": outcome.reason,
            },
            durable=True,
        )

    def settled(self, command_id: int, attempt: int, *, final: bool = False) -> None:
        """Record that nothing is left to do; losing this line only repeats a report.

        `final` says that no server hands it out again, unless it was restored from a backup.
        """
        self._append(
            {
                "at": time.time(),
                "event": "settled",
                "command_id": command_id,
                "attempt": attempt,
                "final": final,
            },
            durable=False,
        )
        if self._lines > COMPACT_AFTER_LINES + self._known.lines:
            self.compact()

    def compact(self) -> None:
        """Rewrite the file with what is open and what is remembered."""
        with self._mutex:
            self._file.close()
            self._file = self._rewrite()

    def close(self) -> None:
        """Close the file; the journal cannot be written afterwards."""
        with self._mutex:
            self._file.close()

    def _append(self, line: dict[str, Any], *, durable: bool) -> None:
        data = _encode(line)
        with self._mutex:
            self._file.write(data)
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
            self._known.apply(line)
            self._lines += 1

    def _replay(self, content: bytes) -> None:
        self.id, self._known = _read(content, self._path)
        if not self.id:
            self.id = str(uuid.uuid4())

    def _rewrite(self) -> IO[bytes]:
        lines: list[dict[str, Any]] = [{"journal": self.id, "version": VERSION}]
        for entry in self._known.done.values():
            lines.append(_done_line(entry))
        for entry in self._known.open.values():
            lines.extend(_lines_of(entry))
        state.write_private(self._path, b"".join(map(_encode, lines)).decode())
        self._lines = len(lines)
        return self._path.open("ab")


class _Known:
    """What the lines of a journal come to: what is open, and how the last commands ended."""

    def __init__(self) -> None:
        self.open: dict[int, Entry] = {}
        self.done: dict[int, Entry] = {}

    @property
    def lines(self) -> int:
        """Give how many lines it takes to write this down again, at most."""
        return 2 * len(self.open) + len(self.done)

    def apply(self, line: dict[str, Any]) -> None:
        """Go on by one line."""
        command_id, attempt = int(line["command_id"]), int(line["attempt"])
        before = self.open.get(command_id)
        match line["event"]:
            case "started":
                self.open[command_id] = Entry(
                    command_id,
                    attempt,
                    str(line["command_type"]),
                    bool(line["rerun_safe"]),
                    made_at=str(line.get("made_at", "")),
                )
            case "finished":
                outcome = Outcome(line["status"], line["result"], line["error"], line["reason"])
                begun = before or Entry(command_id, attempt, "", False)
                self.open[command_id] = replace(begun, attempt=attempt, outcome=outcome)
            case "settled":
                self.open.pop(command_id, None)
                if line.get("final") and before is not None:
                    self._remember(before)
            case "done":
                outcome = Outcome(line["status"], None, line["error"], line["reason"])
                self._remember(Entry(command_id, attempt, "", False, outcome, str(line["made_at"])))
            case unknown:
                raise ValueError(f"unknown event {unknown!r}")

    def _remember(self, entry: Entry) -> None:
        if entry.outcome is None or not entry.made_at:
            return
        self.done.pop(entry.command_id, None)
        outcome = replace(entry.outcome, result=None)
        self.done[entry.command_id] = replace(entry, outcome=outcome, settled=True)
        while len(self.done) > REMEMBERED:
            del self.done[next(iter(self.done))]


def read(content: bytes, path: Path) -> tuple[str, dict[int, Entry]]:
    """Replay the lines of a journal: its uuid (empty in a new one) and what is open."""
    journal_id, known = _read(content, path)
    return journal_id, known.open


def _read(content: bytes, path: Path) -> tuple[str, _Known]:
    """Replay the lines of a journal.

    A last line without its line end was torn by a crash before anything depended on it, and
    is left out. Damage anywhere else is refused: what a lost line allowed to run twice or
    made to be forgotten cannot be known.
    """
    journal_id, found = "", _Known()
    lines = content.split(b"\n")
    if lines[-1]:
        logger.warning("the last line of %s is torn and was left out", path)
    for number, raw in enumerate(lines[:-1], start=1):
        try:
            line = json.loads(raw)
            if number == 1:
                journal_id = str(uuid.UUID(line["journal"]))
            else:
                found.apply(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"line {number} of {path} is damaged",
                reason="journal_damaged",
                hint="Move the file away: the server then ends as interrupted "
                "what may have run already.",
            ) from error
    return journal_id, found


def _lines_of(entry: Entry) -> list[dict[str, Any]]:
    common = {"at": time.time(), "command_id": entry.command_id, "attempt": entry.attempt}
    lines: list[dict[str, Any]] = [
        {
            **common,
            "event": "started",
            "command_type": entry.command_type,
            "rerun_safe": entry.rerun_safe,
            "made_at": entry.made_at,
        }
    ]
    if (outcome := entry.outcome) is not None:
        lines.append(
            {
                **common,
                "event": "finished",
                "status": outcome.status,
                "result": outcome.result,
                "error": outcome.error,
                "reason": outcome.reason,
            }
        )
    return lines


def _done_line(entry: Entry) -> dict[str, Any]:
    assert entry.outcome is not None
    return {
        "at": time.time(),
        "event": "done",
        "command_id": entry.command_id,
        "attempt": entry.attempt,
        "made_at": entry.made_at,
        "status": entry.outcome.status,
        "error": entry.outcome.error,
        "reason": entry.outcome.reason,
    }


def _encode(line: dict[str, Any]) -> bytes:
    # ensure_ascii keeps every byte below 0x80, so a torn line can never merge with the next
    # one into something that decodes.
    return json.dumps(line, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
