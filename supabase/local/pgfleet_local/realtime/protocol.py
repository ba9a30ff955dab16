"""Read and write the frames of the Phoenix protocol, in the versions 1.0.0 and 2.0.0.

Payloads travel as JSON text that is made once and spliced into every frame, so that a change
with many listeners is encoded once, and numbers keep every digit Postgres printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

PUSH = 3
BROADCAST = 4
RAW_BYTES = 0
JSON_TEXT = 1
EMPTY = "{}"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class ProtocolError(ValueError):
    """Raised when a frame cannot be read; the socket stays open and the frame is ignored."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from a client."""

    topic: str
    event: str
    payload: Mapping[str, Any]
    ref: str | None
    join_ref: str | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to a client; `payload` is JSON text."""

    topic: str
    event: str
    payload: str
    ref: str | None = None
    join_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A broadcast to a client; `payload` is JSON text or raw bytes, `meta` JSON text.

    `compact` asks for a binary frame where the version has them, as the hosted server does for
    messages that came from the database or in a binary frame.
    """

    topic: str
    event: str
    payload: str | bytes
    meta: str | None = None
    compact: bool = False


Frame = str | bytes


class Serializer(Protocol):
    """One version of the wire format."""

    def decode(self, frame: Frame) -> Incoming:
        """Read a frame, or raise `ProtocolError`."""
        ...

    def encode(self, message: Outgoing) -> Frame:
        """Write a message."""
        ...

    def encode_broadcast(self, broadcast: Broadcast) -> Frame | None:
        """Write a broadcast, or return None when this version cannot carry it."""
        ...


class ObjectSerializer:
    """Version 1.0.0: every frame is a JSON object."""

    def decode(self, frame: Frame) -> Incoming:
        """Read a JSON object."""
        data = parse_json(frame)
        if not isinstance(data, dict):
            raise ProtocolError("the frame is no JSON object")
        return _incoming(
            data.get("topic"),
            data.get("event"),
            data.get("payload"),
            data.get("ref"),
            data.get("join_ref"),
        )

    def encode(self, message: Outgoing) -> Frame:
        """Write exactly the four keys that the official Python client insists on."""
        return (
            f'{{"event":{_quote(message.event)},"payload":{message.payload},'
            f'"ref":{_quote(message.ref)},"topic":{_quote(message.topic)}}}'
        )

    def encode_broadcast(self, broadcast: Broadcast) -> Frame | None:
        """Write the JSON form; raw bytes have none."""
        payload = _broadcast_payload(broadcast)
        if payload is None:
            return None
        return self.encode(Outgoing(broadcast.topic, "broadcast", payload))


class ArraySerializer:
    """Version 2.0.0: JSON arrays, and binary frames for broadcasts."""

    def decode(self, frame: Frame) -> Incoming:
        """Read a JSON array or a binary push."""
        if isinstance(frame, bytes):
            return _decode_push(frame)
        data = parse_json(frame)
        if not isinstance(data, list) or len(data) != 5:
            raise ProtocolError("the frame is no JSON array of five")
        join_ref, ref, topic, event, payload = data
        return _incoming(topic, event, payload, ref, join_ref)

    def encode(self, message: Outgoing) -> Frame:
        """Write a JSON array."""
        head = ",".join(
            _quote(part) for part in (message.join_ref, message.ref, message.topic, message.event)
        )
        return f"[{head},{message.payload}]"

    def encode_broadcast(self, broadcast: Broadcast) -> Frame | None:
        """Write a binary frame where it is wanted and fits, else the JSON form."""
        raw = isinstance(broadcast.payload, bytes)
        if broadcast.compact or raw:
            frame = _encode_binary_broadcast(broadcast)
            if frame is not None or raw:
                return frame
        payload = _broadcast_payload(broadcast)
        assert payload is not None
        return self.encode(Outgoing(broadcast.topic, "broadcast", payload))


SERIALIZERS: Mapping[str, Serializer] = {"1.0.0": ObjectSerializer(), "2.0.0": ArraySerializer()}


def to_json(value: Any) -> str:
    """Write a value as compact JSON text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _quote(value: str | None) -> str:
    return "null" if value is None else to_json(value)


def parse_json(text: str | bytes) -> Any:
    """Read JSON as strictly as every client does, or raise `ProtocolError`.

    One half of a character, and numbers that are none, can be written here and read by nobody.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if SURROGATE.search(text if isinstance(text, str) else text.decode()):
            to_json(value).encode()
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the frame is no JSON") from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _incoming(topic: Any, event: Any, payload: Any, ref: Any, join_ref: Any) -> Incoming:
    """Check the parts of a message."""
    if not isinstance(topic, str) or not isinstance(event, str):
        raise ProtocolError("topic and event must be strings")
    if not isinstance(payload, dict):
        payload = {}
    return Incoming(topic, event, payload, _reference(ref), _reference(join_ref))


def _reference(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _broadcast_payload(broadcast: Broadcast) -> str | None:
    """Return the JSON form of a broadcast; `meta` is left out rather than null."""
    if isinstance(broadcast.payload, bytes):
        return None
    meta = "" if broadcast.meta is None else f',"meta":{broadcast.meta}'
    return (
        f'{{"event":{_quote(broadcast.event)},"payload":{broadcast.payload},'
        f'"type":"broadcast"{meta}}}'
    )


def _decode_push(frame: bytes) -> Incoming:
    """Read a client's binary broadcast: seven bytes of lengths, the header's texts, the body."""
    if len(frame) < 7 or frame[0] != PUSH:
        raise ProtocolError("unknown kind of binary frame")
    lengths, encoding = frame[1:6], frame[6]
    parts: list[bytes] = []
    offset = 7
    for length in lengths:
        parts.append(frame[offset : offset + length])
        offset += length
    if offset > len(frame):
        raise ProtocolError("the binary frame is cut short")
    try:
        join_ref, ref, topic, event = (part.decode() for part in parts[:4])
    except UnicodeDecodeError as error:
        raise ProtocolError("the header of the binary frame is no UTF-8") from error
    body = frame[offset:]
    payload = parse_json(body) if encoding == JSON_TEXT else body
    content = {"type": "broadcast", "event": event, "payload": payload, "compact": True}
    return Incoming(topic, "broadcast", content, ref or None, join_ref or None)


def _encode_binary_broadcast(broadcast: Broadcast) -> bytes | None:
    """Write a binary broadcast, or return None when a header field is too long for its byte."""
    fields = [
        broadcast.topic.encode(),
        broadcast.event.encode(),
        (broadcast.meta or "").encode(),
    ]
    if any(len(part) > 255 for part in fields):
        return None
    raw = isinstance(broadcast.payload, bytes)
    body = broadcast.payload if isinstance(broadcast.payload, bytes) else broadcast.payload.encode()
    head = bytes([BROADCAST, *map(len, fields), RAW_BYTES if raw else JSON_TEXT])
    return head + b"".join(fields) + body
