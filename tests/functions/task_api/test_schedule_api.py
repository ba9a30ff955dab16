"""The REST paths of a task scheduler, called as its users call them: by curl, with their JWT."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest
import uvicorn
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pgfleet_local.settings import HOST

ME, STRANGER = UUID(int=301), UUID(int=302)
COLUMNS = {
    *("id", "task_name", "task_type", "status", "scheduled_time", "recurrence_type"),
    *("recurrence_config", "device_ids", "group_ids", "payload", "created_by", "created_at"),
    *("updated_at", "last_execution", "next_execution", "execution_count", "last_result"),
    "error_message",
}
EXECUTION = {
    *("id", "task_id", "execution_time", "completed_time", "status", "deployment_id", "result"),
    "error_message",
}
ADDRESSES = ["/schedule-api", "/schedule-api/api/schedule", "/api/schedule"]


def token(site: Any, user: UUID | str, role: str = "authenticated", **claims: Any) -> str:
    soon = int((datetime.now(UTC) + timedelta(minutes=10)).timestamp())
    known = {"sub": str(user), "role": role, "aud": "authenticated", "exp": soon}
    return jwt.encode({**known, **claims}, site.settings.jwt_secret)


class Api:
    """The API as one caller."""

    def __init__(self, site: Any, user: UUID, address: str = "/api/schedule") -> None:
        self.base = f"{site.url}/functions/v1{address}"
        self.headers = {"Authorization": f"Bearer {token(site, user)}"}

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        headers = {**self.headers, **options.pop("headers", {})}
        return httpx.request(method, self.base + path, json=body, headers=headers, **options)


@pytest.fixture
def me(site: Any) -> Api:
    return Api(site, ME)


@pytest.fixture
def stranger(site: Any) -> Api:
    return Api(site, STRANGER)


@pytest.fixture(scope="module")
def devices(site: Any) -> list[int]:
    """Give me three devices and one group."""
    with site.connect() as conn:
        conn.execute("insert into owners (id, name) values (%s, 'me')", (ME,))
        return [
            conn.execute(
                "insert into devices (owner_id, hostname) values (%s, %s) returning id",
                (ME, f"pc-{number}"),
            ).fetchone()[0]
            for number in range(3)
        ]


def make(api: Api, devices: list[int], **more: Any) -> dict[str, Any]:
    answer = api(
        "POST",
        "/tasks",
        {
            "task_name": "Lock",
            "task_type": "lock",
            "recurrence_type": "daily",
            "recurrence_config": {"type": "daily", "time": "06:30"},
            "device_ids": devices,
            **more,
        },
    )
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def curl(site: Any, method: str, path: str, body: str | None = None) -> Any:
    words = [
        *("curl", "-sS", "-X", method, f"{site.url}/functions/v1/api/schedule{path}"),
        *("-H", f"Authorization: Bearer {token(site, ME)}"),
    ]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


SYSTEM_INFO = """{
    "task_name": "System Info Check",
    "task_type": "command",
    "scheduled_time": "2025-10-26T15:00:00",
    "recurrence_type": "once",
    "device_ids": [%s, %s],
    "command_payload": {
      "command": "systeminfo",
      "shell": "cmd"
    }
  }"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_calls_of_a_task_scheduler_work_with_curl(site: Any, devices: list[int]) -> None:
    made = curl(site, "POST", "/tasks", SYSTEM_INFO % tuple(devices[:2]))
    assert (made["task_name"], made["task_type"]) == ("System Info Check", "command")
    assert made["scheduled_time"].startswith("2025-10-26T15:00:00")
    assert made["warnings"]

    listed = curl(site, "GET", "/tasks")
    assert made["id"] in [task["id"] for task in listed]
    assert curl(site, "GET", f"/tasks/{made['id']}")["payload"] == {
        "command": "systeminfo",
        "shell": "cmd",
    }
    run = curl(site, "POST", f"/tasks/{made['id']}/execute")
    assert (run["task_id"], run["status"]) == (made["id"], "running")


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_address_leads_to_the_same_tasks(site: Any, devices: list[int], address: str) -> None:
    api = Api(site, ME, address)
    made = make(api, devices)
    assert set(made) >= COLUMNS
    found = api("GET", f"/tasks/{made['id']}").json()
    assert {key: found[key] for key in COLUMNS} == {key: made[key] for key in COLUMNS}
    assert api("GET", "/stats").status_code == 200


