"""The REST paths of a task scheduler, called as its users call them: by curl, with their JWT."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from tests.helpers.task_api import ADDRESSES, ME, Api, make, token

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


WRONG_FIELDS = [
    ({"task_name": " "}, "task_type"),
    ({}, "task_type"),
    ({"task_name": "x", "task_type": "lock", "scheduled_time": "soon"}, "scheduled_time"),
    ({"task_name": 5, "task_type": "lock"}, "task_name"),
    ({"task_type": "command", "command_payload": {"shell": "cmd"}}, "command_payload.command"),
    ({"task_type": "command"}, "command_payload.command"),
    ({"task_type": "software_deployment", "software_payload": {}}, "software_payload.software_ids"),
    ({"task_type": "file_deployment", "file_payload": {"file_ids": 1}}, "file_payload.file_ids"),
    ({"task_type": "command", "command_payload": "dir"}, "command_payload"),
    ({"action_type": "nothing", "name": "x"}, "action_type"),
    ({"task_type": "run_command", "payload": {}}, "payload.command"),
]


@pytest.mark.parametrize(("body", "field"), WRONG_FIELDS)
def test_an_error_names_the_field_that_was_sent(
    me: Api, devices: list[int], body: dict[str, Any], field: str
) -> None:
    answer = me("POST", "/tasks", {"device_ids": devices, **body})
    assert answer.status_code == 422, answer.text
    assert f"{field}: " in answer.json()["message"]
    made = make(me, devices)
    changed = me("PATCH", f"/tasks/{made['id']}", {**body, "device_ids": devices})
    if body.get("task_name") != " " and body != {} and set(body) != {"task_type"}:
        assert f"{field}: " in changed.json()["message"]


def test_hints_say_what_to_call_over_rest(me: Api, devices: list[int]) -> None:
    made = make(me, devices)
    me("DELETE", f"/tasks/{made['id']}")
    answers = [
        me("POST", "/tasks", {"task_name": "x", "task_type": "lock", "device_ids": [10**9]}),
        me("POST", "/tasks", {"task_name": "x", "task_type": "lock", "group_ids": [10**9]}),
        me("POST", "/tasks", {"task_type": "nothing", "device_ids": devices}),
        me("GET", f"/tasks/{made['id']}"),
        me("POST", f"/tasks/{made['id']}/pause"),
    ]
    for answer in answers:
        hint = answer.json()["hint"]
        assert hint and "pgfleet" not in hint and "select * from" not in hint, answer.text
    assert "/rest/v1/device_list" in answers[0].json()["hint"]
    assert answers[3].json()["message"] == f"task {made['id']} was not found"


@pytest.mark.parametrize("task", ["abc", "-1", "1.5", "٣", str(2**63)])
def test_what_is_no_id_is_no_task(me: Api, task: str) -> None:
    for method, path in (("GET", ""), ("POST", "/pause"), ("GET", "/history")):
        answer = me(method, f"/tasks/{task}{path}")
        assert (answer.status_code, answer.json()["details"]) == (404, "schedule_not_found")
        assert "GET /tasks" in answer.json()["hint"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("status=done", "skipped"),
        ("task_type=nothing", "software_deployment"),
        ("task_type=run_command", "command"),
        ("stauts=paused", "status"),
    ],
)
def test_a_filter_that_can_find_nothing_is_refused(me: Api, query: str, word: str) -> None:
    answer = me("GET", f"/tasks?{query}")
    assert (answer.status_code, answer.json()["details"]) == (422, "query_invalid")
    assert word in answer.json()["hint"]


def test_history_is_another_name_for_executions(me: Api, devices: list[int]) -> None:
    made = make(me, devices)
    run = me("POST", f"/tasks/{made['id']}/execute").json()
    told = me("GET", f"/tasks/{made['id']}/history?limit=5")
    assert [row["id"] for row in told.json()] == [run["id"]]
    assert told.json() == me("GET", f"/tasks/{made['id']}/executions").json()


def test_a_task_of_the_past_is_skipped_and_says_why(me: Api, devices: list[int]) -> None:
    made = make(
        me, devices, recurrence_type="once", recurrence_config={}, scheduled_time="2025-01-01T10:00"
    )
    assert (made["status"], made["error_message"]) == ("skipped", "outside the catch-up window")
    assert made["id"] in {task["id"] for task in me("GET", "/tasks?status=skipped").json()}


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
    for name in ("task_type: ", "timezone: ", "device_ids: "):
        assert name in answer.json()["message"]
    assert "action_type" not in answer.text
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


def test_the_description_is_valid_and_names_every_path(site: Any, me: Api) -> None:
    answer = httpx.get(f"{site.url}/functions/v1/schedule-api/openapi.json")
    document = answer.json()
    validate(document)
    base = httpx.URL(str(answer.url)).join(document["servers"][0]["url"])
    assert httpx.get(f"{base}/tasks", headers=me.headers).status_code == 200
    assert set(document["paths"]) == {
        *("/tasks", "/tasks/{id}", "/tasks/{id}/pause", "/tasks/{id}/resume"),
        *("/tasks/{id}/execute", "/tasks/{id}/executions", "/tasks/{id}/history", "/stats"),
    }
    shown = document["components"]["schemas"]
    assert set(shown["Task"]["required"]) == COLUMNS
    assert set(shown["Execution"]["required"]) == EXECUTION
