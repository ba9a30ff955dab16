"""pgfleet demo seed and token, device wait, and a run that is followed by its schedule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jwt
import psycopg
import pytest

Pgfleet = Any


@pytest.fixture
def school(bare: Pgfleet, own_database: Any) -> Iterator[Any]:
    """Give a function that runs a command on a database with nothing but the demo school."""

    def run(*words: str) -> Any:
        return bare("-d", own_database.url(), *words)

    run("demo", "seed")
    yield run


def listed(answer: Any) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for row in answer.data:
        found.setdefault(row["what"], []).append((row["id"], row["name"]))
    return found


def test_the_school_has_the_ids_of_the_examples_and_is_loaded_once(school: Any) -> None:
    again = school("demo", "seed", "--json")

    assert (again.code, again.err) == (0, "The demo school was there already.\n")
    found = listed(again)
    assert found["device"][:3] == [("1", "pc-0001"), ("2", "pc-0002"), ("3", "pc-0003")]
    assert found["group"] == [("1", "labs")]
    assert [name for _, name in found["person"]] == ["ada", "ben", "eve"]
    members = school("device", "list", "--group", "labs", "--json").data
    assert [device["id"] for device in members] == [1, 2, 3]


def test_the_school_stands_beside_devices_that_are_there(bare: Pgfleet, own_database: Any) -> None:
    with psycopg.connect(own_database.url()) as conn:
        conn.execute("insert into owners (id, name) values (gen_random_uuid(), 'Other')")
        conn.execute("insert into devices (owner_id, hostname) select id, 'theirs' from owners")

    found = listed(bare("-d", own_database.url(), "demo", "seed", "--json"))

    assert [name for _, name in found["device"]][:3] == ["pc-0001", "pc-0002", "pc-0003"]
    assert "1" not in [number for number, _ in found["device"]]


def test_a_token_is_that_of_a_member(school: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGFLEET_LOCAL_JWT_SECRET", "s" * 40)

    told = school("demo", "token", "Ada").out.strip()
    claims = jwt.decode(told, "s" * 40, algorithms=["HS256"], audience="authenticated")

    people = {row["name"]: row["id"] for row in school("demo", "seed", "--json").data}
    assert (claims["sub"], claims["role"]) == (people["ada"], "authenticated")
    refused = school("demo", "token", "mallory")
    assert (refused.code, "ada, ben, eve" in refused.err) == (1, True)


def test_devices_are_waited_for_by_name_and_by_group(school: Any, own_database: Any) -> None:
    early = school("device", "wait", "pc-0001", "nobody-yet", "--timeout", "0")
    assert early.code == 1
    told = "Error: devices: still waiting for nobody-yet, pc-0001 after 0 s\n"
    assert told in early.err

    with psycopg.connect(own_database.url()) as conn:
        conn.execute("update devices set last_seen = now() where id <= 3")

    assert school("device", "wait", "--group", "labs", "--timeout", "0").code == 0
    assert school("device", "wait", "1", "PC-0002", "--timeout", "0").code == 0
    assert school("device", "wait").code == 2


def test_a_run_is_followed_by_the_name_of_its_schedule(school: Any, own_database: Any) -> None:
    made = school("schedule", "create", "Now", "--action", "lock", "--device", "pc-0001", "--json")
    assert made.code == 0, made.err
    with psycopg.connect(own_database.url()) as conn:
        conn.execute("update device_commands set status = 'completed' where status = 'pending'")
        conn.execute("select fleet.tick()")

    followed = school("run", "watch", "--schedule", "Now", "--json")

    assert (followed.code, followed.data["completed"]) == (0, 1)
    assert school("run", "watch").code == 2


def test_a_code_can_be_printed_alone(school: Any) -> None:
    answer = school("device", "enroll-code", "--plain")

    assert len(answer.out.strip()) == 32
    assert answer.err == ""
