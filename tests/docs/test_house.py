"""The house's page tells the truth: its rooms, tests, functions, nouns and pages are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgfleet import main

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "the-house.md"

Cells = dict[str, str]


def table(heading: str) -> list[Cells]:
    """Give the rows of the first table after the line that begins with `| heading |`."""
    lines = PAGE.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    names = [cell.strip() for cell in lines[start].strip("|").split("|")]
    found: list[Cells] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found.append(dict(zip(names, cells, strict=True)))
    return found


def code(cell: str) -> list[str]:
    """Give what a cell shows in code."""
    return re.findall(r"`([^`]+)`", cell)


ROOMS = table("room")
PARTS = table("part")


def test_every_room_is_in_the_table_in_its_order() -> None:
    folders = sorted(path.name for path in (ROOT / "db" / "sources").iterdir() if path.is_dir())
    told = [name for row in ROOMS for name in code(row["room"])]
    assert told == folders, "each room has its row in docs/explanation/the-house.md"


def test_every_room_has_tests_in_a_folder_of_its_name() -> None:
    rooms = {path.name.split("_", 1)[1] for path in (ROOT / "db" / "sources").iterdir()}
    folders = {path.parent.name for path in (ROOT / "tests" / "db").glob("*/test_*.py")}
    assert rooms - folders == set()
    assert folders - rooms == {"concurrency", "schema", "security"}


def test_every_part_is_a_folder() -> None:
    missing = {name for row in PARTS for name in code(row["part"]) if not (ROOT / name).is_dir()}
    assert missing == set()


@pytest.mark.parametrize("row", ROOMS + PARTS, ids=lambda row: row.get("room") or row["part"])
def test_what_stands_beside_a_room_exists(row: Cells) -> None:
    tests = [name for name in code(row["tests"]) if not (ROOT / name).is_dir()]
    functions = ROOT / "functions" / "pgfleet_functions"
    absent = [name for name in code(row.get("functions", "")) if not (functions / name).is_dir()]
    pages = re.findall(r"\]\(([^)]+)\)", row.get("page", ""))
    lost = [page for page in pages if not (PAGE.parent / page.split("#")[0]).is_file()]
    assert (tests, absent, lost) == ([], [], [])
    assert code(row["tests"]) and pages, "a room without tests or without a page"


def test_every_noun_has_one_place() -> None:
    named = [noun for row in ROOMS + PARTS for noun in code(row["nouns"])]
    assert sorted(named) == sorted(main._NOUNS), "each noun is in docs/explanation/the-house.md"


def test_the_words_are_in_order_and_each_is_there_once() -> None:
    words = [row["word"] for row in table("word")]
    assert words == sorted(set(words))
    assert all(row["meaning"] for row in table("word"))
