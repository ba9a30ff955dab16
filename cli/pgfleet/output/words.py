"""Lines that end between words."""

from __future__ import annotations

import re
from collections.abc import Iterator

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def wrapped(line: str, width: int) -> Iterator[str]:
    """Break between words; a word that is longer than the line stays whole, to be copied."""
    if _width(line) <= width:
        yield line
        return
    held, used = "", 0
    for word in line.split(" "):
        wide = _width(word)
        if held and used + 1 + wide > width:
            yield held
            held, used = word, wide
        else:
            held, used = (f"{held} {word}", used + 1 + wide) if held else (word, wide)
    if held:
        yield held


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(_STYLE.sub("", text))
