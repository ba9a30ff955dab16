"""Who is on a topic: told at the join, and whenever somebody comes, changes or leaves."""

from __future__ import annotations

from typing import Any

import pytest

ONE = "11111111-1111-4111-8111-111111111111"


def track(wire: Any, name: str, **told: Any) -> Any:
    return wire.ask(
        f"realtime:{name}", "presence", {"type": "presence", "event": "track", "payload": told}
    )


def untrack(wire: Any, name: str) -> Any:
    return wire.ask(f"realtime:{name}", "presence", {"type": "presence", "event": "untrack"})


def diff(wire: Any) -> Any:
    return wire.expect("presence_diff").payload


def told(metas: Any) -> list[dict[str, Any]]:
    """Give what people told of themselves, without the references of the protocol."""
    return [{k: v for k, v in meta.items() if not k.startswith("phx_")} for meta in metas["metas"]]


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
def test_who_comes_changes_and_leaves_is_told_to_all(server: Any, vsn: str) -> None:
    ada, bob = server.open(vsn=vsn), server.open(vsn=vsn)
    ada.join("lobby", presence={"key": "ada", "enabled": True})
    bob.join("lobby", presence={"key": "bob", "enabled": True})
    assert ada.expect("presence_state").payload == {}
    bob.expect("presence_state")

    assert track(ada, "lobby", mood="glad") == {"status": "ok", "response": {}}
    came = [diff(wire) for wire in (ada, bob)]
    assert came[0] == came[1]
    assert told(came[0]["joins"]["ada"]) == [{"mood": "glad"}]
    assert came[0]["leaves"] == {}

    track(ada, "lobby", mood="sad")
    changed = diff(bob)
    assert told(changed["joins"]["ada"]) == [{"mood": "sad"}]
    assert told(changed["leaves"]["ada"]) == [{"mood": "glad"}]
    [now], [before] = changed["joins"]["ada"]["metas"], changed["leaves"]["ada"]["metas"]
    assert now["phx_ref_prev"] == before["phx_ref"] != now["phx_ref"]

    assert untrack(ada, "lobby") == {"status": "ok", "response": {}}
    gone = diff(bob)
    assert (gone["joins"], told(gone["leaves"]["ada"])) == ({}, [{"mood": "sad"}])


def test_who_joins_later_is_told_who_is_there(server: Any) -> None:
    first, second, late = server.open(), server.open(), server.open()
    for wire in (first, second):
        wire.join("hall", presence={"key": "twice", "enabled": True})
        track(wire, "hall", at=1.5)
    late.join("hall", presence={"enabled": True})

    state = late.expect("presence_state").payload
    assert told(state["twice"]) == [{"at": 1.5}, {"at": 1.5}]


@pytest.mark.parametrize("way", ["leave", "disconnect", "rejoin"])
def test_whoever_ends_the_channel_has_left(server: Any, way: str) -> None:
    goer, watcher = server.open(), server.open()
    watcher.join("room", presence={"enabled": True})
    goer.join("room", presence={"key": "goer", "enabled": True})
    track(goer, "room")
    assert "goer" in diff(watcher)["joins"]

    if way == "leave":
        goer.ask("realtime:room", "phx_leave", {})
    elif way == "disconnect":
        goer.connection.close()
    else:
        goer.join("room", presence={"key": "goer", "enabled": True})

    assert "goer" in diff(watcher)["leaves"]


def test_the_same_again_is_told_once(server: Any) -> None:
    wire = server.open()
    wire.join("once", presence={"key": "me", "enabled": True})
    track(wire, "once", a=1)
    track(wire, "once", a=1)

    assert [one.event for one in wire.settled()].count("presence_diff") == 1


def test_without_the_wish_nobody_is_told_the_state_and_tracking_works(server: Any) -> None:
    wire = server.open()
    wire.join("plain")
    assert wire.settled() == []
    assert track(wire, "plain")["status"] == "ok"
    assert len(diff(wire)["joins"]) == 1


def test_private_and_public_presences_of_one_name_are_two(server: Any) -> None:
    public, private = server.open(), server.open()
    public.join("meeting", presence={"key": "public", "enabled": True})
    private.join(
        "meeting",
        access_token=server.sign(sub=ONE),
        private=True,
        presence={"key": "private", "enabled": True},
    )
    track(public, "meeting")
    track(private, "meeting")

    assert list(diff(public)["joins"]) == ["public"]
    assert list(diff(private)["joins"]) == ["private"]


def test_policies_of_presence_alone_let_in_to_presence_alone(server: Any) -> None:
    wire, sender = server.open(), server.open(apikey=server.service_key)
    reply = wire.join(
        "meeting",
        access_token=server.sign(sub=ONE),
        private=True,
        presence={"key": "one", "enabled": True},
    )
    assert reply["status"] == "ok"
    sender.join("meeting", private=True)
    assert track(wire, "meeting")["status"] == "ok"
    assert "one" in diff(wire)["joins"]
    wire.settled()

    server.sql("select realtime.send('{}', 'command', 'meeting', true)")
    sender.broadcast()
    assert wire.settled() == []


def test_without_the_wish_for_presence_its_policies_let_nobody_in(server: Any) -> None:
    reply = server.open().join("meeting", access_token=server.sign(sub=ONE), private=True)

    assert reply["status"] == "error"


def test_who_may_not_be_seen_is_answered_with_an_error(server: Any) -> None:
    wire = server.open()
    wire.join("quiet", access_token=server.sign(sub=ONE), private=True, presence={"enabled": True})
    wire.expect("presence_state")

    assert track(wire, "quiet") == {"status": "error", "response": {}}
    assert wire.settled() == []


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (
            {"event": "track", "payload": [1]},
            {"status": "error", "response": {"reason": "Presence track payload must be a map"}},
        ),
        ({"event": "wave"}, {"status": "error", "response": {}}),
        ({"event": "TRACK", "payload": {"a": 1}}, {"status": "ok", "response": {}}),
        ({"event": "track"}, {"status": "ok", "response": {}}),
        ({}, {"status": "ok", "response": {}}),
        ({"event": "untrack"}, {"status": "ok", "response": {}}),
    ],
)
def test_every_presence_message_is_answered(
    server: Any, payload: dict[str, Any], answer: dict[str, Any]
) -> None:
    wire = server.open()
    wire.join("answers")

    assert wire.ask("realtime:answers", "presence", payload) == answer


def test_too_many_calls_end_the_channel(server: Any) -> None:
    wire = server.open()
    wire.join("busy")
    for number in range(5):
        assert track(wire, "busy", n=number)["status"] == "ok"
    wire.send("realtime:busy", "presence", {"event": "track", "payload": {"n": 5}})

    assert wire.system("busy")["message"] == "Client presence rate limit exceeded"
    wire.expect("phx_close")
