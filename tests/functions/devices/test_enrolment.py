from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest

from pgfleet_functions.devices.attempt_limit import BURST


def claims_of(site: Any, answer: dict[str, Any]) -> dict[str, Any]:
    return jwt.decode(
        answer["access_token"],
        site.settings.jwt_secret,
        algorithms=["HS256"],
        audience="authenticated",
    )


def test_a_code_becomes_a_secret_and_a_first_token(site: Any) -> None:
    body = {
        "code": site.code(),
        "hostname": "lab-1",
        "platform": "linux",
        "timezone": "Asia/Kolkata",
        "agent_version": "1.2",
        "attributes": {"room": "a"},
    }

    answer = site.post("enroll-device", body)

    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    device = answer.json()
    assert set(device) == {
        "device_id", "auth_id", "hostname", "device_secret", "topic",
        "access_token", "token_type", "expires_in", "expires_at",
    }  # fmt: skip
    assert device["topic"] == f"device:{device['auth_id']}"
    claims = claims_of(site, device)
    assert (claims["sub"], claims["role"]) == (device["auth_id"], "authenticated")
    assert claims["device_id"] == device["device_id"]
    assert claims["exp"] - claims["iat"] == device["expires_in"] == 3600
    assert claims["exp"] == device["expires_at"]
    with site.connect() as owner:
        row = owner.execute(
            "select timezone, attributes, reported from devices where id = %s",
            (device["device_id"],),
        ).fetchone()
    said = {"platform": "linux", "room": "a", "agent_version": "1.2"}
    assert row == ("Asia/Kolkata", {}, said)


def test_the_secret_gives_a_new_token_as_often_as_it_is_asked(site: Any) -> None:
    device = site.enroll("lab-2")

    answers = [
        site.post("device-token", {"device_secret": device["device_secret"]}) for _ in range(2)
    ]

    for answer in answers:
        assert answer.status_code == 200
        assert claims_of(site, answer.json())["sub"] == device["auth_id"]
        assert answer.json()["topic"] == device["topic"]
        assert "device_secret" not in answer.json()


def test_a_code_works_only_once(site: Any) -> None:
    code = site.code()
    first = site.post("enroll-device", {"code": code, "hostname": "lab-3"})
    second = site.post("enroll-device", {"code": code, "hostname": "lab-4"})

    assert (first.status_code, second.status_code) == (201, 401)
    assert second.json() == {
        "code": "PT401",
        "message": "the enrolment code is unknown, used up, revoked or expired",
        "details": "enrollment_code_refused",
        "hint": "Ask the operator for a new code: pgfleet device enroll-code",
    }


def test_a_name_that_is_taken_is_refused_and_the_code_stays_good(site: Any) -> None:
    site.enroll("lab-5")
    code = site.code()

    taken = site.post("enroll-device", {"code": code, "hostname": "LAB-5"})
    other = site.post("enroll-device", {"code": code, "hostname": "lab-6"})

    assert (taken.status_code, taken.json()["details"]) == (409, "device_enrolled")
    assert other.status_code == 201


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["code is missing", "hostname is missing"]),
        ({"code": 5, "hostname": ""}, ["code must be text", "hostname must be text"]),
        ({"code": "x", "hostname": "h" * 254}, ["hostname must be text of 1 to 253"]),
        ({"code": "x", "hostname": "h", "attributes": []}, ["attributes must be an object"]),
        ({"code": "x\x00", "hostname": "h"}, ["code must not hold a zero byte"]),
    ],
)
def test_every_wrong_field_is_named_at_once(site: Any, body: Any, words: list[str]) -> None:
    answer = site.post("enroll-device", body)

    assert (answer.status_code, answer.json()["details"]) == (422, "body_invalid")
    assert all(word in answer.json()["message"] for word in words)


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "unreadable"),
        ({"content": b"[]", "headers": {"Content-Type": "application/json"}}, 400, "unreadable"),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, 400, "unreadable"),
        ({"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 415, "content_type"),
        ({"content": b"{}"}, 415, "content_type"),
        (
            {
                "content": b'{"code": "x", "hostname": "\\ud800"}',
                "headers": {"Content-Type": "application/json"},
            },
            422,
            "invalid",
        ),
        ({"json": {"code": "x" * 70_000}}, 413, "too_large"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    site: Any, sent: dict[str, Any], status: int, reason: str
) -> None:
    sent = dict(sent)
    answer = site.post("enroll-device", sent.pop("json", None), **sent)

    assert answer.status_code == status
    assert reason in answer.json()["details"]
    assert set(answer.json()) == {"code", "message", "details", "hint"}


def test_a_nested_body_that_postgres_cannot_store_is_refused(site: Any) -> None:
    body = {"code": site.code(), "hostname": "lab-7", "attributes": {"a": "\x00"}}

    answer = site.post("enroll-device", body)

    assert answer.status_code == 422
    assert set(answer.json()) == {"code", "message", "details", "hint"}


def test_a_retired_device_is_refused_and_its_token_no_longer_works(site: Any) -> None:
    device = site.enroll("lab-8")
    client = site.client(device["access_token"])
    client.rpc("device_checkin").execute()
    site.value("select retire_device(%s)", device["device_id"])

    token = site.post("device-token", {"device_secret": device["device_secret"]})
    checkin = site.http(device["access_token"]).post("/rpc/device_checkin", json={})

    assert token.status_code in (401, 403)
    assert token.json()["details"] in ("device_retired", "device_secret_unknown")
    assert checkin.status_code in (401, 403)


def test_re_keying_shuts_out_the_old_secret_and_the_old_token(site: Any) -> None:
    old = site.enroll("lab-9")
    code = site.value("select rekey_device(%s) ->> 'code'", old["device_id"])

    answer = site.post("enroll-device", {"code": code, "hostname": "lab-9"})

    new = answer.json()
    assert (answer.status_code, new["device_id"]) == (201, old["device_id"])
    assert new["auth_id"] != old["auth_id"]
    refused = site.post("device-token", {"device_secret": old["device_secret"]})
    assert (refused.status_code, refused.json()["details"]) == (401, "device_secret_unknown")
    assert site.http(old["access_token"]).post("/rpc/device_checkin", json={}).status_code in (
        401,
        403,
    )
    assert (
        site.client(new["access_token"]).rpc("device_checkin").execute().data["topic"]
        == (new["topic"])
    )


def test_many_good_requests_from_one_address_are_no_guesses(site: Any) -> None:
    secret = site.enroll("lab-10")["device_secret"]

    statuses = {
        site.post("device-token", {"device_secret": secret}).status_code for _ in range(BURST + 5)
    }

    assert statuses == {200}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "enroll-device", 405), ("POST", "no-such-thing", 404)]
)
def test_a_path_that_leads_nowhere_is_answered_in_json(
    site: Any, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, f"{site.url}/functions/v1/{path}")

    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "details", "hint"}


def test_health_follows_the_tick(site: Any) -> None:
    with site.connect() as owner:
        owner.execute("update fleet.heartbeat set last_tick_at = now()")
    well = httpx.get(f"{site.url}/functions/v1/health")
    with site.connect() as owner:
        owner.execute("update fleet.heartbeat set last_tick_at = now() - interval '1 hour'")
    ill = httpx.get(f"{site.url}/functions/v1/health")

    assert (well.status_code, well.json()["ok"]) == (200, True)
    assert (ill.status_code, ill.json()["ok"]) == (503, False)
    assert ill.json()["tick_age_seconds"] >= 3600
