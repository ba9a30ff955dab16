"""From an operator's code to a device with a secret."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet, Row


def make_code(fleet: Fleet, **named: Any) -> Row:
    user = fleet.owner_id
    names = ", ".join(f"{name} => %s" for name in named)
    with fleet.acting(user):
        code: Row = fleet.value(f"select create_enrollment_code({names})", *named.values())
    return code


def enroll(fleet: Fleet, code: str, hostname: str, facts: Row | None = None) -> Row:
    answer: Row = fleet.value(
        "select fleet.worker_enroll_device(%s, %s, %s)", code, hostname, Jsonb(facts or {})
    )
    return answer


def token(fleet: Fleet, secret: str) -> Row:
    answer: Row = fleet.value("select fleet.worker_device_token(%s)", secret)
    return answer


def test_a_code_makes_a_device_whose_secret_gives_its_identity(fleet: Fleet) -> None:
    code = make_code(fleet)
    made = enroll(fleet, code["code"], " PC-1 ", {"platform": "linux", "timezone": "Europe/Berlin"})

    assert made["hostname"] == "PC-1"
    assert made["owner_id"] == str(fleet.owner_id)
    assert made["topic"] == f"device:{made['auth_id']}"
    known = token(fleet, made["device_secret"])
    assert known["device_id"] == made["device_id"]
    assert known["auth_id"] == made["auth_id"]
    device = fleet.row("select * from devices where id = %s", made["device_id"])
    assert (device["reported"], device["timezone"]) == ({"platform": "linux"}, "Europe/Berlin")
    assert device["enrolled_at"] is not None


def test_neither_codes_nor_secrets_are_kept_in_clear(fleet: Fleet) -> None:
    code = make_code(fleet)
    made = enroll(fleet, code["code"], "pc-1")

    stored = fleet.value(
        "select (select string_agg(c::text, '') from enrollment_codes as c)"
        " || (select string_agg(c::text, '') from fleet.device_credentials as c)"
    )
    assert code["code"] not in stored
    assert made["device_secret"] not in stored


def test_a_code_serves_once_unless_it_says_otherwise(fleet: Fleet) -> None:
    once = make_code(fleet)
    enroll(fleet, once["code"], "pc-1")
    with fleet.refused("PT401", "enrollment_code_refused"):
        enroll(fleet, once["code"], "pc-2")

    twice = make_code(fleet, p_max_uses=2)
    enroll(fleet, twice["code"].lower(), "pc-2")
    enroll(fleet, f" {twice['code']} ", "pc-3")
    with fleet.refused("PT401", "enrollment_code_refused"):
        enroll(fleet, twice["code"], "pc-4")


def test_two_devices_at_once_cannot_share_the_last_use(connect: Callable[..., Fleet]) -> None:
    first = connect()
    with first.conn.transaction():
        code = make_code(first)["code"]
    second = connect(owner=first)
    answers: list[str] = []

    with first.conn.transaction():
        enroll(first, code, "pc-1")
        waiting = threading.Thread(target=lambda: answers.append(_try(second, code)))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive(), "the second device did not wait for the first"
    waiting.join(10)

    assert answers == ["enrollment_code_refused"]
    assert first.value("select count(*) from devices") == 1


def _try(fleet: Fleet, code: str) -> str:
    try:
        enroll(fleet, code, "pc-2")
    except psycopg.Error as error:
        return error.diag.message_detail or ""
    return "enrolled"


def test_a_code_ends_with_its_time(fleet: Fleet) -> None:
    code = make_code(fleet, p_expires_in="1 hour")
    with fleet.refused("PT401", "enrollment_code_refused"):
        fleet.run(
            "select fleet.worker_enroll_device(%s, 'pc', '{}', now() + interval '2 hours')",
            code["code"],
        )


def test_a_revoked_code_is_refused(fleet: Fleet) -> None:
    code = make_code(fleet)
    with fleet.acting(fleet.owner_id):
        fleet.run("select revoke_enrollment_code(%s)", code["id"])
    with fleet.refused("PT401", "enrollment_code_refused"):
        enroll(fleet, code["code"], "pc-1")
    with fleet.refused("PT404", "enrollment_code_not_found"), fleet.acting(fleet.owner_id):
        fleet.run("select revoke_enrollment_code(%s)", code["id"])


def test_nobody_else_revokes_a_code(fleet: Fleet) -> None:
    code = make_code(fleet)
    with fleet.refused("PT404", "enrollment_code_not_found"), fleet.acting(uuid4()):
        fleet.run("select revoke_enrollment_code(%s)", code["id"])
    assert enroll(fleet, code["code"], "pc-1")["device_id"]


@pytest.mark.parametrize(
    "named",
    [
        {"p_max_uses": 0},
        {"p_max_uses": 100001},
        {"p_max_uses": None},
        {"p_expires_in": "0"},
        {"p_expires_in": "-1 day"},
        {"p_expires_in": None},
    ],
)
def test_a_code_out_of_bounds_is_refused(fleet: Fleet, named: Row) -> None:
    with fleet.refused("PT422", "enrollment_code_invalid"):
        make_code(fleet, **named)


def test_devices_get_the_tags_and_join_the_groups_of_their_code(fleet: Fleet) -> None:
    group = fleet.insert("device_groups", owner_id=fleet.owner_id, name="lab")["id"]
    code = make_code(fleet, p_tags=["b", "a"], p_group_ids=[group])
    made = enroll(fleet, code["code"], "pc-1")

    device = fleet.row("select * from devices where id = %s", made["device_id"])
    assert device["tags"] == ["a", "b"]
    assert fleet.value("select id from group_devices(%s)", group) == made["device_id"]


def test_a_code_cannot_name_a_foreign_or_a_dynamic_group(fleet: Fleet) -> None:
    foreign = Fleet(fleet.conn)
    theirs = fleet.insert("device_groups", owner_id=foreign.owner_id, name="lab")["id"]
    dynamic = fleet.insert("device_groups", owner_id=fleet.owner_id, name="all", selector={})["id"]
    for group in (theirs, dynamic):
        with fleet.refused("PT404", "group_not_found", f"group {group}"):
            make_code(fleet, p_group_ids=[group])


def test_a_prepared_device_is_taken_over_and_an_enrolled_one_is_not(fleet: Fleet) -> None:
    prepared = fleet.device("PC-1", tags=["kept"])
    code = make_code(fleet, p_max_uses=3, p_tags=["new"])
    made = enroll(fleet, code["code"], "pc-1")
    assert made["device_id"] == prepared
    assert fleet.value("select tags from devices where id = %s", prepared) == ["kept", "new"]

    token(fleet, made["device_secret"])
    with fleet.refused("PT409", "device_enrolled"):
        enroll(fleet, code["code"], "Pc-1")
    uses = fleet.value("select used_count from enrollment_codes where id = %s", code["id"])
    assert uses == 1, "a refused enrolment used the code up"


@pytest.mark.parametrize("hostname", ["", "   ", None, "x" * 254])
def test_a_device_without_a_proper_name_is_refused(fleet: Fleet, hostname: str | None) -> None:
    code = make_code(fleet)
    with fleet.refused("PT422", "hostname_invalid"):
        fleet.run("select fleet.worker_enroll_device(%s, %s, '{}')", code["code"], hostname)


def test_facts_that_make_no_sense_do_not_stop_an_enrolment(fleet: Fleet) -> None:
    code = make_code(fleet)
    made = enroll(
        fleet, code["code"], "pc", {"timezone": "Nowhere/Land", "attributes": [1], "platform": 7}
    )
    device = fleet.row("select * from devices where id = %s", made["device_id"])
    assert device["timezone"] is None
    assert (device["attributes"], device["reported"]) == ({}, {"platform": "7"})


def test_rekeying_changes_the_identity_and_voids_the_old_secret(fleet: Fleet) -> None:
    made = enroll(fleet, make_code(fleet)["code"], "pc-1")
    with fleet.acting(fleet.owner_id):
        code = fleet.value("select rekey_device(%s)", made["device_id"])
    # Until the new code is used, the device goes on with what it has.
    assert token(fleet, made["device_secret"])["auth_id"] == made["auth_id"]

    again = enroll(fleet, code["code"], "whatever")
    assert again["device_id"] == made["device_id"]
    assert again["hostname"] == "pc-1"
    assert again["auth_id"] != made["auth_id"]
    with fleet.refused("PT401", "device_secret_unknown"):
        token(fleet, made["device_secret"])
    with fleet.refused("PT403", "not_a_device"), fleet.acting(made["auth_id"]):
        fleet.run("select device_checkin()")
    assert token(fleet, again["device_secret"])["auth_id"] == again["auth_id"]


@pytest.mark.parametrize(
    "secret", ["", "pgfd_1", "pgfd_99999999999999999999_" + "0" * 64, "pgfd_1_" + "0" * 64, None]
)
def test_a_wrong_secret_is_refused(fleet: Fleet, secret: str | None) -> None:
    with fleet.refused("PT401", "device_secret_unknown"):
        fleet.run("select fleet.worker_device_token(%s)", secret)


def test_only_managers_make_codes(fleet: Fleet) -> None:
    device = fleet.device()
    viewer = uuid4()
    fleet.insert("owner_members", owner_id=fleet.owner_id, user_id=viewer, permissions=["view"])
    with fleet.refused("PT403", "permission_missing"), fleet.acting(viewer):
        fleet.run("select rekey_device(%s)", device)
    with fleet.refused("PT403", "not_a_person"), fleet.as_device(device):
        fleet.run("select create_enrollment_code()")
