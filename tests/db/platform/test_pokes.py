"""Pokes: signed in SQL as anybody else would sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

NOW = datetime(2031, 1, 1, tzinfo=UTC)


def signature(key: str, function: str, body: str, expires: int) -> str:
    digest = hashlib.sha256(body.encode()).hexdigest()
    message = f"{function}.{expires}.{digest}".encode()
    raw = hmac.new(key.encode(), message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("length", [0, 1, 31, 32, 63, 64, 65, 200])
def test_hmac_agrees_with_another_implementation(fleet: Fleet, length: int) -> None:
    key, message = secrets.token_bytes(length), secrets.token_bytes(length * 3)
    found = fleet.value("select fleet.hmac_sha256(%s, %s)", message, key)
    assert bytes(found) == hmac.new(key, message, hashlib.sha256).digest()


@pytest.mark.parametrize("body", ["{}", '{"a": "ü"}', "", "x" * 5000])
def test_a_token_is_what_the_key_says(fleet: Fleet, body: str) -> None:
    key = fleet.value("select fleet.poke_key()")
    token = fleet.value("select fleet.sign_poke('mdm-dispatch', %s, %s)", body, NOW)
    expires = int(NOW.timestamp()) + 60
    assert token == f"poke.{expires}.{signature(key, 'mdm-dispatch', body, expires)}"


def test_a_token_is_for_one_function_one_body_and_one_minute(fleet: Fleet) -> None:
    token = fleet.value("select fleet.sign_poke('mdm-dispatch', '{}', %s)", NOW)

    def is_good(
        token: str | None = token,
        function: str = "mdm-dispatch",
        body: str = "{}",
        now: datetime = NOW,
    ) -> bool:
        found: bool = fleet.value(
            "select fleet.worker_verify_poke(%s, %s, %s, %s)", token, function, body, now
        )
        return found

    assert is_good()
    assert is_good(now=NOW + timedelta(seconds=60))
    assert is_good(function="notify-dispatch") is False
    assert is_good(body="{ }") is False
    assert is_good(now=NOW + timedelta(seconds=61)) is False
    assert is_good(now=NOW - timedelta(minutes=5)) is False
    for wrong in (None, "", "poke.1.x", token[:-1], token + "=", "Bearer " + token):
        assert is_good(wrong) is False
    # A key of one's own signs nothing.
    expires = int(NOW.timestamp()) + 60
    assert is_good(f"poke.{expires}.{signature('x' * 64, 'mdm-dispatch', '{}', expires)}") is False


def test_the_key_stays_the_same_and_out_of_sight(fleet: Fleet) -> None:
    first = fleet.value("select fleet.poke_key()")
    assert fleet.value("select fleet.poke_key()") == first
    assert len(first) == 64
    assert fleet.rows("select * from fleet.settings where value::text like %s", f"%{first}%") == []


def test_a_poke_waits_in_the_net_queue_with_its_token(fleet: Fleet) -> None:
    assert fleet.value("select fleet.poke('mdm-dispatch')") is None
    fleet.run("select fleet.set_setting('functions_url', %s)", Jsonb("http://127.0.0.1:9/v1"))
    assert fleet.value("select fleet.poke('mdm-dispatch', '{\"n\": 1}')") is not None
    row = fleet.row("select * from net.http_request_queue")
    assert row["url"] == "http://127.0.0.1:9/v1/mdm-dispatch"
    scheme, token = row["headers"]["Authorization"].split()
    assert scheme == "Bearer"
    body = bytes(row["body"]).decode()
    assert json.loads(body) == {"n": 1}
    assert fleet.value("select fleet.worker_verify_poke(%s, 'mdm-dispatch', %s)", token, body)
