"""Managing schedules over HTTP, as a signed-in person's script does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.helpers.running_stack import RunningStack

Call = Callable[..., Any]
DAILY = {
    "action_type": "lock",
    "recurrence_type": "daily",
    "recurrence_config": {"time": "06:30"},
    "start_time": "2999-01-01T00:00:00",
    "selector": {},
}


class Caller:
    """A person's session with the REST interface."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def rpc(self, function: str, expect: int = 200, **arguments: Any) -> Any:
        """Call a function by its named arguments."""
        answer = self.http.post(f"/rpc/{function}", json=arguments)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """Read rows."""
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def sign(stack: RunningStack) -> Iterator[Callable[[UUID], Caller]]:
    """Give a function that signs a person in."""
    clients: list[httpx.Client] = []

    def enter(person: UUID) -> Caller:
        headers = {
            "apikey": stack.settings.anon_key,
            "authorization": f"Bearer {stack.token(person)}",
        }
        clients.append(
            httpx.Client(base_url=f"{stack.settings.api_url}/rest/v1", headers=headers, timeout=30)
        )
        return Caller(clients[-1])

    yield enter
    for client in clients:
        client.close()


def test_every_verb_is_a_call_of_a_person(sign: Callable[[UUID], Caller]) -> None:
    me = sign(uuid4())
    made = me.rpc("create_schedule", p_spec={"name": "nightly", **DAILY})
    changed = me.rpc("update_schedule", p_schedule_id=made["id"], p_changes={"priority": 5})
    assert changed["priority"] == 5
    copy = me.rpc("duplicate_schedule", p_schedule_id=made["id"])
    assert copy["name"] == "nightly (copy)"
    counted = me.rpc("bulk_schedules", p_action="resume", p_filter={"name": "%copy%"})
    assert (counted["count"], counted["changed"]) == (1, 0)
    done = me.rpc("bulk_schedules", p_action="resume", p_filter={"name": "%copy%"}, p_dry_run=False)
    assert done["changed"] == 1

    calendar = me.rpc(
        "create_blackout_calendar", p_name="holidays", p_periods=[{"starts_on": "2999-12-25"}]
    )
    me.rpc("import_blackouts", p_name="holidays", p_periods=[{"starts_on": "2999-12-26"}])
    periods = me.get(f"/blackout_periods?calendar_id=eq.{calendar['id']}")
    assert [row["starts_on"] for row in periods] == ["2999-12-26"]

    template = {
        "name": "t",
        "spec": {"name": "{{n}}", **DAILY},
        "parameters": {"n": {"type": "string"}},
    }
    assert me.rpc("create_template", p_template=template)["version"] == 1
    assert me.rpc("instantiate_template", p_name="t", p_parameters={"n": "x"})["name"] == "x"

    document = me.rpc("export_schedules")
    assert [row["name"] for row in document["schedules"]] == ["nightly", "nightly (copy)", "x"]
    assert me.rpc("apply_document", p_document=document)["unchanged"] == 5
    assert me.rpc("delete_template", p_name="t") == 1

    me.rpc("run_schedule", p_schedule_id=made["id"])
    assert len(me.rpc("schedule_history", p_schedule_id=made["id"])) == 1
    assert me.rpc("schedule_stats")["total"] == 3
    assert len(me.get("/scheduled_tasks?select=id,task_name,status")) == 3
    assert len(me.get(f"/scheduled_task_executions?task_id=eq.{made['id']}")) == 1
    log = me.get(f"/audit_log?table_name=eq.schedules&row_id=eq.{made['id']}&order=id")
    assert [row["action"] for row in log] == ["insert", "update"]
    assert me.rpc("delete_schedule", p_schedule_id=copy["id"])["name"] == "nightly (copy)"
    assert me.rpc("delete_blackout_calendar", p_calendar_id=calendar["id"])["name"] == "holidays"


def test_a_stranger_gets_404_and_empty_lists(sign: Callable[[UUID], Caller]) -> None:
    me, stranger = sign(uuid4()), sign(uuid4())
    made = me.rpc("create_schedule", p_spec={"name": "mine", **DAILY})
    for function, more in (
        ("update_schedule", {"p_changes": {}}),
        ("delete_schedule", {}),
        ("duplicate_schedule", {}),
        ("schedule_history", {}),
    ):
        error = stranger.rpc(function, 404, p_schedule_id=made["id"], **more)
        assert error["details"] == "schedule_not_found"
        assert error["hint"]
    chained = {"name": "chained", **DAILY, "after": {"schedule_id": made["id"]}}
    assert stranger.rpc("create_schedule", 404, p_spec=chained)["details"] == "schedule_invalid"
    for path in ("/scheduled_tasks", "/scheduled_task_executions", "/schedule_templates"):
        assert stranger.get(path) == []
    assert stranger.get("/audit_log?table_name=eq.schedules") == []
    assert stranger.rpc("schedule_stats")["total"] == 0


def test_views_and_the_log_are_read_only(sign: Callable[[UUID], Caller]) -> None:
    me = sign(uuid4())
    me.rpc("create_schedule", p_spec={"name": "mine", **DAILY})
    for path in ("/scheduled_tasks", "/audit_log", "/schedule_templates"):
        answer = me.http.patch(f"{path}?id=gt.0", json={"status": "x"})
        assert answer.status_code >= 400
        assert me.http.delete(f"{path}?id=gt.0").status_code >= 400
