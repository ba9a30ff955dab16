"""The page `settings`: those of the engine, and the variables of the environment."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from pgfleet.main import app
from reference.catalogue import Catalogue
from reference.markdown import code, page, prose, table

_INTRODUCTION = """
What can be set: in the database, for the engine; in the environment, for programs.
"""
_ENGINE = """
`pgfleet setting list`, `pgfleet setting set NAME VALUE`, or
`select fleet.set_setting('name', 'value')` as `postgres`. They hold for the whole database, from
the next second on.
"""
_HANDLER = """
A program in the agent's `--handlers` folder finds these in its environment, and the payload as
JSON on its standard input.
"""
_DESCRIBED = Path(__file__).with_name("environment.toml")
_VARIABLE = re.compile(r"\b(?:PGFLEET|SUPABASE)_[A-Z_]*[A-Z]\b")


class Undescribed(Exception):
    """A variable is read somewhere, and `environment.toml` does not say what it means."""


def settings(catalogue: Catalogue, root: Path) -> str:
    """Write the page; raises `Undescribed` for a variable that has no meaning."""
    typed = _typed()
    described = tomllib.loads(_DESCRIBED.read_text())
    unknown = _read_somewhere(root).difference(typed, *described.values())
    if unknown:
        raise Undescribed(
            "say in scripts/reference/environment.toml what these mean: "
            + ", ".join(sorted(unknown))
        )
    engine = ((code(s.name), code(s.default), prose(s.description)) for s in catalogue.settings)
    parts = [
        "## Of the engine",
        _ENGINE.strip(),
        table(("setting", "default", "meaning"), engine),
        "## Of the command line and the agent",
        _variables(typed),
        "## Of the HTTP functions",
        _variables(described["functions"]),
        "## Of the console as a service",
        _variables(described["console"]),
        "## Of the local platform",
        _variables(described["local"]),
        "## What a handler program is told",
        _HANDLER.strip(),
        _variables(described["handler"]),
        "## Others",
        _variables(described["others"]),
    ]
    return page("Settings", _INTRODUCTION, parts)


def _variables(described: dict[str, str]) -> str:
    rows = ((code(name), prose(described[name])) for name in sorted(described))
    return table(("variable", "meaning"), rows)


def _typed() -> dict[str, str]:
    """Give the variables that stand for an option, with the option's help."""
    found: dict[str, str] = {}
    for parameter in _parameters(typer.main.get_command(app)):
        if isinstance(parameter.envvar, str):
            option = next(name for name in parameter.opts if name.startswith("--"))
            found[parameter.envvar] = f"{parameter.help} The same as `{option}`."
    return found


def _parameters(command: Any) -> Iterator[Any]:
    yield from command.params
    if hasattr(command, "list_commands"):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from _parameters(command.get_command(context, name))


def _read_somewhere(root: Path) -> set[str]:
    """Find every variable that the code names."""
    found: set[str] = set()
    for folder in ("cli", "functions", "supabase/local"):
        for path in (root / folder).rglob("*.py"):
            found.update(_VARIABLE.findall(path.read_text()))
    return found
