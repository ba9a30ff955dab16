"""What Tab offers: names that the database knows, and no word where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from pgfleet.main import app

Pgfleet = Any


@pytest.fixture(scope="module", autouse=True)
def named(fleet: Any) -> None:
    import psycopg

    with psycopg.connect(fleet.url()) as conn:
        conn.execute(
            """
            insert into devices (hostname, platform)
            values ('pc-0001', 'linux'), ('pc-0002', 'windows'), ('other', null),
              (E'pc-\\x1b[2J', 'linux');
            insert into device_groups (name, selector) values ('labs: all', '{}');
            select create_schedule('{"name": "nightly round", "action_type": "lock",
              "group_ids": [1], "recurrence_type": "daily",
              "recurrence_config": {"time": "02:30"}}');
            """
        )


def offered(words: str, shell: str = "bash", **environment: str) -> list[str]:
    """Give what the shell is told after these words."""
    env = {"_PGFLEET_COMPLETE": f"complete_{shell}", "PGFLEET_LOCAL_DATA_DIR": "/nonexistent"}
    if shell == "bash":
        env |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    else:
        env |= {"_TYPER_COMPLETE_ARGS": words}
    result = CliRunner().invoke(app, [], env=env | environment, prog_name="pgfleet")
    assert result.stderr == ""
    return [line for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("pgfleet device show pc-", ["pc-0001", "pc-0002"]),
        ("pgfleet command send pc-0001 mdm_lost", ["mdm_lost_mode_off", "mdm_lost_mode_on"]),
        ("pgfleet command list --device oth", ["other"]),
        ("pgfleet group show lab", ["labs: all"]),
        ("pgfleet schedule pause night", ["nightly round"]),
        ("pgfleet run list --schedule night", ["nightly round"]),
        ("pgfleet schedule create x --device oth", ["other"]),
        ("pgfleet devi", ["device"]),
        ("pgfleet device re", ["revoke-code", "rekey", "retire"]),
    ],
)
def test_tab_offers_names(fleet: Any, words: str, names: list[str]) -> None:
    assert offered(words, PGFLEET_DATABASE_URL=fleet.url()) == names


def test_the_database_may_be_named_before(fleet: Any) -> None:
    assert offered(f"pgfleet -d {fleet.url()} device show oth") == ["other"]


def test_other_shells_are_told_more(fleet: Any) -> None:
    said = offered("pgfleet device show pc-0001", "zsh", PGFLEET_DATABASE_URL=fleet.url())

    assert any("pc-0001" in line and "linux" in line for line in said)


@pytest.mark.parametrize(
    "url", ["postgresql://postgres@127.0.0.1:1/x", "nonsense", "postgresql://nowhere.invalid/x"]
)
def test_without_a_database_nothing_is_offered_and_nothing_said(url: str) -> None:
    assert offered("pgfleet device show pc", PGFLEET_DATABASE_URL=url) == []


def test_without_any_address_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGFLEET_DATABASE_URL", raising=False)

    assert offered("pgfleet device show pc") == []
