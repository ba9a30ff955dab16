"""The lines of an iCalendar file, cut into its calendars and their events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_LINE = re.compile(r"\r\n|\r|\n")
# A property with a zone that has a colon in its name and no quotes; one with a zone beside a Z.
_BARE_ZONE = re.compile(
    r'^([A-Z-]+(?:;[^:";]*)*?;TZID=)([^";:]*:[^";]*?)((?:;[^:"]*)?:\d{8}\S*)$', re.I
)
_ZONE_BESIDE_Z = re.compile(r'^([A-Z-]+);TZID=(?:"[^"]*"|[^";:]*)(:\d{8}T\d{6}Z)$', re.I)


@dataclass(slots=True)
class Block:
    """One VCALENDAR of a file, by its lines."""

    events: list[list[str]] = field(default_factory=list)
    zones: list[list[str]] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


def read_lines(data: bytes) -> list[str]:
    """Read bytes of any of the usual codes, with any ends of lines; folded lines made whole."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        data = data.removeprefix(b"\xef\xbb\xbf")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
    whole: list[str] = []
    for line in _LINE.split(text.replace("\0", "")):
        if whole and line[:1] in (" ", "\t"):
            whole[-1] += line[1:]
        elif line.strip():
            whole.append(line.strip("\ufeff"))
    return whole


def calendars_of(lines: list[str]) -> Iterator[Block]:
    """Cut a file into calendars, and each of them into events and zones."""
    block: Block | None = None
    part: list[str] | None = None
    kind = ""
    for line in lines:
        word = line.strip().upper()
        if word == "BEGIN:VCALENDAR":
            if block is not None:
                yield block
            block, part = Block(), None
        elif block is None:
            continue
        elif part is None and word.startswith("BEGIN:"):
            kind, part = word.removeprefix("BEGIN:"), [line.strip()]
        elif part is None:
            block.own.append(line)
        else:
            if word == f"BEGIN:{kind}" and kind == "VEVENT":
                # The one before was never ended: it is read as far as it goes.
                block.events.append([*part, f"END:{kind}"])
                part = []
            part.append(line)
            if word == f"END:{kind}" or word == "END:VCALENDAR":
                part[-1] = f"END:{kind}"
                if kind in ("VEVENT", "VTIMEZONE"):
                    (block.events if kind == "VEVENT" else block.zones).append(part)
                part = None
    if block is not None:
        if part and kind == "VEVENT":
            block.events.append([*part, "END:VEVENT"])
        yield block


def made_plain(line: str) -> str:
    """Put a zone with a colon in its name (UTC+05:30) in quotes; drop one beside a Z."""
    return _BARE_ZONE.sub(r'\1"\2"\3', _ZONE_BESIDE_Z.sub(r"\1\2", line))


def name_of(lines: list[str], first: str = "SUMMARY") -> str:
    for name in (first, "UID"):
        for line in lines:
            if line.upper().startswith((f"{name}:", f"{name};")):
                return line.partition(":")[2].strip()[:100]
    return "without a name"
