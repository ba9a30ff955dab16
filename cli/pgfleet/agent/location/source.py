"""What tells a device where it is: a fixed place, or a program of its owner.

The program gets no arguments and nothing on stdin. It prints one JSON object and exits with 0:

    {"latitude": 52.52, "longitude": 13.405, "accuracy_m": 12, "located_at": "2026-01-31T12:00:00Z"}

`accuracy_m` and `located_at` may be left out; the fix is then of unknown accuracy, and of now.
Anything else means that there is no fix now.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pgfleet.agent.handlers.process import ProcessResult, run_process
from pgfleet.agent.handlers.programs import is_runnable, refuse_writable, words_to_run
from pgfleet.agent.location.fix import Fix, parse_fix
from pgfleet.errors import FleetError, InvalidInput, NotAllowed

_OUTPUT_LIMIT = 16 * 1024


class NoFix(FleetError):
    """Nobody can say now where the device is; later it may be known."""


class LocationSource(Protocol):
    """Something that can be asked where the device is."""

    async def look(self) -> Fix:
        """Give a fix of now; raises NoFix."""
        ...


class FixedPlace:
    """Be at one place for ever, as a kiosk is."""

    def __init__(self, latitude: float, longitude: float, accuracy_m: float | None) -> None:
        self._position = (latitude, longitude)
        self._accuracy_m = accuracy_m

    async def look(self) -> Fix:
        """Give the place, with the time of now."""
        return Fix(*self._position, datetime.now(UTC), self._accuracy_m)


class LocationProgram:
    """Ask a program, and end it with its children when it takes too long."""

    def __init__(self, path: Path, timeout: float) -> None:
        if not path.is_file() or not is_runnable(path):
            raise InvalidInput(
                f"location-program: {path} is not a program that can be run",
                reason="location_program_missing",
                hint="Pass --location-program with the path of an executable file.",
            )
        # A relative path means the folder in which the agent was started.
        self._path = path.resolve()
        self._timeout = timeout
        self._refuse_unsafe()

    async def look(self) -> Fix:
        """Run the program once."""
        name = self._path.name
        try:
            self._refuse_unsafe()
            async with asyncio.timeout(self._timeout):
                done = await run_process(words_to_run(self._path), limit=_OUTPUT_LIMIT)
        except TimeoutError as error:
            raise NoFix(f"{name} did not end within {self._timeout:g} s") from error
        except NotAllowed as error:
            raise NoFix(error.message) from error
        except OSError as error:
            raise NoFix(f"{name} cannot be run: {error.strerror or error}") from error
        return _parse(name, done)

    def _refuse_unsafe(self) -> None:
        for path in (self._path.parent, self._path):
            refuse_writable(path, "location-program", "location_program_unsafe")


def _parse(name: str, done: ProcessResult) -> Fix:
    if done.exit_code != 0:
        said = "".join(f": {line[:200]}" for line in done.stderr.strip().splitlines()[-1:])
        raise NoFix(f"{name} ended with exit code {done.exit_code}{said}")
    try:
        return parse_fix(json.loads(done.stdout.removeprefix("\ufeff")), datetime.now(UTC))
    except (ValueError, RecursionError) as error:
        # What it printed may be where somebody is, so the log does not repeat it.
        problem = "no JSON" if isinstance(error, json.JSONDecodeError) else error
        raise NoFix(f"{name} did not print a fix: {problem}") from error
