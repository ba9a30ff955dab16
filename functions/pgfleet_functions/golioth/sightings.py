"""What Golioth tells about devices, in the words that all systems share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pgfleet_functions.database import storable
from pgfleet_functions.golioth.client import moment
from pgfleet_functions.integrations.sightings import Sighting

LONGEST_TEXT = 255
MOST_PACKAGES = 20


def sighted(device: Mapping[str, Any]) -> dict[str, Any]:
    """Give a device as the database takes it."""
    metadata = _object(device.get("metadata"))
    hardware = [str(one)[:LONGEST_TEXT] for one in device.get("hardwareIds") or []][:10]
    seen = moment(device.get("lastReport")) or moment(metadata.get("lastReport"))
    found: dict[str, Any] = storable(
        asdict(
            Sighting(
                external_id=str(device.get("id") or ""),
                name=str(device.get("name") or "")[:LONGEST_TEXT],
                serial_number=hardware[0] if hardware else None,
                last_seen=seen.isoformat() if seen else None,
                attributes=_attributes(device, metadata, hardware),
            )
        )
    )
    return found


def _attributes(
    device: Mapping[str, Any], metadata: Mapping[str, Any], hardware: list[str]
) -> dict[str, Any]:
    known = {
        "hardware_ids": hardware,
        "blueprint_id": device.get("blueprintId"),
        "cohort_id": device.get("cohortId"),
        "tag_ids": [str(one) for one in device.get("tagIds") or []][:100],
        "enabled": device.get("enabled"),
        "online": _online(metadata),
        "firmware": _firmware(_object(metadata.get("update"))),
        "settings_status": _object(metadata.get("lastSettingsStatus")).get("status"),
    }
    return {
        name: value[:LONGEST_TEXT] if isinstance(value, str) else value
        for name, value in known.items()
        if value is not None
    }


def _online(metadata: Mapping[str, Any]) -> bool | None:
    """Tell whether a session seems to be open; the status itself is "-", whatever is true."""
    online, offline = (moment(metadata.get(f"lastSeen{way}")) for way in ("Online", "Offline"))
    return None if online is None else offline is None or offline < online


def _firmware(update: Mapping[str, Any]) -> dict[str, Any]:
    """Give what each package is and is to be, keyed by its name."""
    return {
        str(package)[:LONGEST_TEXT]: {
            key: str(value)[:LONGEST_TEXT]
            for key, value in _object(facts).items()
            if key in ("version", "target", "state", "reason") and value is not None
        }
        for package, facts in list(update.items())[:MOST_PACKAGES]
    }


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
