"""pgfleet location, as a person calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.cli.conftest import Pgfleet, bare
from tests.helpers.fleet import Fleet
from tests.helpers.locations import Area

__all__ = ["bare"]


@pytest.fixture
def school(own_database: Any) -> Iterator[Fleet]:
    """Give a database that commits, whose default owner is a school."""
    with psycopg.connect(own_database.url(), autocommit=True) as conn:
        fleet = Fleet(conn)
        fleet.run("select fleet.set_setting('default_owner', to_jsonb(%s::text))", fleet.owner_id)
        yield fleet


@pytest.fixture
def pgfleet(bare: Pgfleet, own_database: Any, school: Fleet) -> Pgfleet:
    """Give a function that runs a command on that database."""

    def run(*words: str, stdin: str | None = None) -> Any:
        return bare("-d", own_database.url(), "location", *words, stdin=stdin)

    return run


def test_locations_are_made_listed_shown_and_deleted(pgfleet: Pgfleet) -> None:
    made = pgfleet("create", "School", "--at", "52.52,13.405", "--radius", "150", "--json")
    assert made.code == 0, made.err
    assert (made.data["kind"], made.data["hysteresis_m"]) == ("circle", 25)
    square = "[[52.5, 13.4], [52.5, 13.41], [52.51, 13.41], [52.51, 13.4]]"
    options = ("--dwell", "2 minutes", "--hysteresis", "10", "--json")
    other = pgfleet("create", "Block", "--polygon", "-", *options, stdin=square)
    assert other.code == 0, other.err
    assert other.data["min_dwell"] == 120

    listed = pgfleet("list", "--json").data
    assert [(row["name"], row["corners"]) for row in listed] == [("Block", 4), ("School", None)]
    assert pgfleet("show", "school", "--json").data["radius_m"] == 150
    assert pgfleet("delete", "Block", "--dry-run").code == 0
    assert pgfleet("delete", "Block", "--yes").code == 0
    assert pgfleet("show", "Block").code == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "either --at with --radius, or --polygon"),
        (("--at", "52.52"), "--at: 52.52 is not LATITUDE,LONGITUDE"),
        (("--at", "52.52,13", "--radius", "0"), "radius_m: 0 is not within"),
        (("--at", "52.52,13"), "radius_m: is missing"),
        (("--polygon", "[[1, 2]]"), "polygon: has 1 corners"),
    ],
)
def test_what_is_no_location_is_refused(
    pgfleet: Pgfleet, words: tuple[str, ...], said: str
) -> None:
    answer = pgfleet("create", "x", *words)
    assert answer.code == 1
    assert said in answer.err
    assert "Hint:" in answer.err


def test_a_policy_acts_and_where_tells_of_it(pgfleet: Pgfleet, school: Fleet) -> None:
    area = Area(school)
    device = school.device("lab-01")
    message = ("--payload", '{"message": "Welcome"}')
    made = pgfleet(
        *("policy", "broadcast_message", "--on", "enter", "--location", "School", *message),
        *("--selector", "{}", "--json"),
    )
    assert made.code == 0, made.err
    assert made.data["location_id"] == area.school
    assert pgfleet("policy", "broadcast_message", "--on", "outside_all", *message).code == 0
    refused = pgfleet("policy", "broadcast_message", "--on", "enter", *message)
    assert (refused.code, "location_id: is missing" in refused.err) == (1, True)

    before = pgfleet("where", "lab-01", "--json").data
    assert (before["position"], before["inside"], before["events"]) == ("never reported", [], [])
    with school.conn.transaction():
        for second in (0, 60):
            area.report(device, second, (0, 0))
    area.act()
    after = pgfleet("where", "lab-01", "--json").data
    assert (after["position"], after["inside"]) == ("known", ["School"])
    assert [event["event"] for event in after["events"]] == ["inside_any", "entered"]
    assert pgfleet("show", "School", "--json").data["inside"] == ["lab-01"]

    listed = pgfleet("policies", "--json").data
    assert [(row["event"], row["acted"]) for row in listed] == [("enter", 1), ("outside_all", 0)]
    assert pgfleet("delete-policy", str(made.data["id"])).code == 0
    assert len(pgfleet("policies", "--json").data) == 1
    assert pgfleet("delete-policy", str(made.data["id"])).code == 1
