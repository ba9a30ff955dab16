"""What people type into a search: words, ids, and `field:value`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pgfleet.errors import InvalidInput

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(\d{1,6})([smhdw])")
_WORD = re.compile(r'(?:(\w+):)?(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True, slots=True)
class Words:
    """A search, taken apart."""

    text: str = ""
    words: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> int | None:
        """The id that was typed, where nothing else was."""
        digits = self.words[0].removeprefix("#") if len(self.words) == 1 else ""
        return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 19 else None

    @property
    def name(self) -> str | None:
        """The words that belong to no field, as one text."""
        return " ".join(self.words) or None


def read_words(text: str, known: Sequence[str]) -> Words:
    """Take a search apart; a field that the page does not have is refused with those that it has.

    A colon inside of a word, as in a time, makes no field where nothing is known by that name and
    the word could be one of a name.
    """
    words, fields = [], {}
    for match in _WORD.finditer(text[:500]):
        name, quoted, bare = match[1], match[2], match[3]
        value = bare if quoted is None else quoted
        if name is None:
            words.append(value)
        elif name.lower() in known:
            fields[name.lower()] = value
        elif name.isdigit():
            words.append(f"{name}:{value}")
        else:
            raise InvalidInput(
                f'this page cannot be searched for "{name}:"',
                reason="search_invalid",
                hint=f"It knows {', '.join(f'{one}:' for one in known)} and plain words."
                if known
                else "It knows plain words only.",
            )
    return Words(text, tuple(words), fields)


def age(text: str | None, now: datetime, name: str = "since") -> str | None:
    """Give the instant that lies so far back as `1h`, `30m`, `7d`; a date or a time is itself."""
    if text is None:
        return None
    found = _AGE.fullmatch(text.lower())
    if found is not None:
        return (now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])).isoformat()
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError as error:
        raise InvalidInput(
            f'{name}: "{text[:60]}" is no age and no time',
            reason="search_invalid",
            hint=f"Write {name}:30m, {name}:1h, {name}:7d or {name}:2027-01-04.",
        ) from error
