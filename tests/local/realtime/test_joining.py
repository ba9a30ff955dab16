"""The door, the join and the end of a channel."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

ONE = "11111111-1111-4111-8111-111111111111"
JOBS = {"event": "INSERT", "schema": "public", "table": "jobs"}


@pytest.mark.parametrize("vsn", [None, "1.0.0", "2.0.0"])
def test_heartbeat_is_answered_in_every_version(server: Any, vsn: str | None) -> None:
    wire = server.open(vsn=vsn)

    assert wire.ask("phoenix", "heartbeat", {}) == {"status": "ok", "response": {}}


@pytest.mark.parametrize(
    ("apikey", "status", "text"),
    [
        ("", 401, "API key is missing"),
        ("nonsense", 401, "The token provided is not a valid JWT"),
        ("expired", 401, "Token has expired"),
        ("forged", 401, "Failed to validate JWT signature"),
    ],
)
def test_a_bad_apikey_is_refused_at_the_door(
    server: Any, apikey: str, status: int, text: str
) -> None:
    keys = {
        "expired": server.sign("anon", expires_in=-5),
        "forged": server.sign("anon", secret="another secret, of good length as well"),
    }

    with pytest.raises(InvalidStatus) as caught:
        server.open(keys.get(apikey, apikey))

    assert caught.value.response.status_code == status
    assert text.encode() in caught.value.response.body


def test_an_unknown_serializer_is_refused(server: Any) -> None:
    with pytest.raises(InvalidStatus) as caught:
        server.open(vsn="3.0.0")

    assert caught.value.response.status_code == 403


def test_no_compression_is_agreed_on(server: Any) -> None:
    assert server.open().connection.response.headers.get("Sec-WebSocket-Extensions") is None


def test_a_join_echoes_its_bindings_with_stable_ids(server: Any) -> None:
    wanted = [JOBS | {"filter": "hostname=eq.one"}, {"event": "*", "schema": "public"}]

    def join(name: str) -> list[dict[str, Any]]:
        reply = server.open().join(name, changes=wanted, access_token=server.sign(sub=ONE))
        found: list[dict[str, Any]] = reply["response"]["postgres_changes"]
        return found

    first, second = join("a"), join("b")

    assert [{**one, "id": 0} for one in first] == [{**one, "id": 0} for one in wanted]
    assert [one["id"] for one in first] == [one["id"] for one in second]
    assert all(0 < one["id"] < 2**27 for one in first)


def test_a_join_without_bindings_gets_an_empty_list_and_no_system_message(server: Any) -> None:
    wire = server.open()

    assert wire.join("quiet") == {"status": "ok", "response": {"postgres_changes": []}}
    assert wire.settled() == []


def test_replication_ready_is_announced_when_asked_for(server: Any) -> None:
    wire = server.open()

    wire.join("ready", broadcast={"replication_ready": True})

    assert wire.system("ready") == {
        "extension": "system",
        "status": "ok",
        "message": "Replication connection established",
        "channel": "ready",
    }


@pytest.mark.parametrize(
    ("access_token", "reason"),
    [
        ("expired", "InvalidJWTToken: Token has expired 5 seconds ago"),
        ("roleless", "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
        ("nonsense", "MalformedJWT: The token provided is not a valid JWT"),
        ("forged", "JwtSignatureError: Failed to validate JWT signature"),
    ],
)
def test_a_bad_token_fails_the_join(server: Any, access_token: str, reason: str) -> None:
    tokens = {
        "expired": server.sign(expires_in=-5),
        "roleless": server.sign(role=""),
        "forged": server.sign(secret="somebody else's secret of good length"),
    }

    reply = server.open().join("x", access_token=tokens.get(access_token, access_token))

    assert reply["status"] == "error"
    assert reply["response"]["reason"].startswith(reason[:40])


def test_a_key_of_the_newer_style_counts_as_the_apikey(server: Any) -> None:
    assert server.open().join("x", access_token="sb_publishable_1")["status"] == "ok"


def test_a_topic_needs_a_name(server: Any) -> None:
    reply = server.open().join("")

    assert reply["response"]["reason"].startswith("TopicNameRequired")


@pytest.mark.parametrize("sub", [None, "22222222-2222-4222-8222-222222222222"])
def test_a_private_topic_of_another_is_refused(server: Any, sub: str | None) -> None:
    access_token = server.sign(sub=sub) if sub else server.anon_key

    reply = server.open().join(f"device:{ONE}", access_token=access_token, private=True)

    assert reply["status"] == "error"
    assert reply["response"]["reason"] == (
        f"Unauthorized: You do not have permissions to read from this Channel topic: device:{ONE}"
    )


def test_the_probe_of_a_private_topic_leaves_nothing_behind(server: Any) -> None:
    server.open().join(f"device:{ONE}", access_token=server.sign(sub=ONE), private=True)

    assert server.sql("select 1 from realtime.messages where topic = %s", f"device:{ONE}") == []


def test_service_role_may_read_every_private_topic(server: Any) -> None:
    wire = server.open()

    assert wire.join("anything", access_token=server.service_key, private=True)["status"] == "ok"


def test_joining_twice_ends_the_first_join_after_the_second_is_answered(server: Any) -> None:
    wire = server.open(vsn="2.0.0")
    wire.join("twice")

    wire.send("realtime:twice", "phx_join", {"config": {}}, ref="9", join_ref="9")
    answers = wire.settled()

    assert [(one.event, one.ref, one.join_ref) for one in answers] == [
        ("phx_reply", "9", "9"),
        ("phx_close", "1", "1"),
    ]


def test_leaving_is_answered_and_then_the_channel_closes(server: Any) -> None:
    wire = server.open()
    wire.join("room")

    wire.send("realtime:room", "phx_leave", {}, ref="8", join_ref="1")
    answers = wire.settled()

    assert [(one.event, one.ref) for one in answers] == [("phx_reply", "8"), ("phx_close", "1")]


def test_leaving_what_was_not_joined_closes_nothing(server: Any) -> None:
    wire = server.open()

    wire.send("realtime:room", "phx_leave", {}, ref="8", join_ref="1")
    answers = wire.settled()

    assert [(one.event, one.ref) for one in answers] == [("phx_reply", "8")]


def test_an_event_on_an_unjoined_topic_is_unmatched(server: Any) -> None:
    reply = server.open().ask("realtime:room", "broadcast", {"event": "x", "payload": {}})

    assert reply == {"status": "error", "response": {"reason": "unmatched topic"}}


def test_malformed_frames_are_ignored(server: Any) -> None:
    wire = server.open()

    for frame in ("no json", "[1, 2]", '{"topic": 5}', b"\x09binary", b"\xff\xfe"):
        wire.connection.send(frame)

    assert wire.settled() == []


def test_a_silent_socket_is_closed(run_server: Any) -> None:
    wire = run_server(idle_timeout=0.2).open()

    with pytest.raises(ConnectionClosed):
        wire.connection.recv(timeout=5)


def test_a_socket_may_hold_only_so_many_channels(run_server: Any) -> None:
    wire = run_server(max_channels=2).open()

    replies = [wire.join(name) for name in "abc"]

    assert [one["status"] for one in replies] == ["ok", "ok", "error"]
    assert replies[2]["response"]["reason"] == "ChannelRateLimitReached: Too many channels"


def test_only_so_many_sockets_may_be_open(run_server: Any) -> None:
    server = run_server(max_connections=1)
    server.open().settled()

    with pytest.raises(InvalidStatus) as caught:
        server.open()

    assert caught.value.response.status_code == 429
