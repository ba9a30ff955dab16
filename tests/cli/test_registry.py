"""Devices, groups, owners and settings from the command line."""

from __future__ import annotations

import csv
import io
import itertools
from typing import Any

import psycopg
import pytest

Pgfleet = Any
numbers = itertools.count(1)


@pytest.fixture
def hostname(pgfleet: Pgfleet) -> str:
    """Give the name of a device made for the test."""
    name = f"lab-{next(numbers)}"
    assert pgfleet("device", "create", name, "--platform", "linux", "--tag", "lab").code == 0
    return name


def test_device_is_created_shown_and_listed(pgfleet: Pgfleet) -> None:
    made = pgfleet(
        *("device", "create", "Reception", "--platform", "windows", "--timezone", "Europe/Berlin"),
        *("--tag", "front", "--attributes", '{"floor": 1}', "--json"),
    ).data

    shown = pgfleet("device", "show", "reception", "--json").data
    listed = pgfleet("device", "list", "--tag", "front", "--json").data

    assert shown["id"] == made["id"]
    assert shown["attributes"] == {"floor": 1}
    assert shown["owner"] == "School 7"
    assert [row["hostname"] for row in listed] == ["Reception"]


def test_device_is_found_by_id_too(pgfleet: Pgfleet, hostname: str) -> None:
    by_name = pgfleet("device", "show", hostname.upper(), "--json").data

    assert pgfleet("device", "show", str(by_name["id"]), "--json").data == by_name


def test_device_of_the_same_name_twice_is_refused(pgfleet: Pgfleet, hostname: str) -> None:
    answer = pgfleet("device", "create", hostname.upper())

    assert answer.code == 1
    assert answer.err.startswith("Error: ")
    assert "devices_owner_hostname_key" in answer.err


def test_unknown_device_is_told_with_a_hint(pgfleet: Pgfleet) -> None:
    answer = pgfleet("device", "show", "nowhere")

    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        'Error: device "nowhere" was not found\n'
        "Reason: device_not_found\n"
        "Hint: List what there is with: pgfleet device list\n"
    )


def test_wrong_time_zone_is_refused_by_name(pgfleet: Pgfleet) -> None:
    answer = pgfleet("device", "create", "clockless", "--timezone", "Europe/Berlim")

    assert answer.code == 1
    assert "timezone" in answer.err
    assert "Hint:" in answer.err


@pytest.mark.parametrize("text", ["{", "[1]", "@/no/such/file"])
def test_attributes_that_are_no_object_are_refused_by_name(pgfleet: Pgfleet, text: str) -> None:
    answer = pgfleet("device", "create", "odd", "--attributes", text)

    assert answer.code == 1
    assert answer.err.startswith("Error: --attributes: ")


def test_name_that_two_owners_use_wants_an_id(pgfleet: Pgfleet, hostname: str) -> None:
    pgfleet("owner", "create", f"other of {hostname}")
    assert pgfleet("device", "create", hostname, "--owner", f"other of {hostname}").code == 0

    answer = pgfleet("device", "show", hostname)

    assert answer.code == 1
    assert "ambiguous" in answer.err
    assert "Hint: Name the id" in answer.err


def test_tags_are_added_and_removed(pgfleet: Pgfleet, hostname: str) -> None:
    row = pgfleet(
        *("device", "tag", hostname, "--add", "spare", "--add", "blue", "--remove", "lab", "--json")
    ).data

    assert row["tags"] == ["blue", "spare"]


def test_enrolment_code_is_data_and_the_next_step_is_talk(pgfleet: Pgfleet) -> None:
    answer = pgfleet(
        *("device", "enroll-code", "--uses", "30", "--expires", "2 days", "--tag", "lab", "--json")
    )

    assert answer.data["max_uses"] == 30
    assert f"pgfleet agent enroll --code {answer.data['code']}" in answer.err


def test_enrolment_code_with_no_use_is_refused(pgfleet: Pgfleet) -> None:
    answer = pgfleet("device", "enroll-code", "--uses", "0")

    assert answer.code == 1
    assert "max_uses" in answer.err
    assert "Hint:" in answer.err


def test_code_is_listed_without_itself_and_revoked_once(pgfleet: Pgfleet) -> None:
    made = pgfleet("device", "enroll-code", "--json").data

    def state() -> str:
        rows = pgfleet("device", "codes", "--json")
        assert made["code"] not in rows.out
        return str(next(row["state"] for row in rows.data if row["id"] == made["id"]))

    assert state() == "good"
    assert pgfleet("device", "revoke-code", str(made["id"])).code == 0
    assert state() == "revoked"
    assert pgfleet("device", "revoke-code", str(made["id"])).code == 1


