"""Every command explains itself."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

from pgfleet.main import _NOUNS, app

SHARED = {"--json", "--csv", "--show-sql", "--database-url"}
# The device side has no database and so none of the shared options.
WITHOUT_DATABASE = {"agent", "demo"}


def commands() -> Iterator[tuple[str, Any]]:
    root = typer.main.get_command(app)
    yield from walk("pgfleet", root)


def groups(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "list_commands"):
        yield path, command
        context = command.make_context(path, [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from groups(f"{path} {name}", command.get_command(context, name))


def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "list_commands"):
        context = command.make_context(path, [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from walk(f"{path} {name}", command.get_command(context, name))
    else:
        yield path, command


FOUND = dict(commands())
GROUPS = dict(groups("pgfleet", typer.main.get_command(app)))
PANELS = {
    "Watch": ["status", "console", "run", "command", "telemetry", "doctor"],
    "Plan": ["schedule", "template", "blackout", "geo", "deploy", "feed"],
    "Fleet": ["device", "group", "package", "file", "blocklist", "location", "owner"],
    "MDM": ["profile", "integration", "sync"],
    "Operate": ["db", "functions", "setting", "stack", "webhook", "audit", "demo"],
    "On a device": ["agent"],
}


def printed(path: str, monkeypatch: pytest.MonkeyPatch, columns: int) -> str:
    """Give the help of a command as it is printed in a terminal of so many columns."""
    monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", columns)
    result = CliRunner().invoke(app, [*path.split()[1:], "--help"], prog_name="pgfleet")
    assert result.exit_code == 0, result.output
    return result.stdout


def panels(text: str) -> dict[str, str]:
    """Give what is in each box, by its title, with the lines of a box joined."""
    boxes = re.findall(r"╭─ ([^─]+) ─+╮\n(.*?)╰", text, re.DOTALL)
    return {
        title: " ".join(" ".join(line.strip("│ ") for line in body.splitlines()).split())
        for title, body in boxes
    }


@pytest.mark.parametrize("path", FOUND)
def test_command_has_help_and_an_example_of_itself(path: str) -> None:
    text = Text.from_markup(FOUND[path].help or "").plain

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


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("path", GROUPS)
def test_what_a_command_does_is_said_in_full(
    path: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(path, monkeypatch, columns)
    boxes = panels(text)
    context = GROUPS[path].make_context(path, [], resilient_parsing=True)

    assert max(map(len, text.splitlines())) <= columns
    for name in GROUPS[path].list_commands(context):
        command = GROUPS[path].get_command(context, name)
        line = Text.from_markup(command.help).plain
        if path == "pgfleet":
            line = _NOUNS[name].help
        told = f"{name} {' '.join(line.split(chr(10) * 2)[0].split())}"
        assert any(told in box for title, box in boxes.items() if title != "Options"), told


def test_nouns_stand_in_their_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = panels(printed("pgfleet", monkeypatch, 80))

    assert [title for title in boxes if title != "Options"] == list(PANELS)
    for title, nouns in PANELS.items():
        places = [boxes[title].find(f"{noun} ") for noun in nouns]
        assert places == sorted(places)
        assert places[0] == 0


@pytest.mark.parametrize("path", [p for p in GROUPS if len(p.split()) == 2])
def test_noun_says_the_same_of_itself_as_the_program_says_of_it(path: str) -> None:
    assert GROUPS[path].help == _NOUNS[path.split()[1]].help


@pytest.mark.parametrize("path", FOUND)
def test_help_is_what_was_written(path: str) -> None:
    """Square brackets are markup, and what they hold would be lost."""
    for parameter in FOUND[path].params:
        text = getattr(parameter, "help", None) or ""
        assert Text.from_markup(text).plain == text


def test_help_of_the_whole_loads_no_noun() -> None:
    code = (
        "import sys; sys.argv = ['pgfleet', '--help']\n"
        "from pgfleet.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "loaded = [name for name in sys.modules if name.startswith('pgfleet.nouns.')]\n"
        # The folders of nouns hold a docstring and no more.
        "assert not set(loaded) - {f'pgfleet.nouns.{n}' for n in "
        "('schedule', 'blackout', 'deploy', 'geo', 'owner', 'profile', 'integration', "
        "'telemetry', 'doctor')}, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_long_example_is_still_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed("pgfleet schedule create", monkeypatch, 80)

    example = text[text.index("Example: ") + 9 : text.index("╭")]
    lines = [line.strip() for line in example.strip().splitlines()]
    assert len(lines) > 1
    assert all(line.endswith("\\") for line in lines[:-1])
    assert shlex.split("\n".join(lines))[:5] == [
        *("pgfleet", "schedule", "create", "nightly", "--action")
    ]
