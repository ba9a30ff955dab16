"""What is pushed, read in each of its shapes: raw with Ce- headers, with metadata, as an event.

A pipeline of Golioth posts the payload as it is, and tells the device in the header `Ce-Source`.
With the transformer `inject-metadata` the body holds the device and the time as well, which is
what `pgfleet sync setup` recommends. Queues wrap it in a CloudEvent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from pgfleet_functions.database import storable
from pgfleet_functions.golioth.client import moment
from pgfleet_functions.telemetry import UnfitData, canonical, digest_of

# What stands before the path in Ce-Type.
TYPE_PREFIX = "io.golioth.data.v1/.s"
# What the transformer inject-metadata makes of a payload, and nothing else has all of.
INJECTED = {"data", "device_id", "timestamp"}
LONGEST_ID = 255


@dataclass(frozen=True, slots=True)
class Message:
    """One pushed point; `at` is None where no time of its own was told."""

    key: str
    external_id: str
    path: str | None
    at: datetime | None
    digest: str
    text: str

    def row(self) -> dict[str, Any]:
        """Give the message as the database takes it."""
        return {
            "key": self.key,
            "external_id": self.external_id,
            "path": self.path,
            "at": self.at and self.at.isoformat(),
            "digest": self.digest,
            "data": json.loads(self.text),
        }


class UnfitMessage(ValueError):
    """A message says too little, or something that cannot be; it tells what is wrong."""


def read_message(headers: Mapping[str, str], text: str, body: Any) -> Message:
    """Read a message of any shape. Raises `UnfitMessage`."""
    facts = _injected(body) or _event(body) or _raw(headers, body)
    device = storable(facts["device"])
    if not isinstance(device, str) or not 0 < len(device.strip()) <= LONGEST_ID:
        raise UnfitMessage(
            "no device is told: neither in the header Ce-Source nor as device_id in the body"
        )
    try:
        data = canonical(facts["data"])
    except UnfitData as error:
        raise UnfitMessage(str(error)) from error
    message_id = headers.get("webhook-id") or headers.get("svix-id") or headers.get("ce-id")
    message_id = message_id or facts.get("id")
    if message_id:
        # A sender numbers its own: two devices may both begin with 1.
        said = ["id", device, message_id]
    else:
        said = ["all", device, headers.get("ce-type"), headers.get("ce-time"), text]
        if facts["at"] is None:
            # Nothing tells a replay from the same reading once more: the pull will.
            said.append(datetime.now(UTC).isoformat())
    key = sha256("\0".join(str(one) for one in said).encode("utf-8", "replace")).hexdigest()
    return Message(
        key, device.strip(), facts.get("path") or _path(headers), facts["at"], digest_of(data), data
    )


def _raw(headers: Mapping[str, str], body: Any) -> dict[str, Any]:
    """Take the payload as it is; all else is in headers."""
    return {"device": headers.get("ce-source"), "at": moment(headers.get("ce-time")), "data": body}


def _injected(body: Any) -> dict[str, Any] | None:
    """Read what inject-metadata made."""
    if not isinstance(body, dict) or not INJECTED <= body.keys():
        return None
    return {"device": body["device_id"], "at": _stamp(body["timestamp"]), "data": body["data"]}


def _event(body: Any) -> dict[str, Any] | None:
    """Read a CloudEvent whose payload is JSON."""
    if not isinstance(body, dict) or not {"specversion", "source", "data"} <= body.keys():
        return None
    return {
        "device": body["source"],
        "at": moment(body.get("time")),
        "data": body["data"],
        "id": body.get("id"),
        "path": _told_path(body.get("type")),
    }


def _stamp(value: Any) -> datetime | None:
    """Read {seconds, nanos}, whose seconds may be a text, or a time as a text."""
    if not isinstance(value, Mapping):
        return moment(value)
    try:
        seconds, nanos = int(value["seconds"]), int(value.get("nanos", 0))
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=nanos // 1000)
    except (LookupError, TypeError, ValueError, OverflowError, OSError):
        return None


def _path(headers: Mapping[str, str]) -> str | None:
    return _told_path(headers.get("ce-type"))


def _told_path(told: Any) -> str | None:
    if not isinstance(told, str) or not told.startswith(TYPE_PREFIX):
        return None
    return storable(told.removeprefix(TYPE_PREFIX)[:LONGEST_ID]) or None
