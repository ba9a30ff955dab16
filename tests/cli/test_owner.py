"""Owners and their people from the command line."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.cli.conftest import Pgfleet


@pytest.fixture
def people(fleet: Any) -> dict[str, str]:
    """Give two people with accounts, as Auth keeps them."""
    made = {f"{name}-{uuid4().hex[:6]}@school.example": str(uuid4()) for name in ("ada", "ben")}
    with psycopg.connect(fleet.url("supabase_admin")) as conn:
        for email, user in made.items():
            conn.execute("insert into auth.users (id, email) values (%s, %s)", (user, email))
    return made


def test_a_team_comes_together_and_apart(pgfleet: Pgfleet, people: dict[str, str]) -> None:
    ada, ben = people
    name = f"School {uuid4().hex[:6]}"
    made = pgfleet(
        "--as", ada, "owner", "create", name, "--timezone", "Europe/Berlin", "--json"
    ).data
    assert made["timezone"] == "Europe/Berlin"
    asked = pgfleet(
        *("--as", ada, "owner", "invite", name, ben, "--may", "view", "--may", "operate"), "--json"
    )
    code = asked.data["code"]
    assert f"pgfleet --as {ben} owner accept {code}" in asked.err
    assert pgfleet("--as", ada, "owner", "accept", code).code == 1

    accepted = pgfleet("--as", ben, "owner", "accept", code, "--json").data
    assert accepted == {
        "owner_id": made["id"],
        "name": name,
        "permissions": ["view", "operate"],
    }
    rows = pgfleet("--as", ben, "owner", "members", name, "--json").data
    assert {row["email"] for row in rows} == {ada, ben}
    states = pgfleet("owner", "invitations", name, "--json").data
    assert [row["state"] for row in states] == ["accepted"]

    assert pgfleet("--as", ben, "owner", "rename", name, "x").code == 1
    assert "last_admin" in pgfleet("--as", ada, "owner", "leave", name, "--yes").err
    assert pgfleet("--as", ada, "owner", "permit", name, ben, "--may", "admin").code == 0
    assert pgfleet("--as", ada, "owner", "leave", name, "--yes").code == 0
    assert pgfleet("--as", ben, "owner", "rename", name, f"{name} B").code == 0
    assert pgfleet("--as", ben, "owner", "delete", f"{name} B", "--dry-run").code == 0
    assert pgfleet("--as", ben, "owner", "delete", f"{name} B").code == 1
    assert pgfleet("--as", ben, "owner", "delete", f"{name} B", "--yes").code == 0
    assert pgfleet("owner", "members", f"{name} B").code == 1


def test_an_admin_withdraws_invitations_and_removes_members(
    pgfleet: Pgfleet, people: dict[str, str]
) -> None:
    ada, ben = people
    name = f"School {uuid4().hex[:6]}"
    pgfleet("--as", ada, "owner", "create", name)
    invited = pgfleet("--as", ada, "owner", "invite", name, "--json").data
    assert pgfleet("--as", ada, "owner", "uninvite", str(invited["id"])).code == 0
    assert "invitation_not_found" in pgfleet("--as", ben, "owner", "accept", invited["code"]).err
    code = pgfleet("--as", ada, "owner", "invite", name, "--plain").out.strip()
    assert pgfleet("--as", ben, "owner", "accept", code).code == 0
    assert pgfleet("--as", ada, "owner", "remove", name, ben, "--yes").code == 0
    assert len(pgfleet("owner", "members", name, "--json").data) == 1


def test_who_acts_as_somebody_sees_what_that_person_sees(
    pgfleet: Pgfleet, people: dict[str, str]
) -> None:
    ada, ben = people
    host = f"pc-{uuid4().hex[:6]}"
    pgfleet("--as", ada, "device", "create", host)
    assert [d["hostname"] for d in pgfleet("--as", ada, "device", "list", "--json").data] == [host]
    assert pgfleet("--as", ben, "device", "list", "--json").data == []
    # Also once a command has waited, and begun another transaction.
    assert pgfleet("--as", ben, "device", "retire", host, "--yes").code == 1
    unknown = pgfleet("--as", "nobody@school.example", "device", "list")
    assert (unknown.code, "person_not_found" in unknown.err) == (1, True)


def test_lists_say_whose_things_are_where_there_are_several(
    pgfleet: Pgfleet, people: dict[str, str]
) -> None:
    host = f"pc-{uuid4().hex[:6]}"
    pgfleet("device", "create", host)
    head = pgfleet("device", "list", "--search", host).out.splitlines()[0]
    assert "owner" not in head.split("\t")
    for person in people:
        pgfleet("--as", person, "owner", "create", f"Of {person}")
        pgfleet("--as", person, "device", "create", host)
    lines = pgfleet("device", "list", "--search", host).out.splitlines()
    assert lines[0].split("\t")[-1] == "owner"
    assert {line.split("\t")[-1] for line in lines[1:]} == {
        "School 7",
        *(f"Of {person}" for person in people),
    }


def test_what_names_devices_of_a_team_is_the_team_s(
    pgfleet: Pgfleet, people: dict[str, str]
) -> None:
    ada = next(iter(people))
    host, name = f"pc-{uuid4().hex[:6]}", f"School {uuid4().hex[:6]}"
    pgfleet("--as", ada, "owner", "create", name)
    pgfleet("device", "create", host, "--owner", name)
    group = pgfleet("group", "create", f"lab {name}", "--device", host, "--json").data
    made = pgfleet(
        "schedule", "create", f"S {name}", "--action", "lock", "--group", f"lab {name}", "--daily",
        "03:00", "--json",
    ).data  # fmt: skip
    owners = {row["name"]: row["id"] for row in pgfleet("owner", "list", "--json").data}
    assert group["owner_id"] == made["owner_id"] == owners[name]
    code = pgfleet("device", "enroll-code", "--group", f"lab {name}", "--json").data
    listed = pgfleet("device", "codes", "--json").data
    assert [row["owner"] for row in listed if row["id"] == code["id"]] == [name]