def test_a_task_lives_through_all_its_verbs(me: Api, devices: list[int]) -> None:
    made = make(me, devices)
    path = f"/tasks/{made['id']}"

    paused = me("POST", f"{path}/pause").json()
    resumed = me("POST", f"{path}/resume").json()
    assert (paused["status"], resumed["status"]) == ("paused", "pending")

    changed = me("PUT", path, {"task_name": "Lock all", "device_ids": devices[:1]}).json()
    patched = me("PATCH", path, {"recurrence_config": {"time": "07:00"}}).json()
    assert (changed["task_name"], changed["device_ids"]) == ("Lock all", devices[:1])
    assert patched["recurrence_config"]["time"] == "07:00"
    assert patched["next_execution"] != made["next_execution"]

    key = {"Idempotency-Key": "once"}
    first = me("POST", f"{path}/execute", headers=key).json()
    again = me("POST", f"{path}/execute", headers=key).json()
    assert set(first) >= EXECUTION
    assert first["id"] == again["id"]

    history = me("GET", f"{path}/executions").json()
    assert [(run["id"], run["task_id"]) for run in history] == [(first["id"], made["id"])]

    assert me("DELETE", path).json() == {"id": made["id"], "deleted": True}
    assert me("GET", path).status_code == 404


def test_lists_are_filtered_and_paged(me: Api, devices: list[int]) -> None:
    ids = [make(me, devices, task_name=f"Task {number}")["id"] for number in range(3)]
    me("POST", f"/tasks/{ids[0]}/pause")
    every = [task["id"] for task in me("GET", "/tasks").json()]
    paused = [task["id"] for task in me("GET", "/tasks?status=paused").json()]
    locks = {task["task_type"] for task in me("GET", "/tasks?task_type=lock").json()}
    page = [task["id"] for task in me("GET", "/tasks?limit=2&offset=1").json()]
    assert ids[0] in paused and ids[1] not in paused
    assert locks == {"lock"}
    assert page == every[1:3]
    for query in ("limit=0", "limit=x", "limit=1001", "offset=-1", "limit=99999999999"):
        answer = me("GET", f"/tasks?{query}")
        assert (answer.status_code, answer.json()["details"]) == (422, "query_invalid")


def test_every_wrong_field_of_a_task_is_named(me: Api, devices: list[int]) -> None:
    answer = me("POST", "/tasks", {"task_type": "nothing", "timezone": "Mars", "device_ids": "x"})
    assert (answer.status_code, answer.json()["details"]) == (422, "schedule_invalid")
    for name in ("action_type", "timezone", "device_ids"):
        assert name in answer.json()["message"]
    made = make(me, devices)
    wrong = me("PATCH", f"/tasks/{made['id']}", {"recurrence_config": {"time": "25:99"}})
    assert wrong.status_code == 422
    for body in ("[]", "nonsense", '"text"'):
        sent = httpx.post(
            f"{me.base}/tasks",
            content=body,
            headers={**me.headers, "Content-Type": "application/json"},
        )
        assert (sent.status_code, sent.json()["details"]) == (400, "body_unreadable")


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
    same = foreign.text.replace(str(made["id"]), "999999999")
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


def test_the_description_is_valid_and_names_every_path(site: Any, me: Api) -> None:
    answer = httpx.get(f"{site.url}/functions/v1/schedule-api/openapi.json")
    document = answer.json()
    validate(document)
    base = httpx.URL(str(answer.url)).join(document["servers"][0]["url"])
    assert httpx.get(f"{base}/tasks", headers=me.headers).status_code == 200
    assert set(document["paths"]) == {
        *("/tasks", "/tasks/{id}", "/tasks/{id}/pause", "/tasks/{id}/resume"),
        *("/tasks/{id}/execute", "/tasks/{id}/executions", "/stats"),
    }
    shown = document["components"]["schemas"]
    assert set(shown["Task"]["required"]) == COLUMNS
    assert set(shown["Execution"]["required"]) == EXECUTION
