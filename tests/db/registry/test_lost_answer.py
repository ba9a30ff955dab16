"""The answer to an enrolment may get lost on its way; the device then asks again."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
KEY = "something that the device made up: 32 characters"


@pytest.fixture
def code(db: Connection) -> str:
    row = db.execute(
        "with o as (insert into owners (name) values ('School') returning id)"
        " select fleet.set_setting('default_owner', to_jsonb(id)) from o"
    ).fetchone()
    assert row is not None
    made = db.execute("select create_enrollment_code() ->> 'code'").fetchone()
    assert made is not None
    return str(made[0])


def enroll(db: Connection, code: str, key: str = KEY) -> dict[str, Any]:
    row = db.execute(
        "select fleet.worker_enroll_device(%s, 'pc-1', %s)",
        (code, Jsonb({"enrollment_key": key})),
    ).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def test_the_same_device_may_trade_its_code_again_before_it_used_its_secret(
    db: Connection, code: str
) -> None:
    lost = enroll(db, code)

    again = enroll(db, code)

    assert again["device_id"] == lost["device_id"]
    assert again["auth_id"] == lost["auth_id"]
    assert again["device_secret"] != lost["device_secret"]
    with pytest.raises(psycopg.Error, match="not known"):
        db.execute("select fleet.worker_device_token(%s)", (lost["device_secret"],))


def test_another_device_cannot_trade_a_used_code(db: Connection, code: str) -> None:
    enroll(db, code)

    with pytest.raises(psycopg.Error) as caught:
        enroll(db, code, "another key of 32 characters or more")

    assert caught.value.sqlstate == "PT401"


def test_a_secret_that_was_used_ends_its_code(db: Connection, code: str) -> None:
    device = enroll(db, code)
    db.execute("select fleet.worker_device_token(%s)", (device["device_secret"],))

    with pytest.raises(psycopg.Error) as caught:
        enroll(db, code)

    assert caught.value.sqlstate == "PT401"


def test_a_checkin_ends_the_code_of_the_device(db: Connection, code: str, sign_in: Any) -> None:
    device = enroll(db, code)
    sign_in(db, device["auth_id"])
    db.execute("select device_checkin()")
    db.execute("reset role")
    db.execute("select set_config('request.jwt.claims', '', true)")

    with pytest.raises(psycopg.Error) as caught:
        enroll(db, code)

    assert caught.value.sqlstate == "PT401"
