"""Every command explains itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pgfleet.main import app

SHARED = {"--json", "--csv", "--show-sql", "--database-url"}
# The device side has no database and so none of the shared options.
WITHOUT_DATABASE = {"agent", "demo"}


def commands() -> Iterator[tuple[str, Any]]:
    root = typer.main.get_command(app)
    yield from walk("pgfleet", root)


def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "list_commands"):
        context = command.make_context(path, [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from walk(f"{path} {name}", command.get_command(context, name))
    else:
        yield path, command


FOUND = dict(commands())


@pytest.mark.parametrize("path", FOUND)
def test_command_has_help_and_an_example_of_itself(path: str) -> None:
    text = FOUND[path].help or ""

    sentence = text.split("\n\n")[0].replace("\n", " ").strip()
    assert sentence.endswith(".")
    assert f"Example: {path}" in text


@pytest.mark.parametrize("path", FOUND)
def test_every_option_and_argument_has_help(path: str) -> None:
    without = [p.name for p in FOUND[path].params if not getattr(p, "help", None)]

    assert [name for name in without if name != "help"] == []


@pytest.mark.parametrize("path", [p for p in FOUND if p.split()[1] not in WITHOUT_DATABASE])
def test_command_has_the_shared_options(path: str) -> None:
    known = {word for parameter in FOUND[path].params for word in parameter.opts}

    assert known >= SHARED


def test_nouns_are_those_of_the_readme() -> None:
    nouns = {path.split()[1] for path in FOUND}

    assert nouns >= {
        *("status", "device", "group", "schedule", "run", "command", "owner", "setting", "db"),
        *("functions", "stack", "agent"),
    }
