"""Broadcasts: from clients, from the database, from plain HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
HELLO = {"type": "broadcast", "event": "hello", "payload": {"y": 2}}


def ring(server: Any, topic: str, private: bool = True, **payload: Any) -> None:
    """Send from SQL, in a transaction of its own."""
    server.sql(
        "select realtime.send(jsonb_build_object('n', %s::int), 'command', %s, %s)",
        payload.get("n", 1),
        topic,
        private,
    )


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_a_device_hears_its_own_private_topic(server: Any, vsn: str) -> None:
    wire = server.open(vsn=vsn)
    wire.join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)

    ring(server, f"device:{ONE}", n=7)
    heard = wire.broadcast()

    assert (heard["type"], heard["event"], heard["payload"]["n"]) == ("broadcast", "command", 7)
    assert heard["meta"] == {"id": heard["payload"]["id"]}


def test_version_2_gets_database_messages_as_binary_frames(server: Any) -> None:
    wire = server.open(vsn="2.0.0")
    wire.join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)

    ring(server, f"device:{ONE}")

    assert isinstance(wire.connection.recv(timeout=5), bytes)


def test_private_and_public_topics_of_one_name_are_two(server: Any) -> None:
    topic = f"device:{ONE}"
    private, public = server.open(), server.open()
    private.join(topic, access_token=server.sign(sub=ONE), private=True)
    public.join(topic)

    ring(server, topic, private=False, n=1)
    ring(server, topic, private=True, n=2)

    assert private.broadcast()["payload"]["n"] == 2
    assert public.broadcast()["payload"]["n"] == 1
    assert private.settled() == public.settled() == []


def test_a_device_does_not_hear_another_topic(server: Any) -> None:
    wire = server.open()
    wire.join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)

    ring(server, f"device:{TWO}", n=1)
    ring(server, f"device:{ONE}", n=2)

    assert wire.broadcast()["payload"]["n"] == 2


def test_messages_come_in_the_order_of_their_commits(server: Any) -> None:
    wire = server.open()
    wire.join("queue")

    server.sql(
        "select realtime.send(jsonb_build_object('n', n), 'command', 'queue', false)"
        " from generate_series(1, 500) as n"
    )

    assert [wire.broadcast()["payload"]["n"] for _ in range(500)] == list(range(1, 501))


def test_a_rolled_back_message_is_not_heard(server: Any) -> None:
    wire = server.open()
    wire.join("room")

    with server.database.connect() as connection:
        connection.execute("select realtime.send('{\"n\": 1}', 'command', 'room', false)")
        connection.rollback()
    ring(server, "room", private=False, n=2)

    assert wire.broadcast()["payload"]["n"] == 2


def test_raw_bytes_reach_version_2_only(server: Any) -> None:
    old, new = server.open(vsn="1.0.0"), server.open(vsn="2.0.0")
    old.join("room")
    new.join("room")

    server.sql("select realtime.send_binary('\\xdeadbeef', 'raw', 'room', false)")
    ring(server, "room", private=False)

    assert new.broadcast()["payload"] == bytes.fromhex("deadbeef")
    assert old.broadcast()["event"] == "command"


def test_clients_hear_each_other_but_not_themselves(server: Any) -> None:
    speaker, listener, other = server.open(), server.open(vsn="2.0.0"), server.open()
    speaker.join("room")
    listener.join("room")
    other.join("elsewhere")

    speaker.send("realtime:room", "broadcast", HELLO)

    assert listener.broadcast() == HELLO
    assert speaker.settled() == other.settled() == []


def test_a_client_hears_itself_when_it_asks_to(server: Any) -> None:
    wire = server.open()
    wire.join("room", broadcast={"self": True, "ack": True})

    assert wire.ask("realtime:room", "broadcast", HELLO) == {"status": "ok", "response": {}}
    assert wire.broadcast() == HELLO


def test_a_binary_push_is_understood(server: Any) -> None:
    speaker, listener = server.open(vsn="2.0.0"), server.open()
    speaker.join("room")
    listener.join("room")

    header = bytes([3, 1, 1, 13, 5, 0, 1])
    speaker.connection.send(header + b"11realtime:roomhello" + b'{"y":2}')

    assert listener.broadcast() == HELLO


def test_sending_on_a_private_topic_needs_an_insert_policy(own_server: Any) -> None:
    """The owner may say hello; service_role hears it; anyone else is ignored without a word."""
    listener, owner = own_server.open(), own_server.open()
    listener.join(f"device:{ONE}", access_token=own_server.service_key, private=True)
    owner.join(f"device:{ONE}", access_token=own_server.sign(sub=ONE), private=True)
    own_server.sql("create policy all_read on realtime.messages for select to anon using (true)")
    stranger = own_server.open()
    stranger.join(f"device:{ONE}", private=True, broadcast={"ack": True})

    stranger.send(f"realtime:device:{ONE}", "broadcast", HELLO | {"event": "evil"})
    assert stranger.settled() == []
    owner.send(f"realtime:device:{ONE}", "broadcast", HELLO)

    assert listener.broadcast() == HELLO


def test_http_broadcasts_one_message(server: Any) -> None:
    wire = server.open()
    wire.join("device:d 1")

    answer = httpx.post(
        f"{server.url}/realtime/v1/api/broadcast/device%3Ad%201/events/task%2Fx",
        headers={"apikey": server.anon_key},
        json={"x": 1},
    )

    heard = wire.broadcast()
    assert (answer.status_code, answer.content) == (202, b"")
    assert (heard["event"], heard["payload"]) == ("task/x", {"x": 1})


def test_http_broadcasts_a_batch_and_drops_what_policies_refuse(server: Any) -> None:
    public, private = server.open(), server.open()
    public.join("room")
    private.join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)
    message = {"event": "hello", "payload": {"y": 2}}
    own = message | {"topic": f"device:{ONE}", "private": True}

    def post(bearer: str, *messages: dict[str, Any]) -> int:
        return httpx.post(
            f"{server.url}/realtime/v1/api/broadcast",
            headers={"apikey": server.anon_key, "Authorization": f"Bearer {bearer}"},
            json={"messages": messages},
        ).status_code

    assert post(server.sign(sub=TWO), own | {"payload": {"y": 1}}) == 202
    assert post(server.sign(sub=ONE), own, message | {"topic": "room"}) == 202

    assert private.broadcast()["payload"] == {"y": 2}
    assert public.broadcast()["payload"] == {"y": 2}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, {"messages": []}, 401),
        ({"apikey": "nonsense"}, {"messages": []}, 401),
        ({"apikey": "key"}, {"messages": "none"}, 422),
        ({"apikey": "key"}, {"messages": [{"topic": "t"}]}, 422),
    ],
)
def test_http_refuses_bad_requests(
    server: Any, headers: dict[str, str], body: Any, status: int
) -> None:
    headers = {k: server.anon_key if v == "key" else v for k, v in headers.items()}

    answer = httpx.post(f"{server.url}/realtime/v1/api/broadcast", headers=headers, json=body)

    assert answer.status_code == status
    assert answer.json()["message"]
