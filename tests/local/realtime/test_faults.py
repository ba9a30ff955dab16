"""The switches that break the server on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

JOBS = {"event": "INSERT", "schema": "public", "table": "jobs"}
ONE = "11111111-1111-4111-8111-111111111111"


def say(server: Any, *texts: str) -> None:
    """Broadcast to the public room, one transaction each."""
    for text in texts:
        server.sql(
            "select realtime.send(jsonb_build_object('t', %s::text), 'say', 'room', false)", text
        )


def post(server: Any, text: str) -> None:
    """Broadcast over HTTP: it has been handed out when the answer is there."""
    httpx.post(
        f"{server.url}/realtime/v1/api/broadcast/room/events/say",
        headers={"apikey": server.anon_key},
        json={"t": text},
    )


@pytest.fixture(autouse=True)
def healthy(server: Any) -> Iterator[None]:
    """Turn every switch off again."""
    yield
    httpx.delete(f"{server.url}/realtime/v1/faults", headers={"apikey": server.service_key})


def joined(server: Any) -> Any:
    """Join the public room."""
    wire = server.open()
    wire.join("room")
    return wire


@pytest.mark.parametrize(("key", "status"), [("anon", 403), ("none", 401)])
def test_only_service_role_may_break_things(server: Any, key: str, status: int) -> None:
    headers = {"apikey": server.anon_key} if key == "anon" else {}

    answer = httpx.post(
        f"{server.url}/realtime/v1/faults", json={"set": {"frozen": True}}, headers=headers
    )

    assert answer.status_code == status
    assert not server.realtime.faults.frozen


@pytest.mark.parametrize(
    "body",
    [
        {"set": {"nosuch": 1}},
        {"set": {"frozen": "yes"}},
        {"set": {"join_delay": -1}},
        {"set": {"_changed": 1}},
        {"set": []},
        [],
    ],
)
def test_unknown_switches_and_values_are_refused(server: Any, body: Any) -> None:
    answer = httpx.post(
        f"{server.url}/realtime/v1/faults", json=body, headers={"apikey": server.service_key}
    )

    assert answer.status_code == 400


def test_switches_are_shown_and_all_turned_off(server: Any) -> None:
    url, headers = f"{server.url}/realtime/v1/faults", {"apikey": server.service_key}
    server.faults(set={"refuse_status": 503, "join_delay": 2})

    shown = httpx.get(url, headers=headers).json()["faults"]
    reset = httpx.delete(url, headers=headers).json()["faults"]

    assert (shown["refuse_status"], shown["join_delay"]) == (503, 2)
    assert not any(reset.values())


def test_the_door_can_be_shut(server: Any) -> None:
    server.faults(set={"refuse_status": 401})

    with pytest.raises(InvalidStatus) as caught:
        server.open()

    assert caught.value.response.status_code == 401


def test_connections_can_be_cut_without_a_word(server: Any) -> None:
    wire = joined(server)

    assert server.faults(do="drop")["struck"] == 1
    with pytest.raises(ConnectionClosed) as caught:
        wire.connection.recv(timeout=5)

    assert caught.value.rcvd is None


def test_connections_can_be_closed_with_a_code(server: Any) -> None:
    wire = joined(server)

    server.faults(do="close", code=1001)
    with pytest.raises(ConnectionClosed) as caught:
        wire.connection.recv(timeout=5)

    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1001


def test_joins_can_be_ignored_delayed_or_refused(server: Any) -> None:
    wire = server.open()

    server.faults(set={"ignore_joins": True})
    wire.send("realtime:room", "phx_join", {"config": {}})
    assert wire.settled() == []
    server.faults(set={"ignore_joins": False, "join_delay": 0.2})
    assert wire.join("room")["status"] == "ok"
    server.faults(set={"join_error": "ClientJoinRateLimitReached: Too many joins per second"})

    assert wire.join("room")["response"]["reason"].startswith("ClientJoinRateLimitReached")


def test_changes_between_the_reply_and_system_ok_can_be_lost(server: Any) -> None:
    wire = server.open()
    server.faults(set={"subscribe_delay": 0.5})

    payload = {"config": {"postgres_changes": [JOBS]}, "access_token": server.sign(sub=ONE)}
    wire.ask("realtime:rows", "phx_join", payload)
    server.sql("insert into public.jobs (hostname, note) values ('one', 'lost')")
    wire.system("rows")
    server.sql("insert into public.jobs (hostname, note) values ('one', 'heard')")

    assert wire.change()["data"]["record"]["note"] == "heard"


def test_events_can_be_lost_doubled_and_reordered(server: Any) -> None:
    wire = joined(server)
    server.faults(set={"duplicate_events": True})
    say(server, "a")
    assert [wire.broadcast()["payload"]["t"] for _ in range(2)] == ["a", "a"]

    server.faults(set={"duplicate_events": False, "reorder_events": True})
    say(server, "b", "c")
    assert [wire.broadcast()["payload"]["t"] for _ in range(2)] == ["c", "b"]

    server.faults(set={"reorder_events": False, "lose_events": True})
    post(server, "d")
    server.faults(set={"lose_events": False})
    say(server, "e")
    assert wire.broadcast()["payload"]["t"] == "e"


@pytest.mark.parametrize("close", [True, False])
def test_a_system_error_comes_with_or_without_the_end(server: Any, close: bool) -> None:
    wire = joined(server)

    server.faults(do="system_error", message="Too many database timeouts", close=close)

    assert wire.system("room")["message"] == "Too many database timeouts"
    assert [one.event for one in wire.settled()] == (["phx_close"] if close else [])


def test_channels_can_crash_or_expire(server: Any) -> None:
    wire = joined(server)
    wire.join("other")

    assert server.faults(do="phx_error", topic="room")["struck"] == 1
    assert wire.expect("phx_error").payload == {"reason": "channel_crash"}
    assert server.faults(do="expire")["struck"] == 1

    assert wire.system("other")["message"].startswith("Token has expired")
    assert wire.expect("phx_close").topic == "realtime:other"


def test_a_frame_can_be_larger_than_the_python_client_takes(server: Any) -> None:
    wire = joined(server)

    server.faults(do="oversize")

    assert len(wire.broadcast()["payload"]["filler"]) > 1_048_576


def test_a_frozen_server_answers_nothing_until_it_thaws(server: Any) -> None:
    wire = joined(server)
    server.faults(set={"frozen": True})

    wire.send("phoenix", "heartbeat", {}, ref="77")
    answered = wire.connection.ping().wait(0.3)
    server.faults(set={"frozen": False})

    assert not answered
    assert wire.expect("phx_reply").ref == "77"
    assert wire.connection.ping().wait(5)


def test_unknown_damage_is_refused(server: Any) -> None:
    joined(server)

    assert "there is no damage" in server.faults(do="nosuch")["message"]