def test_rekey_gives_a_code_for_the_device(pgfleet: Pgfleet, hostname: str) -> None:
    assert pgfleet("device", "rekey", hostname, "--json").data["code"]


def test_retiring_is_confirmed_and_can_be_tried_first(pgfleet: Pgfleet, hostname: str) -> None:
    tried = pgfleet("device", "retire", hostname, "--dry-run", "--json")
    unconfirmed = pgfleet("device", "retire", hostname)
    still = pgfleet("device", "show", hostname, "--json").data["status"]
    done = pgfleet("device", "retire", hostname, "--yes", "--json")

    assert (tried.code, still) == (0, "active")
    assert unconfirmed.code == 1
    assert "Hint: Pass --yes" in unconfirmed.err
    assert done.data["status"] == "retired"


def test_static_group_holds_what_is_added(pgfleet: Pgfleet, hostname: str) -> None:
    name = f"group of {hostname}"
    assert pgfleet("group", "create", name, "--device", hostname, "--json").data["devices"] == 1

    assert pgfleet("group", "add", name, hostname).err.strip() == "Added 0 of 1."
    members = pgfleet("group", "devices", name, "--json").data
    removed = pgfleet("group", "remove", name, hostname, "--json").data

    assert [row["hostname"] for row in members] == [hostname]
    assert removed["devices"] == 0


def test_dynamic_group_holds_what_matches(pgfleet: Pgfleet, hostname: str) -> None:
    name = f"all of {hostname}"
    pgfleet("device", "tag", hostname, "--add", name)

    row = pgfleet("group", "create", name, "--selector", f'{{"tags": ["{name}"]}}', "--json").data
    listed = pgfleet("device", "list", "--group", name, "--json").data

    assert (row["kind"], row["devices"]) == ("dynamic", 1)
    assert [device["hostname"] for device in listed] == [hostname]


def test_selector_with_an_unknown_key_is_refused_by_name(pgfleet: Pgfleet) -> None:
    answer = pgfleet("group", "create", "odd", "--selector", '{"colour": "red"}')

    assert answer.code == 1
    assert "selector.colour" in answer.err


def test_group_is_deleted_only_with_yes(pgfleet: Pgfleet) -> None:
    pgfleet("group", "create", "short lived")

    assert pgfleet("group", "delete", "short lived", "--dry-run").code == 0
    assert pgfleet("group", "delete", "short lived").code == 1
    assert pgfleet("group", "show", "short lived").code == 0
    assert pgfleet("group", "delete", "short lived", "--yes").code == 0
    assert pgfleet("group", "show", "short lived").code == 1


def test_owners_are_listed_with_the_default(pgfleet: Pgfleet) -> None:
    rows = pgfleet("owner", "list", "--json").data

    assert [row["name"] for row in rows if row["is_default"]] == ["School 7"]


def test_setting_is_read_changed_and_checked(pgfleet: Pgfleet) -> None:
    assert pgfleet("setting", "set", "doorbell_rate", "250", "--json").data["value"] == 250
    rows = {row["name"]: row["value"] for row in pgfleet("setting", "list", "--json").data}
    wrong = pgfleet("setting", "set", "doorbell_rate", "fast")
    unknown = pgfleet("setting", "set", "doorbel_rate", "1")

    assert rows["doorbell_rate"] == 250
    assert (wrong.code, unknown.code) == (1, 1)
    assert "doorbell_rate" in wrong.err
    assert "pgfleet setting list" in unknown.err


def test_csv_has_a_header_and_json_in_its_cells(pgfleet: Pgfleet, hostname: str) -> None:
    text = pgfleet("device", "list", "--search", hostname, "--csv").out

    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["hostname"] == hostname
    assert rows[0]["tags"] == '["lab"]'


def test_pipe_gets_tabs_and_whole_values(pgfleet: Pgfleet, hostname: str) -> None:
    lines = pgfleet("device", "list", "--search", hostname).out.splitlines()

    assert lines[0].split("\t")[:3] == ["id", "hostname", "status"]
    assert lines[1].split("\t")[1:3] == [hostname, "active"]


def test_shown_sql_does_the_same_in_the_sql_editor(
    pgfleet: Pgfleet, fleet: Any, hostname: str
) -> None:
    answer = pgfleet("device", "list", "--search", hostname, "--show-sql", "--json")

    with psycopg.connect(fleet.url()) as conn:
        rows = conn.execute(answer.err.encode()).fetchall()
    assert [row[1] for row in rows] == [row["hostname"] for row in answer.data] == [hostname]


def test_quotes_in_a_name_are_only_quotes(pgfleet: Pgfleet) -> None:
    name = "o'brien; drop table devices --"

    assert pgfleet("device", "create", name, "--show-sql").code == 0
    assert pgfleet("device", "show", name, "--json").data["hostname"] == name
