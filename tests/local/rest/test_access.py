from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest


def test_the_anon_key_alone_makes_nobody_but_anon(shop: Any) -> None:
    with shop.http() as http:
        allowed = http.post("/rpc/add_up", json={"a": 1})
        refused = http.post("/rpc/nothing", json={})

    assert allowed.json() == 11
    assert (refused.status_code, refused.json()["code"]) == (401, "42501")
    assert refused.headers["www-authenticate"] == "Bearer"


def test_somebody_who_is_signed_in_gets_403_for_what_is_not_granted(shop: Any) -> None:
    with shop.http(shop.token()) as http:
        answer = http.get("/codes")

    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


@pytest.mark.parametrize("headers", [{}, {"apikey": "nonsense"}])
def test_a_request_without_the_key_of_the_project_is_refused(shop: Any, headers: Any) -> None:
    answer = httpx.get(f"{shop.url}/rest/v1/jobs", headers=headers)

    assert answer.status_code == 401
    assert "API key" in answer.json()["message"]


def test_a_device_token_does_not_pass_for_a_project_key(shop: Any) -> None:
    answer = httpx.get(f"{shop.url}/rest/v1/jobs", headers={"apikey": shop.token()})

    assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


def test_an_expired_token_gives_the_challenge_that_makes_clients_renew(shop: Any) -> None:
    with shop.http(shop.token(seconds=-1)) as http:
        answer = http.get("/jobs")

    assert answer.status_code == 401
    assert answer.json() == {
        "code": "PGRST303",
        "details": None,
        "hint": None,
        "message": "JWT expired",
    }
    assert answer.headers["www-authenticate"] == (
        'Bearer error="invalid_token", error_description="JWT expired"'
    )


@pytest.mark.parametrize("token", ["nonsense", jwt.encode({"role": "x", "exp": 2**40}, "y" * 32)])
def test_a_token_that_cannot_be_trusted_is_refused(shop: Any, token: str) -> None:
    with shop.http(token) as http:
        answer = http.get("/jobs")

    assert (answer.status_code, answer.json()["code"]) == (401, "PGRST301")


def test_a_role_that_the_api_may_not_become_is_refused(shop: Any) -> None:
    with shop.http(shop.token(role="postgres")) as http:
        answer = http.get("/jobs")

    assert (answer.status_code, answer.json()["code"]) == (403, "42501")


def test_service_role_passes_row_security(shop: Any) -> None:
    with shop.connect() as owner:
        owner.execute("insert into codes values ('a', 's')")
    client = shop.client(shop.settings.service_role_key)

    assert client.table("codes").select("*").execute().data == [{"name": "a", "secret": "s"}]


def test_only_the_exposed_schemas_can_be_asked(shop: Any) -> None:
    with shop.http(shop.token(), **{"Accept-Profile": "auth"}) as http:
        answer = http.get("/users")

    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST106")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("PUT", "/jobs", 400, "PGRST127"),
        ("PATCH", "/rpc/add_up", 405, "PGRST101"),
        ("GET", "/a/b/c", 404, "PGRST125"),
        ("GET", "/job", 404, "PGRST205"),
    ],
)
def test_a_path_or_method_that_leads_nowhere_is_refused(
    shop: Any, method: str, path: str, status: int, code: str
) -> None:
    with shop.http(shop.token()) as http:
        answer = http.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_backends_that_are_ended_are_replaced_without_an_error(shop: Any) -> None:
    with shop.http(shop.token()) as http:
        assert http.get("/jobs").status_code == 200
        with shop.connect() as owner:
            owner.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'rest'"
            )

        assert http.get("/jobs").status_code == 200
