"""Paths and names in payloads that an agent refuses, and the roots that decide where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgfleet.agent.handlers.deploy.paths import Roots, check_name
from pgfleet.agent.handlers.interface import HandlerFailed
from pgfleet.errors import InvalidInput

# Each is refused by the server too: tests/db/deployments/test_paths.py takes the same list.
BAD_PATHS = json.loads((Path(__file__).parents[1] / "helpers" / "bad_paths.json").read_text())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "c"
    made.mkdir()
    return made


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_could_lead_elsewhere_is_refused(path: str, root: Path) -> None:
    roots = Roots({"C:": root, "/": root})
    with pytest.raises(HandlerFailed) as refused:
        roots.place(path)
    assert refused.value.reason == "invalid_payload"


@pytest.mark.parametrize(
    "path", [None, 7, ["C:\\x"], "C:\\\ud800", "/\ud800", "/a\0b", "C:\\a\0b", ""]
)
def test_what_is_no_path_is_refused(path: Any, root: Path) -> None:
    with pytest.raises(HandlerFailed):
        Roots({"C:": root, "/": root}).place(path)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "a/b",
            "a\\b",
            "",
            ".",
            "..",
            ".hidden",
            "-rf",
            " x",
            "x ",
            "x.",
            "con",
            "NUL.txt",
        ),
        *("COM1", "a:b", "a\0b", "a\nb", "a*", "a?", 'a"', "a<", "a|b", "x" * 256, None, 5),
    ],
)
def test_a_name_that_is_more_than_a_name_is_refused(name: Any) -> None:
    with pytest.raises(HandlerFailed):
        check_name(name)


@pytest.mark.parametrize(
    ("roots", "path", "folder"),
    [
        ({"C:": "c"}, "C:\\Config\\App", "c/Config/App"),
        ({"c:": "c"}, "C:/Config/", "c/Config"),
        ({"C:": "c", "C:\\Config": "special"}, "c:\\CONFIG\\App", "special/App"),
        ({"/etc/app": "app"}, "/etc/app/conf.d", "app/conf.d"),
        ({"/": "all", "/etc/app": "app"}, "/etc/apple", "all/etc/apple"),
        ({"C:": "c"}, "C:\\", "c"),
    ],
)
def test_the_longest_root_decides_where_a_path_is(
    roots: dict[str, str], path: str, folder: str, tmp_path: Path
) -> None:
    place = Roots({name: tmp_path / sub for name, sub in roots.items()}).place(path)
    assert place.root.joinpath(*place.steps) == tmp_path / folder


@pytest.mark.parametrize("path", ["D:\\Config", "/etc/app", "C:\\Other"])
def test_what_no_root_covers_is_unsupported(path: str, root: Path) -> None:
    with pytest.raises(HandlerFailed) as refused:
        Roots({"C:\\Config": root}).place(path)
    assert refused.value.reason == "unsupported"


@pytest.mark.parametrize("name", ["Config", "..", "C:..", "\\\\server\\share", ""])
def test_a_root_that_is_no_absolute_folder_is_refused(name: str, root: Path) -> None:
    with pytest.raises(InvalidInput):
        Roots({name: root})
