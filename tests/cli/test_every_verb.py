"""What is said of every command holds for each: --json and --csv, and how it ends."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from tests.cli.conftest import Pgfleet

from pgfleet.main import app

# What runs servers or agents has no rows to print; each has tests of its own.
ELSEWHERE = ("agent", "demo", "stack", "functions", "db")
# These are themselves data, such as a script or a calendar, or go on until they are stopped.
TEXT = {
    "pgfleet schedule export": "it is a document, in YAML or JSON as the file's name says",
    "pgfleet schedule calendar --ics": "it is a calendar file",
}
USED, REFUSED, WRONG = 0, 1, 2
# What it finds it prints, whichever way it ends.
TELLS_ALL_THE_SAME = ("pgfleet doctor",)


def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "list_commands"):
        context = command.make_context(path, [], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from walk(f"{path} {name}", command.get_command(context, name))
    else:
        yield path, command


VERBS = {
    path: command
    for path, command in walk("pgfleet", typer.main.get_command(app))
    if path.split()[1] not in ELSEWHERE
}


def kind_of(parameter: Any) -> Any:
    """Give what a parameter is read as; the versions of Typer keep it in two places."""
    found = getattr(parameter, "type_descriptor", None)
    return getattr(parameter, "type", None) if found is None else found.annotation


def made_up(command: Any) -> list[str]:
    """Make up what a command cannot do without: a number, or a name that nobody has."""
    words: list[str] = []
    for parameter in command.params:
        if not parameter.required:
            continue
        value = "999999999" if "'int'" in repr(kind_of(parameter)) else "nobody-of-this-name"
        is_option = parameter.param_type_name == "option"
        words += [parameter.opts[-1], value] if is_option else [value]
    return words


def words_of(path: str) -> list[str]:
    return path.split()[1:]


@pytest.mark.parametrize("path", VERBS)
def test_a_verb_ends_with_0_or_1_and_prints_json_or_csv(pgfleet: Pgfleet, path: str) -> None:
    given = [*words_of(path), *made_up(VERBS[path])]
    as_json = pgfleet(*given, "--json")
    assert as_json.code in (USED, REFUSED, WRONG), as_json.err
    if as_json.code == USED or path in TELLS_ALL_THE_SAME:
        json.loads(as_json.out)
    else:
        assert as_json.out == ""
        assert "Error:" in as_json.err and "Traceback" not in as_json.err
    as_csv = pgfleet(*given, "--csv")
    assert as_csv.code in (USED, REFUSED, WRONG)
    if as_csv.code == USED or path in TELLS_ALL_THE_SAME:
        rows = list(csv.reader(io.StringIO(as_csv.out), strict=True))
        assert len({len(row) for row in rows}) <= 1, as_csv.out
    else:
        assert as_csv.out == ""


@pytest.mark.parametrize("path", VERBS)
def test_a_verb_that_is_used_wrongly_ends_with_2(pgfleet: Pgfleet, path: str) -> None:
    given = [*words_of(path), *made_up(VERBS[path])]
    for wrong in (["--no-such-option"], ["--json", "--csv"]):
        answer = pgfleet(*given, *wrong)
        assert (answer.code, answer.out) == (WRONG, "")
        assert "Error" in answer.err


@pytest.mark.parametrize("path", VERBS)
def test_a_verb_that_finds_no_database_ends_with_1(bare: Pgfleet, path: str) -> None:
    given = [*words_of(path), *made_up(VERBS[path])]
    answer = bare("-d", "postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1", *given)
    assert answer.code in (REFUSED, WRONG)
    assert answer.out == ""
    assert "Error" in answer.err and "Traceback" not in answer.err
