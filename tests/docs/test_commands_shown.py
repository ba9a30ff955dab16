"""Commands that pages show exist, also where a block cannot run; and such blocks are few."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from tests.helpers.pages import NOT_RUN, blocks_of, name_of, pages

from pgfleet.main import app

# Every block that the tests do not run, by its first line, and why they cannot.
REASONS = {
    "docs/how-to/deploy-on-supabase.md": {
        "pip install '.[admin,functions]'": "it needs a hosted project",
        'pgfleet owner create "My school" --default': "all other pages use the demo school",
        "pgfleet functions setup --url https://functions.example.com/functions/v1": (
            "it needs a hosted project, and an address"
        ),
    },
    "docs/how-to/plain-postgres.md": {
        "call fleet.tick_minute();": "it takes a minute",
        "create role anon nologin;": "the local platform has these roles already",
        "pgfleet functions run --poll 1": "it serves a database without pg_net until it is stopped",
    },
    "docs/how-to/run-an-agent.md": {
        "pip install 'pgfleet[agent]'": "it needs a project and functions with addresses",
    },
    "docs/how-to/profiles.md": {
        "pgfleet integration create office --type simplemdm": "it needs an account of an MDM",
    },
    "docs/how-to/be-told.md": {
        "pgfleet webhook create https://hooks.example.com/fleet"
        ' --event run.failed --event "schedule.*"': "it needs an address that is reached",
    },
}

_INLINE = re.compile(r"`(pgfleet(?: [^`]+)?)`")
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:=.*)?")


def shown() -> Iterator[tuple[str, str]]:
    """Give every `pgfleet …` that is shown and not pasted, with where it stands."""
    for page in pages():
        for block in blocks_of(page):
            if block.language == "sh" and not block.is_run:
                for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
                    if line.startswith("pgfleet "):
                        yield block.where, line
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for words in _INLINE.findall(line):
                yield f"{name_of(page)}:{number}", words


@pytest.mark.parametrize(("where", "line"), sorted(set(shown())), ids=lambda value: value[:60])
def test_a_command_that_is_shown_exists_with_its_options(where: str, line: str) -> None:
    words = shlex.split(line.replace("…", " "))[1:]
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    while hasattr(group, "get_command") and words and words[0].islower() and words[0][0] != "-":
        name = words.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"{where}: {line}: there is no {name!r}"
        group = found
    known = {option for parameter in group.params for option in parameter.opts} | {"--help"}
    used = {match[1] for word in words if (match := _OPTION.fullmatch(word))}
    assert used <= known, f"{where}: {line}: no option {used - known}"


def test_every_block_that_does_not_run_is_listed_with_its_reason() -> None:
    told = {
        name_of(page): {
            block.text.splitlines()[0]
            for block in blocks_of(page)
            if block.above.startswith(NOT_RUN)
        }
        for page in pages()
    }
    assert {page: lines for page, lines in told.items() if lines} == {
        page: set(lines) for page, lines in REASONS.items()
    }
    assert all(reason for lines in REASONS.values() for reason in lines.values())


def test_every_block_has_a_language_or_is_a_drawing() -> None:
    bare = [
        block.where
        for page in pages()
        for block in blocks_of(page)
        if not block.language and block.page != "README.md"
    ]
    assert bare == []
