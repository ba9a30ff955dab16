"""Paths, names and ids in payloads that the server refuses before any device hears of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.db.deployments.test_deployments import file

# The agent takes the same list: tests/agent/test_deploy_paths.py.
BAD_PATHS = json.loads((Path(__file__).parents[2] / "helpers" / "bad_paths.json").read_text())


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_could_lead_elsewhere_is_refused(fleet: Any, path: str) -> None:
    with fleet.refused("PT422", "schedule_invalid") as refusal:
        fleet.create(
            action_type="deploy_files",
            device_ids=[fleet.device()],
            payload={"file_ids": [file(fleet)], "target_path": path},
        )
    assert "payload.target_path" in refusal.message


@pytest.mark.parametrize(
    "path", ["C:\\Config", "C:/Config/", "d:\\a b\\c.d", "/etc/app", "/", "C:\\", "/srv/Ä ö/$x"]
)
def test_a_plain_absolute_path_is_taken(fleet: Any, path: str) -> None:
    fleet.create(
        action_type="deploy_files",
        device_ids=[fleet.device()],
        payload={"file_ids": [file(fleet)], "target_path": path},
    )


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "a/b",
            "a\\b",
            "",
            " ",
            ".",
            "..",
            ".hidden",
            "-rf",
            "x ",
            "x.",
            "con",
            "NUL.txt",
        ),
        *("COM1", "a:b", "a\nb", "a*", "a?", 'a"b', "a<b", "a|b", "x" * 256),
        # What nobody sees, or what makes a program look like a picture.
        *("photo\u202egpj.exe", "a\u2067b", "pay\u200bpal", "\ufeffnotes", "a\x85b", "a\U000e0063"),
    ],
)
def test_a_name_that_is_more_than_a_name_is_refused(fleet: Any, name: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        file(fleet, name)
    assert refused.value.sqlstate == "PT422"


@pytest.mark.parametrize("ids", [[], ["5"], [1.5], [0], [None], [-1], list(range(1, 102))])
def test_what_is_no_list_of_ids_is_refused(fleet: Any, ids: list[Any]) -> None:
    with fleet.refused("PT422", "schedule_invalid"):
        fleet.create(
            action_type="deploy_software",
            device_ids=[fleet.device()],
            payload={"software_ids": ids},
        )


def test_what_belongs_to_another_owner_is_not_there(fleet: Any) -> None:
    fleet.run("insert into owners (id, name) values (%s, 'x')", other := uuid4())
    foreign = file(fleet, owner_id=other)
    with fleet.refused("PT404", "schedule_invalid") as refusal:
        fleet.create(
            action_type="deploy_files",
            device_ids=[fleet.device()],
            payload={"file_ids": [foreign], "target_path": "/x"},
        )
    assert f"file {foreign} was not found" in refusal.message
