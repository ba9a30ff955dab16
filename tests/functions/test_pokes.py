from __future__ import annotations

import json
import time
from typing import Any

import httpx
import jwt
import pytest

BODY = {"time": "2026-01-01T00:00:00Z", "source": "pg_cron"}
TEXT = json.dumps(BODY)


def poke(site: Any, token: str | None, text: str = TEXT) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.post(f"{site.url}/functions/v1/ring", content=text, headers=headers)


def signed(site: Any, function: str = "ring", text: str = TEXT, age: str = "0 seconds") -> str:
    query = "select fleet.sign_poke(%s, %s, now() - %s::interval)"
    return str(site.value(query, function, text, age))


def test_a_poke_that_the_database_signed_is_let_in(site: Any) -> None:
    answer = poke(site, signed(site))

    assert (answer.status_code, answer.json()) == (200, {"rung": BODY})


def test_a_poke_is_good_for_one_function_and_one_body_and_a_minute(site: Any) -> None:
    answers = [
        poke(site, signed(site, function="mdm-dispatch")),
        poke(site, signed(site, text='{"other": 1}')),
        poke(site, signed(site, age="2 minutes")),
        poke(site, signed(site)[:-1] + "~"),
        poke(site, "poke.1.x"),
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["details"] for answer in answers} == {"poke_token_refused"}


def test_the_service_key_is_let_in(site: Any) -> None:
    assert poke(site, site.settings.service_role_key).status_code == 200


@pytest.mark.parametrize("role", ["anon", "authenticated"])
def test_no_other_token_of_the_project_is_let_in(site: Any, role: str) -> None:
    token = jwt.encode({"role": role, "exp": int(time.time()) + 60}, site.settings.jwt_secret)

    assert poke(site, token).status_code == 401


def test_a_service_key_that_is_expired_or_forged_is_refused(site: Any) -> None:
    claims = {"role": "service_role", "exp": int(time.time()) + 60}
    expired = jwt.encode({**claims, "exp": 1}, site.settings.jwt_secret)
    endless = jwt.encode({"role": "service_role"}, site.settings.jwt_secret)
    forged = jwt.encode(claims, "f" * 32)

    assert {poke(site, token).status_code for token in (expired, endless, forged)} == {401}


def test_a_call_without_a_token_learns_what_is_missing(site: Any) -> None:
    answer = poke(site, None)

    assert (answer.status_code, answer.json()["details"]) == (401, "poke_token_missing")
    assert answer.headers["www-authenticate"] == "Bearer"
