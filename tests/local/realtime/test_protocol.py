"""The wire format, against frames recorded from the official clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pgfleet_local.realtime.protocol import (
    SERIALIZERS,
    Broadcast,
    Outgoing,
    ProtocolError,
    to_json,
)

GOLDEN = {
    name: json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text())
    for name in ("python", "javascript")
}


def frames(side: str) -> list[tuple[str, str | bytes]]:
    """Return the version and the frame of everything one side said."""
    return [
        (recorded["vsn"], frame.get("text") or bytes.fromhex(frame["binary"]))
        for recorded in GOLDEN.values()
        for frame in recorded["frames"]
        if frame["from"] == side
    ]


@pytest.mark.parametrize(("vsn", "frame"), frames("client"))
def test_what_the_clients_send_is_understood(vsn: str, frame: str | bytes) -> None:
    message = SERIALIZERS[vsn].decode(frame)

    if isinstance(frame, bytes):
        assert (message.join_ref, message.ref, message.topic) == ("6", "7", "realtime:room1")
        assert (message.event, message.payload["event"]) == ("broadcast", "hello")
        assert message.payload["payload"] == {"y": 2}
        return
    data = json.loads(frame)
    if isinstance(data, list):
        data = dict(zip(("join_ref", "ref", "topic", "event", "payload"), data, strict=True))
    assert data == {
        "join_ref": message.join_ref,
        "ref": message.ref,
        "topic": message.topic,
        "event": message.event,
        "payload": message.payload,
    }


@pytest.mark.parametrize(("vsn", "frame"), frames("server"))
def test_what_the_clients_accept_is_what_is_written(vsn: str, frame: str | bytes) -> None:
    serializer = SERIALIZERS[vsn]

    if isinstance(frame, bytes):
        broadcast = Broadcast(
            "realtime:room1", "shout", '{"x":2}', meta='{"id":"u-2"}', compact=True
        )
        assert serializer.encode_broadcast(broadcast) == frame
        return
    data: Any = json.loads(frame)
    if isinstance(data, dict):
        data = [None, data["ref"], data["topic"], data["event"], data["payload"]]
    join_ref, ref, topic, event, payload = data
    if event == "broadcast":
        meta = to_json(payload["meta"])
        broadcast = Broadcast(topic, payload["event"], to_json(payload["payload"]), meta=meta)
        assert serializer.encode_broadcast(broadcast) == frame
    else:
        message = Outgoing(topic, event, to_json(payload), ref=ref, join_ref=join_ref)
        assert serializer.encode(message) == frame


def test_a_header_too_long_for_a_binary_frame_falls_back_to_text() -> None:
    broadcast = Broadcast("realtime:" + "x" * 250, "e", "{}", compact=True)

    assert isinstance(SERIALIZERS["2.0.0"].encode_broadcast(broadcast), str)


def test_meta_is_left_out_when_there_is_none() -> None:
    frame = SERIALIZERS["1.0.0"].encode_broadcast(Broadcast("realtime:t", "e", "{}"))

    assert isinstance(frame, str)
    assert "meta" not in json.loads(frame)["payload"]


@pytest.mark.parametrize(
    "frame",
    [b"", b"\x03", b"\x04\x00\x00\x00\x00\x00\x00", b"\x03\xff\x00\x00\x00\x00\x01", "[]", "{}"],
)
def test_a_broken_frame_is_refused(frame: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        SERIALIZERS["2.0.0"].decode(frame)
