"""Joins as clients of years ago write them, and frames that no client should be sent."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"


def test_a_join_without_a_config_hears_the_rows_that_its_topic_names(server: Any) -> None:
    wire = server.open()
    topic = "realtime:public:jobs:status=eq.queued"
    ref = wire.send(topic, "phx_join", {"user_token": server.sign(sub=ONE)}, ref="7")
    reply = wire.expect("phx_reply", lambda one: one.ref == ref).payload

    assert reply["status"] == "ok"
    [echoed] = reply["response"]["postgres_changes"]
    assert isinstance(echoed.pop("id"), int)
    assert echoed == {"schema": "public", "table": "jobs", "filter": "status=eq.queued"}
    assert wire.system("public:jobs:status=eq.queued")["message"] == "Subscribed to PostgreSQL"

    server.sql("insert into jobs (hostname, status) values ('one', 'done'), ('one', 'queued')")
    heard = wire.expect("INSERT")
    assert heard.topic == topic
    assert (heard.payload["table"], heard.payload["record"]["status"]) == ("jobs", "queued")
    assert "ids" not in heard.payload
    assert wire.settled() == []


def test_an_old_and_a_new_client_hear_one_change_each_in_its_own_shape(server: Any) -> None:
    token = server.sign(sub=ONE)
    old, new = server.open(vsn="2.0.0"), server.open(vsn="2.0.0")
    old.ask("realtime:public:jobs", "phx_join", {"access_token": token})
    assert old.system("public:jobs")["status"] == "ok"
    new.join("jobs", access_token=token, changes=[{"event": "*", "schema": "public"}])

    server.sql("insert into jobs (hostname) values ('one')")

    assert old.expect("INSERT").payload["record"]["hostname"] == "one"
    assert new.change()["data"]["record"]["hostname"] == "one"


@pytest.mark.parametrize(
    ("sent", "works"),
    [
        ({"user_token": "good"}, True),
        ({"access_token": "good"}, True),
        ({"user_token": "good", "access_token": "bad"}, True),
        ({"user_token": "bad", "access_token": "good"}, False),
        ({"user_token": None, "access_token": "good"}, True),
        ({"user_token": "good", "access_token": "sb_publishable_x"}, False),
        ({}, False),
    ],
)
def test_the_user_token_of_old_clients_comes_first(
    server: Any, sent: dict[str, Any], works: bool
) -> None:
    tokens = {"good": server.sign(sub=ONE), "bad": server.sign(sub=TWO)}
    payload = {name: tokens.get(str(value), value) for name, value in sent.items()}
    payload["config"] = {"private": True}

    reply = server.open().ask(f"realtime:device:{ONE}", "phx_join", payload)

    assert (reply["status"] == "ok") is works


@pytest.mark.parametrize("config", [None, [], "x", {"postgres_changes": None}, {"broadcast": 1}])
def test_a_config_that_cannot_be_read_asks_for_nothing(server: Any, config: Any) -> None:
    reply = server.open().ask("realtime:room", "phx_join", {"config": config})

    assert reply == {"status": "ok", "response": {"postgres_changes": []}}


def test_flags_may_be_texts(server: Any) -> None:
    wire = server.open()
    wire.join("echo", broadcast={"self": "True", "ack": "TRUE"})
    sent = {"type": "broadcast", "event": "e", "payload": {"a": 1}}

    assert wire.ask("realtime:echo", "broadcast", sent)["status"] == "ok"
    assert wire.broadcast()["payload"] == {"a": 1}


def test_a_wish_for_a_replay_is_refused_by_name(server: Any) -> None:
    reply = server.open().join(
        f"device:{ONE}",
        access_token=server.sign(sub=ONE),
        private=True,
        broadcast={"replay": {"since": 0}},
    )

    assert reply["status"] == "error"
    assert reply["response"]["reason"].startswith("UnableToReplayMessages: ")


FRAMES = [
    '{"topic":"realtime:room","event":"broadcast","ref":"9","payload":{"event":"e","payload":%s}}',
    '{"topic":"realtime:room","event":"presence","ref":"9","payload":{"event":"track","payload":%s}}',
]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    "value",
    ['{"a":"\\ud83d"}', '{"\\ud83d":1}', '{"a":NaN}', '{"a":-Infinity}', "[" * 5000 + "]" * 5000],
)
def test_what_no_client_can_read_is_passed_on_to_none(server: Any, frame: str, value: str) -> None:
    sender, listener = server.open(), server.open()
    for wire in (sender, listener):
        wire.join("room", broadcast={"self": True})

    sender.connection.send(frame % value)
    sender.send("realtime:room", "broadcast", {"event": "e", "payload": {"a": "\U0001f600"}})

    for wire in (sender, listener):
        assert wire.broadcast()["payload"] == {"a": "\U0001f600"}
        assert wire.settled() == []


def test_a_whole_character_in_two_halves_is_one(server: Any) -> None:
    wire = server.open()
    wire.join("room", broadcast={"self": True})
    wire.connection.send(FRAMES[0] % '{"a":"\\ud83d\\ude00"}')

    assert wire.broadcast()["payload"] == {"a": "\U0001f600"}


@pytest.mark.parametrize("path", ["/api/broadcast", "/api/broadcast/room/events/e"])
def test_half_a_character_by_http_is_refused(server: Any, path: str) -> None:
    body = '{"messages":[{"topic":"room","event":"e","payload":{"a":"\\ud83d"}}]}'
    answer = httpx.post(
        f"{server.url}/realtime/v1{path}",
        content=body,
        headers={"apikey": server.anon_key, "content-type": "application/json"},
    )

    assert answer.status_code == 400
