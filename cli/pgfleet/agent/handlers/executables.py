"""Programs in a folder: one file for each command type.

The payload comes as JSON on stdin, the result goes as JSON to stdout. Exit code 0 is done;
65 means that the payload is wrong, 69 that this device cannot do it, 77 that it may not
(the codes of sysexits.h); anything else is an error whose message is the last line printed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pgfleet.agent.handlers.interface import HandlerContext, HandlerFailed, Reason
from pgfleet.agent.handlers.process import ProcessResult, run_process
from pgfleet.agent.handlers.programs import is_runnable, refuse_writable, words_to_run
from pgfleet.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_REASONS = {65: Reason.INVALID_PAYLOAD, 69: Reason.UNSUPPORTED, 77: Reason.FORBIDDEN}


class ExecutableFolder:
    """Find the program for a command type; a new file is used without a restart."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InvalidInput(
                f"handlers: {folder} is not a folder",
                reason="handlers_dir_missing",
                hint="Make the folder, or leave --handlers out.",
            )
        _refuse_writable(folder)
        self._folder = folder

    def find(self, command_type: str) -> ExecutableHandler | None:
        """Give the handler for a type, or None when the folder has no program for it."""
        if not _NAME.fullmatch(command_type):
            return None
        for path in sorted(self._folder.iterdir()):
            if path.name == command_type or path.stem == command_type:
                if path.is_file() and is_runnable(path):
                    _refuse_writable(path)
                    return ExecutableHandler(path)
        return None

    def names(self) -> list[str]:
        """List the command types that the folder has a program for."""
        return sorted({p.stem for p in self._folder.iterdir() if p.is_file() and is_runnable(p)})


class ExecutableHandler:
    """Carry out commands with one program."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self, context: HandlerContext, payload: dict[str, Any]) -> Any:
        """Run the program once."""
        try:
            done = await run_process(
                words_to_run(self._path),
                limit=context.output_limit,
                stdin=json.dumps(payload).encode(),
                environment=_environment(context),
            )
        except OSError as error:
            raise HandlerFailed(f"{self._path.name} cannot be run: {error}") from error
        if done.exit_code != 0:
            raise _failure(self._path.name, done)
        return _result(done)


def _environment(context: HandlerContext) -> dict[str, str]:
    found = {
        "PGFLEET_COMMAND_ID": str(context.command_id),
        "PGFLEET_COMMAND_TYPE": context.command_type,
        "PGFLEET_ATTEMPT": str(context.attempt),
        "PGFLEET_DEVICE_ID": str(context.device_id),
        "PGFLEET_HOSTNAME": context.hostname,
        "PGFLEET_STATE_DIR": str(context.state_dir),
    }
    if context.timeout_seconds is not None:
        found["PGFLEET_TIMEOUT_SECONDS"] = f"{context.timeout_seconds:g}"
    return found


def _result(done: ProcessResult) -> Any:
    if not done.stdout.strip():
        return None
    if not done.truncated:
        try:
            return json.loads(done.stdout.removeprefix("\ufeff"))
        except ValueError:
            pass
    return {"output": done.stdout, "truncated": done.truncated}


def _failure(name: str, done: ProcessResult) -> HandlerFailed:
    message = f"{name} ended with exit code {done.exit_code}"
    if done.last_words:
        message += f": {done.last_words[:500]}"
    result = {
        "exit_code": done.exit_code,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "truncated": done.truncated,
    }
    return HandlerFailed(message, _REASONS.get(done.exit_code, Reason.ERROR), result=result)


def _refuse_writable(path: Path) -> None:
    refuse_writable(path, "handlers", "handlers_dir_unsafe")
