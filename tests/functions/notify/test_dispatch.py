"""Messages on their way: real receivers, the real function, the real database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from standardwebhooks import Webhook

from pgfleet_local.settings import HOST


def test_a_message_is_delivered_once_and_its_signature_verifies(
    site: Any, owner: UUID, receive: Any
) -> None:
    receiver = receive()
    endpoint = site.endpoint(owner, url=receiver.url)
    site.emit(owner, "run.failed", run_id=7, schedule_name="Nächtlich")

    counts = site.poke()
    again = site.poke()

    [(headers, body)] = receiver.requests
    event = Webhook(endpoint["secret"]).verify(body, headers)
    delivery = site.delivery(endpoint)
    assert (counts, again) == ({"delivered": 1}, {})
    assert (event["type"], event["data"]) == (
        "run.failed",
        {"run_id": 7, "schedule_name": "Nächtlich"},
    )
    assert headers["webhook-id"] == delivery["event_id"]
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"{HOST}:{receiver.port}"
    assert (delivery["status"], delivery["attempts"], delivery["last_status"]) == (
        "delivered",
        1,
        200,
    )
    assert delivery["delivered_at"] is not None


def test_any_2xx_is_a_success(site: Any, owner: UUID, receive: Any) -> None:
    endpoint = site.endpoint(owner, url=receive(204).url)
    site.emit(owner)
    site.poke()
    assert site.delivery(endpoint)["status"] == "delivered"


def test_it_is_tried_again_after_an_error_under_the_same_id_and_a_new_time(
    site: Any, owner: UUID, receive: Any
) -> None:
    receiver = receive(500, 503, 200)
    endpoint = site.endpoint(owner, url=receiver.url)
    site.emit(owner, run_id=1)

    assert site.poke() == {"pending": 1}
    after = site.delivery(endpoint)
    assert (after["status"], after["last_error"]) == ("pending", "answered 500")
    assert site.poke() == {}, "it is not due yet"
    site.hurry()
    site.poke()
    site.hurry()
    assert site.poke() == {"delivered": 1}

    ids = {headers["webhook-id"] for headers, _ in receiver.requests}
    assert len(ids) == 1
    assert len({body for _, body in receiver.requests}) == 1
    for headers, body in receiver.requests:
        Webhook(endpoint["secret"]).verify(body, headers)
    assert site.delivery(endpoint)["attempts"] == 3


def test_a_receiver_that_asks_for_time_gets_it(site: Any, owner: UUID, receive: Any) -> None:
    endpoint = site.endpoint(owner, url=receive(429, **{"Retry-After": "3000"}).url)
    site.emit(owner)
    site.poke()
    wait = site.value(
        "select extract(epoch from next_attempt_at - last_attempt_at)::int"
        " from webhook_deliveries where endpoint_id = %s",
        endpoint["id"],
    )
    assert 2990 <= wait <= 3010


def test_gone_means_stop(site: Any, owner: UUID, receive: Any) -> None:
    receiver = receive(410)
    endpoint = site.endpoint(owner, url=receiver.url)
    site.emit(owner, run_id=1)
    site.emit(owner, "run.completed", run_id=2)

    site.poke()
    site.emit(owner, run_id=3)
    site.hurry()
    site.poke()

    found = site.run(
        "select enabled, disabled_reason from webhook_endpoints where id = %s", endpoint["id"]
    )
    statuses = site.run(
        "select distinct status from webhook_deliveries where endpoint_id = %s", endpoint["id"]
    )
    assert found == [(False, "the receiver answered 410 Gone")]
    assert statuses == [("failed",)]
    assert {body["data"]["run_id"] for body in receiver.bodies} <= {1, 2}


def test_redirects_are_not_followed(site: Any, owner: UUID, receive: Any) -> None:
    elsewhere = receive()
    receiver = receive(307, Location=elsewhere.url)
    endpoint = site.endpoint(owner, url=receiver.url)
    site.emit(owner)
    site.poke()
    assert elsewhere.requests == []
    assert site.delivery(endpoint)["last_error"] == "answered 307: redirects are not followed"


def test_a_receiver_that_is_not_there_is_tried_again(
    site: Any, owner: UUID, free_port: Callable[[], int]
) -> None:
    endpoint = site.endpoint(owner, url=f"http://{HOST}:{free_port()}/")
    site.emit(owner)
    site.poke()
    found = site.delivery(endpoint)
    assert (found["status"], found["last_status"]) == ("pending", None)
    assert found["last_error"].startswith("ConnectError")


def test_a_slow_receiver_does_not_hold_up_the_others(
    site: Any, owner: UUID, receive: Any, waiting: Any
) -> None:
    slow, fast = receive(), receive()
    slow.open.clear()
    site.endpoint(owner, url=slow.url, events=["run.failed"])
    endpoint = site.endpoint(owner, url=fast.url, events=["run.completed"])
    for number in range(20):
        site.emit(owner, "run.failed", number=number)
    site.emit(owner, "run.completed")
    began = time.monotonic()
    assert site.wake() == 202
    assert time.monotonic() - began < 1, "who pokes is not kept waiting"
    waiting(lambda: site.delivery(endpoint)["status"] == "delivered")
    assert len(slow.requests) == 2
    slow.open.set()
    waiting(lambda: site.poke() == {})
    assert sorted(body["data"]["number"] for body in slow.bodies) == list(range(20))


def test_a_message_is_sent_again_on_demand_under_its_id(
    site: Any, owner: UUID, receive: Any
) -> None:
    receiver = receive()
    endpoint = site.endpoint(owner, url=receiver.url)
    site.emit(owner)
    site.poke()
    first = site.delivery(endpoint)

    site.run("select redeliver(%s)", first["id"])
    assert site.poke() == {"delivered": 1}

    assert [headers["webhook-id"] for headers, _ in receiver.requests] == [first["event_id"]] * 2
    assert site.delivery(endpoint)["attempts"] == 2


def test_an_endpoint_can_be_tried_out_whatever_it_asks_for(
    site: Any, owner: UUID, receive: Any
) -> None:
    receiver = receive()
    endpoint = site.endpoint(owner, url=receiver.url, events=["run.failed"], name="ops")
    site.run("select test_webhook_endpoint(%s)", endpoint["id"])
    site.poke()
    [body] = receiver.bodies
    assert (body["type"], body["data"]["name"]) == ("webhook.test", "ops")


def test_both_secrets_sign_while_one_is_being_replaced(
    site: Any, owner: UUID, receive: Any
) -> None:
    receiver = receive()
    endpoint = site.endpoint(owner, url=receiver.url)
    new = site.value("select rotate_webhook_secret(%s)", endpoint["id"])
    site.emit(owner)
    site.poke()
    [(headers, body)] = receiver.requests
    Webhook(endpoint["secret"]).verify(body, headers)
    Webhook(new["secret"]).verify(body, headers)
    assert len(headers["webhook-signature"].split(" ")) == 2


KILLED = """
import sys
import time
from pgfleet.main import app
app(["functions", "run", "--port", sys.argv[1]])
"""
POKE = """
import json, os, httpx
body = json.dumps({"at": "now"})
answer = httpx.post(
    os.environ["URL"] + "/notify-dispatch", content=body, timeout=60,
    headers={"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["POKE"]},
)
assert answer.status_code == 202, answer.text
"""


def poke_environment(site: Any, url: str | None = None) -> dict[str, str]:
    token = site.value("select fleet.sign_poke('notify-dispatch', '{\"at\": \"now\"}')")
    return {**os.environ, "URL": url or site.url, "POKE": token}


def test_a_function_that_is_killed_in_the_middle_loses_nothing(
    site: Any, owner: UUID, receive: Any, free_port: Callable[[], int], waiting: Any
) -> None:
    receiver = receive()
    receiver.open.clear()
    endpoint = site.endpoint(owner, url=receiver.url)
    site.emit(owner, run_id=1)
    port = free_port()
    url = f"http://{HOST}:{port}"
    environment = {
        **os.environ,
        "PGFLEET_FUNCTIONS_DATABASE_URL": site.database.url("fleet_worker"),
        "SUPABASE_JWT_SECRET": site.settings.jwt_secret,
    }
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(port)],
        env=environment,
        stderr=subprocess.DEVNULL,
    ) as functions:
        waiting(lambda: answers(f"{url}/health"))
        with subprocess.Popen(
            [sys.executable, "-c", POKE],
            env=poke_environment(site, url),
            stderr=subprocess.DEVNULL,
        ):
            waiting(lambda: receiver.requests)
            functions.send_signal(signal.SIGKILL)
    receiver.open.set()

    assert site.delivery(endpoint)["status"] == "running"
    assert site.poke() == {}, "it is under the lease of the one that was killed"
    site.hurry()
    assert site.poke() == {"delivered": 1}
    found = site.delivery(endpoint)
    assert (found["status"], found["attempts"]) == ("delivered", 2)
    ids = {headers["webhook-id"] for headers, _ in receiver.requests}
    assert ids == {found["event_id"]}


def answers(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.HTTPError:
        return False
    return True


def test_only_the_database_may_poke(site: Any) -> None:
    answer = httpx.post(f"{site.url}/notify-dispatch", json={})
    assert (answer.status_code, answer.json()["details"]) == (401, "poke_token_missing")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:{port}/", "only https:// addresses are allowed"),
        ("https://127.0.0.1:{port}/", "the host 127.0.0.1 stands for the private address"),
        ("https://[::1]:{port}/", "the host ::1 stands for the private address ::1"),
        ("https://localhost:{port}/", "the host localhost stands for the private address"),
        ("https://127.1:{port}/", "the host 127.1 stands for the private address 127.0.0.1"),
        ("https://2130706433:{port}/", "the host 2130706433 stands for the private address"),
    ],
)
def test_private_addresses_are_refused_also_when_a_message_is_sent(
    site: Any, owner: UUID, receive: Any, url: str, error: str
) -> None:
    receiver = receive()
    endpoint = site.endpoint(owner, url=url.format(port=receiver.port))
    site.emit(owner)
    site.run("select fleet.set_setting('webhook_allow_private', 'false')")
    try:
        assert site.poke() == {"failed": 1}
    finally:
        site.run("select fleet.set_setting('webhook_allow_private', 'true')")
    found = site.delivery(endpoint)
    assert found["last_error"].startswith(error)
    assert receiver.requests == []


def test_the_worker_can_read_neither_messages_nor_secrets(site: Any) -> None:
    with site.database.connect("fleet_worker") as worker:
        for table in ("public.webhook_deliveries", "fleet.webhook_secrets"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(f"select * from {table}")
            worker.rollback()
