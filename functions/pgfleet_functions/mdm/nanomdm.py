"""NanoMDM: raw commands on the queue of an enrollment; answers come by its webhook only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import plistlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pgfleet_functions.integrations.calls import Api, CallFailed, FailureKind, answered_at
from pgfleet_functions.integrations.sightings import Capabilities, Sighting
from pgfleet_functions.mdm.provider import (
    KnownProfile,
    Order,
    ProfileFile,
    Report,
    State,
    failed,
)
from pgfleet_functions.outgoing.answers import Answer

NO_PROFILES = "unsupported: NanoMDM keeps no profiles; they are in the integration's settings"

# How its databases say that a command of this id is on the queue already.
DUPLICATE = re.compile(r"duplicate|unique constraint|already exists", re.IGNORECASE)

REQUESTS: Mapping[str, str] = {
    "lock": "DeviceLock",
    "restart": "RestartDevice",
    "shutdown": "ShutDownDevice",
    "lost_mode_off": "DisableLostMode",
    "play_sound": "PlayLostModeSound",
    "locate": "DeviceLocation",
    "refresh": "DeviceInformation",
}


class NanoMDM:
    """One NanoMDM server; its settings hold `profiles`: id → {identifier, payload (base64)}."""

    def __init__(self, api: Api, settings: Mapping[str, Any]) -> None:
        self._api = api
        self._profiles: Mapping[str, Any] = settings.get("profiles") or {}

    def capabilities(self, _attributes: Mapping[str, Any]) -> Capabilities:
        """Tell that nothing is known about devices, nor will be."""
        return Capabilities(shows_effect=False)

    async def send(self, order: Order) -> Report:
        """Put the order on the queue of the enrollment, under an id that retries share."""
        try:
            command = self._command(order)
        except (KeyError, TypeError, binascii.Error) as error:
            return failed("invalid_payload", f"the integration does not describe it: {error}")
        if command is None:
            return failed("unsupported", f"NanoMDM is not told how to {order.command_type}")
        # As fleet.mdm_command_uuid has it, which finds the command by what the webhook tells.
        name = f"pgfleet:command:{order.command_id}".encode()
        uuid = str(UUID(hashlib.md5(name, usedforsecurity=False).hexdigest()))
        body = plistlib.dumps({"CommandUUID": uuid, "Command": command})
        try:
            answer = await self._api.call(
                "PUT",
                f"/v1/enqueue/{quote(order.external_id, safe='')}",
                content=body,
                shown=f"{command['RequestType']} {uuid}",
            )
        except CallFailed as failure:
            # It also answers 500 where it has the command and only could not wake the device.
            if failure.answer is None or not (told := _queued(failure.answer, order)):
                raise
            answer = failure.answer
        else:
            told = _queued(answer, order)
        known = {"sent_at": answered_at(answer).isoformat(), "command_uuid": uuid}
        return Report(State.SENT, known | told)

    async def look(self, orders: Sequence[Order]) -> AsyncIterator[tuple[Order, Report]]:
        """Tell that no call can tell."""
        for order in orders:
            yield order, Report(State.UNKNOWN)

    async def inventory(self) -> AsyncIterator[list[Sighting]]:
        """Give nothing: the server keeps no list that could be asked for."""
        return
        yield []

    async def upload_profile(self, _file: ProfileFile, _external_id: str | None) -> str:
        """Tell that there is nothing to upload to."""
        raise CallFailed(FailureKind.REFUSED, NO_PROFILES, reached=False)

    async def delete_profile(self, _external_id: str) -> None:
        """Tell that there is nothing to delete."""
        raise CallFailed(FailureKind.REFUSED, NO_PROFILES, reached=False)

    async def profiles(self) -> AsyncIterator[list[KnownProfile]]:
        """Give the profiles of the settings."""
        yield [KnownProfile(one, one, "nanomdm") for one in self._profiles]

    async def reread(self, _external_id: str) -> Sighting | None:
        """Refuse: the server cannot be asked about a device."""
        raise CallFailed(FailureKind.REFUSED, "NanoMDM tells nothing about its devices")

    def _command(self, order: Order) -> dict[str, Any] | None:
        if order.command_type == "push_profile":
            payload = self._profiles[str(order.payload["profile_id"])]["payload"]
            return {"RequestType": "InstallProfile", "Payload": base64.b64decode(payload)}
        if order.command_type == "remove_profile":
            known = self._profiles[str(order.payload["profile_id"])]
            return {"RequestType": "RemoveProfile", "Identifier": str(known["identifier"])}
        if order.action not in REQUESTS:
            return None
        command: dict[str, Any] = {"RequestType": REQUESTS[order.action]}
        if order.action == "lock" and order.payload.get("pin"):
            command["PIN"] = str(order.payload["pin"])
        if order.action == "refresh":
            command["Queries"] = ["DeviceName", "OSVersion", "SerialNumber", "BatteryLevel"]
        return command


def _queued(answer: Answer, order: Order) -> dict[str, Any]:
    """Give what an answer tells of a command that is on the queue.

    Nothing where it says so, or says nothing, of a failure. Raises `CallFailed` for a command
    that was not taken.
    """
    try:
        said = answer.json()
    except ValueError:
        return {}
    if not isinstance(said, Mapping):
        return {}
    status = said.get("status")
    each = status.values() if isinstance(status, Mapping) else ()
    parts = [said, *(one for one in each if isinstance(one, Mapping))]
    refusal = _first(parts, "command_error", "enqueue_error")
    if refusal and order.unanswered_at and DUPLICATE.search(refusal):
        return {"already": True}
    if refusal:
        message = f"NanoMDM did not take the command: {refusal}"
        raise CallFailed(FailureKind.SERVER, message, status=answer.status)
    problem = _first(parts, "push_error")
    return {"push_error": problem} if problem else {}


def _first(parts: Sequence[Mapping[str, Any]], *names: str) -> str | None:
    """Give the first text under one of the names, fit for people."""
    found = (str(part[name]) for part in parts for name in names if part.get(name))
    return next((text[:300] for text in found), None)
