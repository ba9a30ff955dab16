"""What people hand over as JSON, as a file or on stdin."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pgfleet.errors import InvalidInput


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Read a JSON object from an option: the text itself, `@file`, or `-` for stdin."""
    value = json_text(text, option)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(
            f"{option}: must be a JSON object, not {type(value).__name__}",
            reason="json_invalid",
            hint=f'Example: {option} \'{{"key": "value"}}\'',
        )
    return value


def json_text(text: str | None, option: str) -> Any:
    """Read any JSON from an option: the text itself, `@file`, or `-` for stdin."""
    if text is None:
        return None
    source = read_source(text, option) if text == "-" or text.startswith("@") else text
    try:
        return json.loads(source)
    except ValueError as error:
        raise InvalidInput(
            f"{option}: is not JSON: {error}",
            reason="json_invalid",
            hint=f'Quote it for the shell: {option} \'{{"key": "value"}}\', or name a file: @FILE',
        ) from error


def read_source(name: str, option: str) -> str:
    """Read a file that was named `@file` or `file`, or all of stdin for `-`."""
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name.removeprefix("@")).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{option}: cannot read {name.removeprefix('@')}: {error}", reason="file_unreadable"
        ) from error
