"""Who gets in at the task API, and what each of them reaches."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import jwt
import psycopg
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.helpers.task_api import ME, Api, make, token

from pgfleet_local.settings import HOST

CALLS = [
    ("GET", "", None),
    ("PUT", "", {"task_name": "Mine"}),
    ("PATCH", "", {"task_name": "Mine"}),
    ("DELETE", "", None),
    ("POST", "/pause", None),
    ("POST", "/resume", None),
    ("POST", "/execute", None),
    ("GET", "/executions", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_another_users_task_is_as_good_as_not_there(
    me: Api, stranger: Api, devices: list[int], method: str, path: str, body: Any
) -> None:
    made = make(me, devices)
    foreign = stranger(method, f"/tasks/{made['id']}{path}", body)
    missing = stranger(method, f"/tasks/999999999{path}", body)
    huge = stranger(method, f"/tasks/{2**63}{path}", body)
    assert (foreign.status_code, missing.status_code, huge.status_code) == (404, 404, 404)
    assert foreign.json()["details"] == "schedule_not_found"
    same = foreign.text.replace(f"task {made['id']} ", "task 999999999 ")
    assert same == missing.text
    assert me("GET", f"/tasks/{made['id']}").json()["task_name"] == "Lock"


def test_a_stranger_counts_and_reaches_nothing_of_mine(
    me: Api, stranger: Api, devices: list[int]
) -> None:
    make(me, devices)
    assert stranger("GET", "/tasks").json() == []
    mine, theirs = me("GET", "/stats").json(), stranger("GET", "/stats").json()
    assert mine["total"] == len(me("GET", "/tasks").json()) >= 1
    assert mine["by_type"]["lock"] >= 1
    assert theirs["total"] == 0
    assert theirs["next_due"] == []
    assert theirs["executions"]["total"] == 0
    assert theirs["executions"]["last_24_hours"]["total"] == 0
    body = {"task_name": "x", "task_type": "lock", "device_ids": devices[:1]}
    answer = stranger("POST", "/tasks", body)
    assert (answer.status_code, answer.json()["details"]) == (404, "schedule_invalid")


def test_who_only_views_may_look_but_not_act(site: Any, me: Api, devices: list[int]) -> None:
    made = make(me, devices)
    viewer = uuid4()
    with site.connect() as conn:
        conn.execute(
            "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{view}')",
            (ME, viewer),
        )
    api = Api(site, viewer)
    assert api("GET", f"/tasks/{made['id']}").status_code == 200
    for method, path, body in CALLS[1:7]:
        answer = api(method, f"/tasks/{made['id']}{path}", body)
        assert (answer.status_code, answer.json()["details"]) == (403, "permission_missing")


@pytest.mark.parametrize("path", ["/tasks", "/tasks/1", "/stats"])
def test_without_a_good_token_nobody_gets_in(site: Any, path: str) -> None:
    past = int((datetime.now(UTC) - timedelta(minutes=1)).timestamp())
    unsigned = jwt.encode({"sub": str(ME), "role": "authenticated"}, "", algorithm="none")
    tokens = {
        None: "token_missing",
        "Basic abc": "token_missing",
        "Bearer nonsense": "token_refused",
        f"Bearer {unsigned}": "token_refused",
        f"Bearer {token(site, ME, exp=past)}": "token_expired",
        "Bearer " + jwt.encode({"sub": str(ME), "role": "authenticated", "exp": 2**33}, "f" * 40): (
            "token_refused"
        ),
        "Bearer " + jwt.encode({"sub": str(ME), "role": "x"}, site.settings.jwt_secret): (
            "token_refused"
        ),
    }
    for header, reason in tokens.items():
        headers = {"Authorization": header} if header else {}
        answer = httpx.get(f"{site.url}/functions/v1/api/schedule{path}", headers=headers)
        assert (answer.status_code, answer.json()["details"]) == (401, reason)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ["anon", "service_role", "postgres", ""])
def test_only_the_role_of_people_is_let_in(site: Any, role: str) -> None:
    headers = {"Authorization": f"Bearer {token(site, ME, role)}"}
    answer = httpx.get(f"{site.url}/functions/v1/api/schedule/tasks", headers=headers)
    assert (answer.status_code, answer.json()["details"]) == (403, "not_a_person")


@pytest.mark.parametrize(
    "claims", [{}, {"role": None}, {"role": "service_role"}, {"role": ["authenticated"]}, None]
)
def test_the_worker_cannot_get_more_by_claims_that_say_less(site: Any, claims: Any) -> None:
    with site.database.connect("fleet_worker") as worker:
        with pytest.raises(psycopg.Error) as caught:
            worker.execute(
                "select fleet.worker_as_user(%s, 'list_tasks')",
                (None if claims is None else json.dumps(claims),),
            )
    assert caught.value.sqlstate == "PT403"


def test_claims_do_not_outlive_their_call(site: Any, devices: list[int]) -> None:
    claims = json.dumps({"role": "authenticated", "sub": str(ME)})
    with site.database.connect("fleet_worker") as worker:
        worker.execute("select fleet.worker_as_user(%s, 'list_tasks')", (claims,))
        left = worker.execute("select current_setting('request.jwt.claims', true)").fetchone()
    assert left == ("",)


def test_a_device_is_no_person(site: Any) -> None:
    enrolled = site.enroll("laptop")
    headers = {"Authorization": f"Bearer {enrolled['access_token']}"}
    for path in ("/tasks", "/stats"):
        answer = httpx.get(f"{site.url}/functions/v1/api/schedule{path}", headers=headers)
        assert (answer.status_code, answer.json()["details"]) == (403, "not_a_person")


def test_a_token_of_an_imported_key_is_good(
    own_database: Any, free_port: Any, serving_site: Any, signing_key: Any
) -> None:
    private, public = signing_key
    options = {"jwt_private_key": private, "jwks": public}
    with serving_site(own_database, free_port(), **options) as site:
        claims = {"sub": str(ME), "role": "authenticated", "exp": 2**33}
        key = jwt.PyJWK(json.loads(private)).key
        good = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "imported-1"})
        unknown = jwt.encode(claims, key, algorithm="ES256", headers={"kid": "other"})
        statuses = [
            httpx.get(
                f"{site.url}/functions/v1/api/schedule/tasks",
                headers={"Authorization": f"Bearer {sent}"},
            ).status_code
            for sent in (good, unknown)
        ]
    assert statuses == [200, 401]


def test_a_token_of_a_key_that_the_project_publishes_is_good(
    own_database: Any, free_port: Any, serving_site: Any, signing_key: Any
) -> None:
    private, public = signing_key
    asked = []

    async def publish(_: Request) -> Response:
        asked.append(1)
        return JSONResponse(public)

    keys = Starlette(routes=[Route("/jwks.json", publish)])
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(keys, host=HOST, port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    options = {"jwks_url": f"http://{HOST}:{port}/jwks.json"}
    with serving_site(own_database, free_port(), **options) as site:
        claims = {"sub": str(ME), "role": "authenticated", "exp": 2**33}
        key = jwt.PyJWK(json.loads(private)).key
        statuses = [
            httpx.get(
                f"{site.url}/functions/v1/api/schedule/tasks",
                headers={"Authorization": f"Bearer {sent}"},
            ).status_code
            for sent in (
                jwt.encode(claims, key, algorithm="ES256", headers={"kid": "imported-1"}),
                jwt.encode(claims, key, algorithm="ES256", headers={"kid": "made-up"}),
                jwt.encode(claims, "f" * 40, algorithm="HS256", headers={"kid": "imported-1"}),
                token(site, ME),
            )
        ]
    server.should_exit = True
    thread.join(20)
    assert statuses == [200, 401, 401, 200]
    assert len(asked) == 1
