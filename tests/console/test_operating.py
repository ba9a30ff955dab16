"""Search, settings and usage, the audit log, webhooks and their messages."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.helpers.serving import serving

from pgfleet_console.app import create_local
from pgfleet_console.settings import ConsoleSettings
from pgfleet_console.viewers import OPERATOR


@pytest.fixture(scope="module")
def endpoint(a_school: Any) -> int:
    with a_school.fleet() as fleet:
        asked = {"url": "https://hooks.example.com/", "name": "ops", "events": ["run.*"]}
        made = fleet.value(
            "select create_webhook_endpoint(%s::jsonb || jsonb_build_object('owner_id', %s::text))",
            json.dumps(asked),
            str(a_school.owner),
        )
        return int(made["id"])


def test_the_fleet_is_searched_by_name_and_number(console: Any, a_school: Any) -> None:
    viewer = console("viewer")

    by_name = viewer.get("/search?q=LAB-0")
    assert by_name.count('href="/devices/') == 5 and "Schedules</h2>" not in by_name
    by_number = viewer.get(f"/search?q=%23{a_school.failed}")
    assert f'href="/commands/{a_school.failed}"' in by_number
    assert "Nothing is found" in viewer.get("/search?q=nowhere")
    assert "Nothing is found" in console("stranger").get("/search?q=lab")


def test_usage_and_people_are_shown_to_members(console: Any, a_school: Any) -> None:
    text = console("viewer").get("/settings")

    assert "School" in text and "devices</th>" in text
    assert "/settings/zone/" + str(a_school.owner) not in text
    assert "doorbell_rate" not in text, "the engine is its operator's"
    console("viewer").post(f"/settings/zone/{a_school.owner}", 403, timezone="Europe/Paris")


def test_an_admin_sets_the_time_zone(console: Any, a_school: Any) -> None:
    admin = console("admin")

    assert "time zone is set" in admin.do(f"/settings/zone/{a_school.owner}", timezone="Asia/Tokyo")
    assert 'value="Asia/Tokyo"' in admin.get("/settings")
    refused = admin.post(f"/settings/zone/{a_school.owner}", 422, timezone="Mars/Base")
    assert "Mars/Base" in refused.text and 'role="alert"' in refused.text
    admin.post("/settings/engine/doorbell_rate", 403, value="7")


def test_an_operator_sets_the_engine(a_school: Any, free_port: Any) -> None:
    port = free_port()
    app, door = create_local(ConsoleSettings(database_url=a_school.database.url()), OPERATOR, port)
    with serving(app, port) as url, httpx.Client(base_url=url, follow_redirects=True) as client:
        client.get(door.new_link())
        page = client.get("/settings").text
        csrf = page.split('name="csrf" content="')[1].split('"')[0]
        said = client.post("/settings/engine/doorbell_rate", data={"csrf": csrf, "value": "77"})
        refused = client.post("/settings/engine/no_such", data={"csrf": csrf, "value": "1"})

    assert "doorbell_rate is set" in said.text
    assert refused.status_code >= 400 and 'role="alert"' in refused.text
    with a_school.fleet() as fleet:
        assert fleet.value("select fleet.setting('doorbell_rate')") == 77


def test_the_audit_log_is_searched(console: Any, a_school: Any) -> None:
    viewer = console("viewer")

    found = viewer.http.get("/audit", params={"q": f"table:schedules row:{a_school.schedule}"}).text
    assert f"schedules #{a_school.schedule}" in found and "devices #" not in found
    assert "No change is found" in console("stranger").get("/audit?q=table:schedules")


def test_messages_are_sent_again(console: Any, a_school: Any, endpoint: int) -> None:
    admin = console("admin")

    sent = admin.post(f"/webhooks/{endpoint}/test").headers["location"]
    assert "A test is on its way" in admin.get(sent) and "webhook.test" in admin.get(sent)
    assert "goes out again" in admin.do(f"{sent}/again")
    assert "https://hooks.example.com/" in admin.get("/webhooks?q=status:pending+event:test")

    viewer = console("viewer")
    # What was sent is for all who look; where it went for those who may manage.
    listed = viewer.get("/webhooks")
    assert sent in listed and "Nobody is told, or you may not see who" in listed
    shown = viewer.get(sent)
    assert f"webhook.test to endpoint #{endpoint}" in shown and f"{sent}/again" not in shown
    assert "hooks.example.com" not in listed + shown
    viewer.post(f"{sent}/again", 403)
    assert "No message is found" in console("stranger").get("/webhooks")
    console("stranger").post(f"{sent}/again", 404)
    assert "told no more" in admin.do(f"/webhooks/{endpoint}/enable", enabled="false")
    assert "told again" in admin.do(f"/webhooks/{endpoint}/enable", enabled="true")
