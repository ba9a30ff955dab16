"""Read what the rooms of db/sources hold: which function is where, and whom it calls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What a room holds, in the order in which it is read; see docs/explanation/the-house.md.
_FURNITURE = re.compile(r"\d\d_[a-z0-9_]+/(?:\d\d_[a-z0-9_]+|views|triggers|access)\.sql")
_FUNCTION = re.compile(r"create or replace (?:function|procedure) ((?:fleet|public)\.\w+)\s*\(")
# A statement about a function is no call of it.
_ABOUT = re.compile(r"(?:comment on|revoke|grant)\s")
_CALL = re.compile(r"(?<![\w.])((?:fleet|public)\.\w+)\s*\(")
_NAMED = re.compile(r"(?:(?<![\w.])(?=[\w.]+\s*\()|^(?=[\w.]+$))((?:fleet|public)\.\w+)")
_PIECES = re.compile(
    r"(?P<comment>--[^\n]*)"
    # A plain string that is executed is code, as is all that stands between dollars.
    r"|(?P<run>\bexecute\s+(?:format\s*\(\s*)?)?(?P<string>'(?:[^']|'')*'(?:\s*\n\s*'(?:[^']|'')*')*)"
    r"|(?P<dollars>\$\w*\$)"
    r"|(?P<end>;)",
    re.IGNORECASE,
)


@dataclass
class Statement:
    """One statement of a source: its code without comments and strings, and those strings."""

    room: str
    code: str = ""
    strings: list[str] = field(default_factory=list)

    @property
    def function(self) -> str | None:
        """Name the function that it defines."""
        found = _FUNCTION.match(self.code)
        return found and found.group(1)

    @property
    def calls(self) -> set[str]:
        """Name what stands before a bracket: functions, and tables that are inserted into."""
        if _ABOUT.match(self.code):
            return set()
        return set(_CALL.findall(self.code)) - {self.function}

    @property
    def named(self) -> set[str]:
        """Name the functions that strings name in full, alone or as a call."""
        if _ABOUT.match(self.code):
            return set()
        return {match[1] for text in self.strings for match in _NAMED.finditer(text)}


def statements(room: str, sql: str) -> Iterator[Statement]:
    """Take a source apart."""
    made = Statement(room)
    quote: str | None = None
    at = 0
    for piece in _PIECES.finditer(sql):
        made.code += sql[at : piece.start()]
        at = piece.end()
        if piece["string"] is not None:
            text = re.sub(r"'\s*\n\s*'", "", piece["string"])[1:-1]
            made.strings.append(text)
            made.code += f" {text} " if piece["run"] else "''"
        elif piece["dollars"] is not None:
            if quote is None:
                quote = piece["dollars"]
            elif quote == piece["dollars"]:
                quote = None
        elif piece["end"] is not None and quote is not None:
            made.code += ";"
        elif piece["end"] is not None:
            made.code = made.code.strip()
            yield made
            made = Statement(room)
    assert not (made.code + sql[at:]).strip(), (room, made.code)


def code_of(body: str) -> str:
    """Give the body of a function without comments and strings."""
    return " ".join(statement.code for statement in statements("", f"{body}\n;"))


def read_sources(folder: Path) -> list[Statement]:
    """Take every source of every room apart."""
    return [
        statement
        for path in sorted(folder.glob("*/*.sql"))
        for statement in statements(path.parent.name, path.read_text())
    ]


def upward_calls(sources: Iterable[Statement]) -> list[tuple[str, str]]:
    """List who calls a function of a room with a higher number: (room or function, function)."""
    sources = list(sources)
    rooms = {s.function: s.room for s in sources if s.function}
    return sorted(
        {
            (s.function or s.room, called)
            for s in sources
            for called in s.calls
            if rooms.get(called, s.room).partition("_")[0] > s.room.partition("_")[0]
        }
    )


def unreachable(
    sources: Iterable[Statement], roots: Iterable[str], tables_of_calls: Iterable[str] = ()
) -> list[str]:
    """List the functions that no root leads to, and no trigger, view or policy.

    A string that names a function in full is a call, and in a table of calls the bare name.
    """
    sources = list(sources)
    named = {s.function for s in sources if s.function}
    leads: dict[str, set[str]] = {name: set() for name in named}
    waiting = set(roots)
    for s in sources:
        if s.function is None:
            waiting |= s.calls | s.named
        else:
            leads[s.function] |= s.calls | s.named
        if s.function in tables_of_calls:
            leads[s.function] |= {f"fleet.{text}" for text in s.strings}
    reached: set[str] = set()
    while waiting := (waiting & named) - reached:
        reached |= waiting
        waiting = set().union(*(leads[name] for name in waiting))
    return sorted(named - reached)


def unused_parameters(
    parameters: Mapping[str, Iterable[str]], bodies: Mapping[str, str]
) -> list[str]:
    """List the parameters, as function.parameter, that the body never names."""
    return sorted(
        f"{function}.{name}"
        for function, names in parameters.items()
        for n, name in enumerate(names, 1)
        if not re.search(rf"(?<![\w])(?:{re.escape(name)}|\${n})(?!\w)", code_of(bodies[function]))
    )


def foreign_furniture(files: Iterable[str]) -> list[str]:
    """List the files, as room/name, that are neither a numbered topic nor furniture."""
    return sorted(file for file in files if not _FURNITURE.fullmatch(file))
