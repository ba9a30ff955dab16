"""What other systems tell about devices, whichever system it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from pgfleet_functions.database import storable


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can be asked to do, so that "never" can be told from "not yet"."""

    platform: str | None = None
    supervised: bool | None = None
    can_locate: bool | None = None
    needs_pin: bool | None = None
    # Whether a later look at the device can tell that an order was carried out.
    shows_effect: bool = True


@dataclass(frozen=True, slots=True)
class Sighting:
    """A device as the other system has it; any fact but the id may be odd."""

    external_id: str
    name: Any
    serial_number: Any = None
    platform: str | None = None
    last_seen: Any = None
    latitude: Any = None
    longitude: Any = None
    accuracy_m: Any = None
    located_at: Any = None
    # False for a record without a device behind it: one that left, or has not come yet.
    is_enrolled: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Describes(Protocol):
    """Tells what devices can do."""

    def capabilities(self, attributes: Mapping[str, Any]) -> Capabilities:
        """Tell what a device with these attributes can do; `None` is "not known"."""
        ...


def described(provider: Describes, sighting: Sighting) -> dict[str, Any]:
    """Give a device as the database takes it, with what it can be asked to do."""
    known = asdict(provider.capabilities(sighting.attributes))
    found: dict[str, Any] = storable(asdict(sighting) | {"capabilities": known})
    return found
