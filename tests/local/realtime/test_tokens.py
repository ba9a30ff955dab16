"""Tokens that end, change or lose their rights while a channel is joined."""

from __future__ import annotations

from typing import Any

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
JOBS = {"event": "INSERT", "schema": "public", "table": "jobs"}


def refresh(wire: Any, name: str, access_token: str | None) -> None:
    """Send a new token."""
    wire.send(f"realtime:{name}", "access_token", {"access_token": access_token}, join_ref="1")


def test_a_channel_ends_with_its_token_and_the_socket_stays(server: Any) -> None:
    wire = server.open()
    wire.join("room", access_token=server.sign(sub=ONE, expires_in=1.99))

    message = wire.system("room")
    closed = wire.expect("phx_close")

    assert (message["extension"], message["status"]) == ("system", "error")
    assert message["message"].startswith("Token has expired ")
    assert closed.ref == "1"
    assert wire.join("room")["status"] == "ok"


def test_after_its_token_has_ended_a_channel_hears_nothing(server: Any) -> None:
    wire, other = server.open(), server.open()
    topic = f"device:{ONE}"
    wire.join(topic, access_token=server.sign(sub=ONE, expires_in=1.99), private=True)
    wire.expect("phx_close")
    other.join(topic, access_token=server.sign(sub=ONE), private=True)

    server.sql("select realtime.send('{}', 'command', %s)", topic)

    other.broadcast()
    assert [one.event for one in wire.settled()] == ["system"]


def test_a_fresh_token_is_taken_without_a_reply_and_outlives_the_old(server: Any) -> None:
    wire = server.open()
    wire.join("room", access_token=server.sign(sub=ONE, expires_in=1.99))
    old_timer = server.open()
    old_timer.join("timer", access_token=server.sign(sub=ONE, expires_in=2.99))

    refresh(wire, "room", server.sign(sub=ONE))
    assert wire.settled() == []
    old_timer.expect("phx_close")

    assert wire.settled() == []


def test_changes_are_subscribed_anew_with_the_claims_of_the_fresh_token(server: Any) -> None:
    wire = server.open()
    wire.join("rows", access_token=server.sign(sub=ONE), changes=[JOBS])

    refresh(wire, "rows", server.sign(sub=TWO))
    assert wire.system("rows")["message"] == "Subscribed to PostgreSQL"
    server.sql("insert into public.jobs (hostname) values ('one'), ('two')")

    assert wire.change()["data"]["record"]["hostname"] == "two"
    assert wire.settled() == []


def test_a_bad_token_ends_the_channel(server: Any) -> None:
    wire = server.open()
    wire.join("room", access_token=server.sign(sub=ONE))

    refresh(wire, "room", server.sign(expires_in=-3))

    assert wire.system("room")["message"].startswith("Token has expired ")
    wire.expect("phx_close")


def test_no_token_or_an_opaque_key_changes_nothing(server: Any) -> None:
    wire = server.open()
    wire.join("room", access_token=server.sign(sub=ONE))

    refresh(wire, "room", None)
    refresh(wire, "room", "sb_secret_1")

    assert wire.settled() == []


def test_a_private_channel_is_judged_anew_with_the_fresh_token(server: Any) -> None:
    wire = server.open()
    topic = f"device:{ONE}"
    wire.join(topic, access_token=server.sign(sub=ONE), private=True)

    refresh(wire, topic, server.sign(sub=TWO))

    assert wire.system(topic)["message"] == (
        f"You no longer have permission to read from this Channel topic: {topic}"
    )
    wire.expect("phx_close")


def test_a_device_whose_identity_changed_hears_of_no_rows_at_once(own_server: Any) -> None:
    old, new = own_server.open(), own_server.open()
    fresh = "33333333-3333-4333-8333-333333333333"
    old.join("rows", access_token=own_server.sign(sub=ONE), changes=[JOBS])
    new.join("rows", access_token=own_server.sign(sub=fresh), changes=[JOBS])

    own_server.sql("update public.machines set auth_id = %s where hostname = 'one'", fresh)
    own_server.sql("insert into public.jobs (hostname) values ('one')")

    new.change()
    assert old.settled() == []
