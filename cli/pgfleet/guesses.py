"""Words that nobody knows, and which were meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import typer

# What Typer raises for words that it cannot read; the classes are in no public module.
UsageError: Any = typer.BadParameter.__mro__[1]
ClickException: Any = UsageError.__mro__[1]


def close(word: str, known: Sequence[str]) -> list[str]:
    """Give the words that somebody may have meant, the likeliest first."""
    said = word.lower()
    exact = [name for name in known if name in (said, said.removesuffix("s"))]
    begun = [name for name in known if len(said) > 1 and name.startswith(said)]
    near = difflib.get_close_matches(said, known, n=3, cutoff=0.6)
    return list(dict.fromkeys([*exact, *begun, *near]))[:3]
