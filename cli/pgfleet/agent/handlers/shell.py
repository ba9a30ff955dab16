"""`run_command`: what an operator types, run on the device, when its owner allowed it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import Any

from pgfleet.agent.handlers.interface import (
    HandlerContext,
    HandlerFailed,
    Reason,
    invalid_payload,
    seconds_of,
    text_of,
    unsupported,
)
from pgfleet.agent.handlers.process import run_process

_SHELLS: dict[str, tuple[str, ...]] = {
    "sh": ("sh", "-c"),
    "bash": ("bash", "-c"),
    "zsh": ("zsh", "-c"),
    "cmd": ("cmd", "/d", "/s", "/c"),
    "powershell": ("powershell", "-NoProfile", "-NonInteractive", "-Command"),
    "pwsh": ("pwsh", "-NoProfile", "-NonInteractive", "-Command"),
}

_POSIX_SHELLS = frozenset({"sh", "bash", "zsh"})

_LONGEST_SECONDS = 24 * 3600.0


async def run_command(context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
    """Run a command line in a shell.

    Payload: {"command": text, "shell"?: name, "timeout"?: seconds, "output_limit"?: bytes,
    "environment"?: {name: text}}.
    """
    argv = _words(payload)
    environment = _environment(payload, context.environment_allowed)
    most = float(context.output_limit)
    limit = int(seconds_of(payload, "output_limit", default=most, limit=2.0**40))
    timeout = seconds_of(payload, "timeout", default=_LONGEST_SECONDS, limit=_LONGEST_SECONDS)
    try:
        async with asyncio.timeout(timeout):
            done = await run_process(
                argv, limit=min(limit, context.output_limit), environment=environment
            )
    except TimeoutError as error:
        raise HandlerFailed(
            f"the command did not end within {timeout:g} s", Reason.TIMEOUT
        ) from error
    except OSError as error:
        raise HandlerFailed(f"{argv[0]} cannot be run: {error.strerror or error}") from error
    result = {
        "exit_code": done.exit_code,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "truncated": done.truncated,
    }
    if done.exit_code != 0:
        message = f"exit code {done.exit_code}"
        if done.last_words:
            message += f": {done.last_words[:500]}"
        raise HandlerFailed(message, result=result)
    return result


async def refuse_command(context: HandlerContext, payload: dict[str, Any]) -> None:
    """Say that this device does not run commands from outside."""
    raise HandlerFailed(
        "this device does not allow run_command; "
        "its agent must be started with --allow-run-command",
        Reason.FORBIDDEN,
    )


def _environment(payload: dict[str, Any], allowed: frozenset[str]) -> dict[str, str]:
    """Give the variables of a payload, all of which this device must allow by name."""
    found = payload.get("environment") or {}
    if not isinstance(found, dict):
        raise invalid_payload("environment must be an object of texts")
    for name, value in found.items():
        if name not in allowed:
            raise HandlerFailed(
                f"this device does not let commands set {str(name)[:100]!r}; its agent must be "
                "started with --allow-environment",
                Reason.FORBIDDEN,
            )
        if not isinstance(value, str) or "\0" in value:
            raise invalid_payload(f"environment: {name} must be a text")
    return found


def _words(payload: dict[str, Any]) -> list[str]:
    line = text_of(payload, "command")
    name = text_of(payload, "shell", default="powershell" if sys.platform == "win32" else "sh")
    if name not in _SHELLS:
        raise invalid_payload(f"shell must be one of {', '.join(sorted(_SHELLS))}")
    # As written in an editor of Windows, or copied from there.
    line = line.removeprefix("\ufeff")
    if name in _POSIX_SHELLS:
        line = line.replace("\r\n", "\n")
    program, *options = _SHELLS[name]
    found = shutil.which(program)
    if found is None:
        raise unsupported(f"this device has no {program}")
    return [found, *options, line]
