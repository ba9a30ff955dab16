"""How the program ends: one message, one hint and a status, whatever went wrong.

0 is done, 1 refused or failed, 2 used wrongly, 130 interrupted, 141 nobody reads any more.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import typer

from pgfleet import output
from pgfleet.errors import FleetError
from pgfleet.guesses import ClickException

_FAILED, _USAGE = 1, 2
NOT_READ = 141
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def run(program: Callable[[], Any]) -> int:
    """Run the program, tell how it failed, and give the status with which to end."""
    try:
        status = _told(program)
        sys.stdout.flush()
        sys.stderr.flush()
        return status
    except BrokenPipeError:
        return _quiet(NOT_READ)
    except OSError as error:
        if error.filename is not None:
            return _complain(_unusable(error))
        if error.errno not in _NO_ROOM:
            raise
        return _quiet(_complain(_unwritten(error)))


def _told(program: Callable[[], Any]) -> int:
    try:
        answer = program()
        return answer if isinstance(answer, int) else 0
    except FleetError as error:
        return _complain(error)
    except ClickException as error:
        return _used_wrongly(error)
    except typer.Abort:
        output.say("Nothing was done.")
        return _FAILED


def _complain(error: FleetError) -> int:
    output.show_error(error)
    return _FAILED


def _quiet(status: int) -> int:
    """Let what is still to be written go nowhere, so that nothing complains of it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    return status


def _unwritten(error: OSError) -> FleetError:
    return FleetError(
        f"what was found cannot be written: {(error.strerror or 'unknown reason').lower()}",
        reason="output_unwritable",
        hint="Make room, or write to another place",
    )


def _unusable(error: OSError) -> FleetError:
    return FleetError(
        f"{error.filename}: {(error.strerror or 'cannot be used').lower()}",
        reason="file_unusable",
        hint="Look at that path, and at who may read and write there",
    )


def _used_wrongly(error: Any) -> int:
    """Say what was wrong with the words, and which were meant."""
    ctx: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        # To make this error was to print the help.
        return _USAGE
    path = ctx.command_path if ctx is not None else "pgfleet"
    message, hint = _message_and_hint(error, path)
    if ctx is not None:
        output.say(" ".join(ctx.get_usage().split()))
    output.show_error(FleetError(message, hint=hint))
    return int(error.exit_code)


def _message_and_hint(error: Any, path: str) -> tuple[str, str]:
    text = " ".join(error.format_message().split())
    for also_said in (" Did you mean", " (Possible options"):
        text, _, _ = text.partition(also_said)
    text = _plain(text.rstrip("."))
    meant = getattr(error, "possibilities", None) or getattr(error, "meant", None)
    if meant:
        return text, f"Did you mean {' or '.join(f'{path} {word}' for word in meant)}?"
    return text, f"See {path} --help"


# What Typer and click say, in their several versions, as the rest of the program says it.
_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^Invalid value for ([^:]*): ", r"\1: "),
        (r"^Invalid value: ", ""),
        (r"Value error, ", ""),
        (r"^'(-[^']*)'( / '[^']*')*: ", r"\1: "),
        (r"^'([^']*)': ", r"\1: "),
        (
            r"Input should be a valid integer.*|'[^']*' is not a valid int.*",
            "must be a whole number",
        ),
        (r"Input should be a valid number.*|'[^']*' is not a valid float.*", "must be a number"),
        (r"Input should be greater than or equal to (\S+)", r"must be at least \1"),
        (r"Input should be less than or equal to (\S+)", r"must be at most \1"),
        (r"\S+ is not in the range x>=(\S+?)\.?$", r"must be at least \1"),
        (r"\S+ is not in the range (\S+?)<=x<=(\S+?)\.?$", r"must be from \1 to \2"),
        (r"Input should be (?=')|'[^']*' is not one of ", "must be one of "),
        (r"^Missing argument '?([^']*)'?", r"missing argument \1"),
        (r"^Missing option '?([^']*)'?", r"missing option \1"),
        (r"^No such option:? '?([^' ]+)'?", r"there is no option \1"),
        (r"^No such command '([^']*)'", r'there is no command "\1"'),
        (r"^Got unexpected extra arguments?(\(s\))? \((.*)\)", r"too many words: \2"),
        (r"^Option '([^']*)' requires an argument", r"\1: needs a value"),
    )
)


def _plain(text: str) -> str:
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text[:1].lower() + text[1:]
