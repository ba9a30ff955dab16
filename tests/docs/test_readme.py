"""What the README shows works: its SQL runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer

from pgfleet.main import app

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text()
DEVICES = """
insert into devices (hostname, tags, platform)
values ('pc-1', '{lab,student}', 'windows'), ('lab-pc-07', '{lab,teacher}', 'windows')
"""


def blocks(language: str) -> list[str]:
    """Give the README's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Give every `pgfleet …` line of the README, continued lines joined."""
    found: list[str] = []
    for block in blocks("sh"):
        joined = re.sub(r"\\\n\s*", "", re.sub(r"<<< '.*?'", "", block, flags=re.DOTALL))
        for line in joined.splitlines():
            for part in re.split(r"&&|\s#|&$", line):
                if part.strip().startswith("pgfleet "):
                    found.append(part.strip())
    return found


def test_the_sql_of_the_readme_runs_in_order(db: psycopg.Connection[Any]) -> None:
    first, *rest = blocks("sql")
    db.execute(first)
    db.execute(DEVICES)
    for block in rest:
        # Without parameters several statements may go in one call.
        db.execute(block)


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)[1:]
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    path: list[str] = []
    while hasattr(group, "get_command"):
        assert words, f"{line}: it needs a verb"
        name = words.pop(0)
        found = group.get_command(context, name)
        assert found is not None, f"{line}: there is no {name!r} in {' '.join(path) or 'pgfleet'}"
        group = found
        path.append(name)
    known = {option for parameter in group.params for option in parameter.opts}
    used = {word.split("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?|-[a-z]", word)}
    assert used <= known, f"{line}: {used - known} is no option of {' '.join(path)}"


def test_links_inside_the_readme_lead_to_a_heading() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([a-z0-9-]+)\)", TEXT))
    assert links <= headings


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (README.parent / "Makefile").read_text()
    targets = set(re.findall(r"`make ([a-z]+)`", TEXT)) | set(
        re.findall(r"^make ([a-z]+)", "\n".join(blocks("sh")), re.MULTILINE)
    )
    missing = {name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)}
    assert targets
    assert missing == set()
