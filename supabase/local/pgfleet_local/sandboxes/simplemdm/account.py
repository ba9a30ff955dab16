"""The account behind the sandbox: devices, profiles, and the commands on their way to devices."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgfleet_local.sandboxes.simplemdm.faults import Faults

CUSTOM = "custom_configuration_profile"


def stamp(seconds: float | None) -> str | None:
    """Give a time as the API writes it."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Profile:
    """A profile that can be assigned; a custom one has a file."""

    id: int
    name: str
    kind: str = CUSTOM
    file: bytes = b""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Queued:
    """A command that waits for its device, or has ended."""

    name: str
    values: dict[str, Any]
    queued_at: float
    due_at: float
    state: str = "queued"


@dataclass(slots=True)
class Device:
    """One device: what the account says about it, and what it really has."""

    id: int
    serial: str
    attributes: dict[str, Any]
    online: bool = True
    # What the device would answer when it is asked for its place.
    position: dict[str, Any] = field(default_factory=dict)
    assigned: dict[int, float] = field(default_factory=dict)
    installed: dict[int, float] = field(default_factory=dict)
    queue: deque[Queued] = field(default_factory=deque)
    done: list[Queued] = field(default_factory=list)
    refreshed_at: float = 0.0

    @property
    def is_mac(self) -> bool:
        return str(self.attributes["model_name"]).startswith("Mac")


class Account:
    """All that the sandbox keeps; times come from a clock that can be put forward."""

    def __init__(self, keys: dict[str, str]) -> None:
        self.keys = keys
        self.faults = Faults()
        self.webhook_url: str | None = None
        self._ahead = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget devices, profiles, requests and faults; the keys stay."""
        self.devices: dict[int, Device] = {}
        self.profiles: dict[int, Profile] = {}
        self.synced_at: dict[int, float] = {}
        self.history: list[dict[str, Any]] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=50_000)
        self.faults.reset()
        self._ids = 4100

    def now(self) -> float:
        """Give the account's time in epoch seconds."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead += seconds

    def next_id(self) -> int:
        """Give an id that was not used yet."""
        self._ids += 1
        return self._ids

    def add_device(self, **given: Any) -> Device:
        """Enrol a device; what is not given about it is made up."""
        number = self.next_id()
        serial = str(given.pop("serial_number", f"F0SANDBOX{number}"))
        online = bool(given.pop("online", True))
        position = dict(given.pop("position", {}))
        udid = hashlib.sha256(serial.encode()).hexdigest()[:24].upper()
        attributes = {
            "name": f"Phone {number}",
            "device_name": "iPhone",
            "status": "enrolled",
            "last_seen_at": stamp(self.now()),
            "last_seen_ip": "198.51.100.7",
            "enrolled_at": stamp(self.now()),
            "os_version": "18.3",
            "model_name": "iPhone 15",
            "product_name": "iPhone15,4",
            "unique_identifier": f"{udid[:8]}-{udid[8:]}",
            "serial_number": serial,
            "imei": "35 000000 000000 1",
            "battery_level": "84%",
            "is_supervised": True,
            "passcode_present": True,
            "lost_mode_enabled": False,
            "location_latitude": None,
            "location_longitude": None,
            "location_accuracy": None,
            "location_updated_at": None,
        } | given
        device = Device(number, serial, attributes, online, position)
        self.devices[number] = device
        return device

    def add_profile(self, name: str, **more: Any) -> Profile:
        """Make a profile."""
        profile = Profile(self.next_id(), name, **more)
        self.profiles[profile.id] = profile
        return profile

    def enqueue(self, device: Device, name: str, **values: Any) -> None:
        """Put a command on the queue of a device."""
        now = self.now()
        due = now + self.faults.command_seconds
        device.queue.append(Queued(name, values, now, due))

    def deliver(self) -> None:
        """Let every online device take the commands that have reached it by now.

        It is called before anything is read, so no task has to run in the background.
        """
        now = self.now()
        for device in self.devices.values():
            while device.online and device.queue and device.queue[0].due_at <= now:
                self._obey(device, device.queue.popleft())

    def wake(self, device: Device, online: bool) -> None:
        """Take a device off the net, or let it come back and fetch what waits."""
        self.deliver()
        if online and not device.online:
            for command in device.queue:
                command.due_at = max(command.due_at, self.now())
        device.online = online

    def _obey(self, device: Device, command: Queued) -> None:
        at = command.due_at
        facts = device.attributes
        facts["last_seen_at"] = stamp(at)
        command.state = "done"
        match command.name:
            case "install_profile" | "remove_profile":
                self._change_profile(device, command)
            case "enable_lost_mode":
                facts["lost_mode_enabled"] = True
            case "disable_lost_mode":
                facts["lost_mode_enabled"] = False
            case "update_location":
                command.state = "done" if self._locate(device, at) else "failed"
            case "clear_passcode":
                facts["passcode_present"] = False
            case "wipe" | "unenroll":
                facts["status"] = "unenrolled"
                device.installed.clear()
        device.done.append(command)

    def _change_profile(self, device: Device, command: Queued) -> None:
        profile, at = int(command.values["profile_id"]), command.due_at
        if command.name == "install_profile":
            device.installed[profile] = at
        else:
            device.installed.pop(profile, None)
        event = "installed" if command.name == "install_profile" else "removed"
        self.history.append(
            {"event": event, "device_id": device.id, "profile_id": profile, "at": at}
        )

    def _locate(self, device: Device, at: float) -> bool:
        """Update the place, which only a supervised iPhone or iPad in Lost Mode tells."""
        facts = device.attributes
        if device.is_mac or not facts["is_supervised"] or not facts["lost_mode_enabled"]:
            return False
        place = {"latitude": 60.1699, "longitude": 24.9384, "accuracy": 65} | device.position
        facts["location_latitude"] = str(place["latitude"])
        facts["location_longitude"] = str(place["longitude"])
        facts["location_accuracy"] = place["accuracy"]
        facts["location_updated_at"] = stamp(at)
        return True

    def installed(self) -> Iterator[dict[str, Any]]:
        """Give what is really on devices, each with the time at which it got there."""
        self.deliver()
        for device in self.devices.values():
            for profile, at in device.installed.items():
                yield {"device_id": device.id, "profile_id": profile, "at": at}
