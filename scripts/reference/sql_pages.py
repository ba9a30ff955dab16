"""The pages `sql-api` and `tables`, from the comments in the database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from reference.catalogue import Catalogue, Function, Table
from reference.markdown import block, code, page, prose, table

_DEFINITION = re.compile(r"create or replace function public\.(\w+)\(", re.IGNORECASE)
_API = """
Every function of the schema `public`, in the order of [the house](../explanation/the-house.md).
Call them in the SQL editor, with `select name(argument => value)`, or as an RPC:
`POST /rest/v1/rpc/name` with the arguments as a JSON object. A signed-in person and a device both
come as the role `authenticated`; what each may do is in
[who may do what](../explanation/who-may-do-what.md). Refusals are listed in [errors](errors.md).
"""
_TABLES = """
Every table and view of the schema `public`. A person sees the rows of the owners that she is a
member of, a device its own ([who may do what](../explanation/who-may-do-what.md)); the rights below
say which role may do what at all. A right for some columns only names them.
"""


def sql_api(catalogue: Catalogue, sources: Path) -> str:
    """Write the page of functions, by room."""
    rooms = _rooms(sources)
    grouped: dict[str, list[Function]] = {}
    for function in catalogue.functions:
        grouped.setdefault(rooms.get(function.name, ""), []).append(function)
    parts: list[str] = []
    for room in sorted(grouped):
        parts.append(f"## {_title(room)}")
        for function in grouped[room]:
            parts.extend(_function(function))
    return page("Functions", _API, parts)


def tables(catalogue: Catalogue) -> str:
    """Write the page of tables and views."""
    parts: list[str] = []
    for heading, is_view in (("Tables", False), ("Views", True)):
        parts.append(f"## {heading}")
        for found in catalogue.tables:
            if found.is_view == is_view:
                parts.extend(_table(found))
    return page("Tables", _TABLES, parts)


def _rooms(sources: Path) -> Mapping[str, str]:
    """Tell in which room each public function is defined."""
    found: dict[str, str] = {}
    for path in sorted(sources.rglob("*.sql")):
        room = path.relative_to(sources).parts[0]
        for name in _DEFINITION.findall(path.read_text()):
            found[name] = room
    return found


def _title(room: str) -> str:
    name = re.sub(r"^\d+_", "", room).replace("_", " ")
    if name in ("mdm", "api"):
        return name.upper()
    return name[:1].upper() + name[1:] if name else "Others"


def _function(function: Function) -> Iterable[str]:
    arguments = function.arguments.split(", ") if function.arguments else []
    inside = f"\n  {_joined(arguments)}\n" if len(function.arguments) > 60 else function.arguments
    result = function.result
    if len(result) > 80:
        result = result.replace("TABLE(", "TABLE(\n  ").replace(", ", ",\n  ")
    yield f"### {function.name}"
    yield block("text", f"{function.name}({inside})\nreturns {result}")
    yield prose(function.comment)
    yield "May call it: " + (", ".join(code(role) for role in function.roles) or "only `postgres`")


def _joined(arguments: list[str]) -> str:
    """Put one argument on a line; a default may hold commas, an argument begins with p_."""
    lines: list[str] = []
    for argument in arguments:
        if lines and not argument.startswith(("p_", "OUT ", "VARIADIC ")):
            lines[-1] += f", {argument}"
        else:
            lines.append(argument)
    return ",\n  ".join(lines)


def _table(found: Table) -> Iterable[str]:
    yield f"### {found.name}"
    yield prose(found.comment)
    yield table(
        ("column", "type", "default", "meaning"),
        (
            (
                code(column["name"]),
                code(column["type"]) + (" not null" if column["is_required"] else ""),
                _default(column["default"]),
                " ".join(filter(None, (prose(column["comment"]), _reference(column)))),
            )
            for column in found.columns
        ),
    )
    yield "\n".join(
        f"- {code(right['role'])}: {', '.join(right['rights']) or 'nothing'}"
        for right in found.rights
    )


def _default(text: str | None) -> str:
    if text is None or text == "the next number":
        return text or ""
    return code(text)


def _reference(column: Mapping[str, str | None]) -> str:
    target = column["references"]
    if not target:
        return ""
    names = [name.removeprefix("public.") for name in target.split(", ")]
    return "→ " + ", ".join(code(name) if "." in name else f"[{name}](#{name})" for name in names)
