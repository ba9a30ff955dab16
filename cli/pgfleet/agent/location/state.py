"""What a device keeps of where it was: the last position that its server has, and what waits.

One JSON object in the state folder, replaced at once:

    {"device_id", "position": fix, "accepted_at", "places": [{location_id, name, since}],
     "waiting": [fix]}

It holds no secret, but where somebody was is nobody else's business, so it is as private as
the rest of the folder. It belongs to one identity: another device's fixes are not its own.
"""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pgfleet.agent import state
from pgfleet.agent.location.fix import Fix, Place, parse_fix, parse_places

logger = logging.getLogger(__name__)

LOCATION = "location.json"


@dataclass(slots=True)
class LocationState:
    """Hold what is known of one device."""

    device_id: int
    position: Fix | None = None
    accepted_at: datetime | None = None
    places: tuple[Place, ...] = ()
    # In the order of their own times.
    waiting: list[Fix] = field(default_factory=list)

    def to_text(self) -> str:
        """Give the content of the file."""
        content = {
            "device_id": self.device_id,
            "position": None if self.position is None else self.position.to_json(),
            "accepted_at": None if self.accepted_at is None else self.accepted_at.isoformat(),
            "places": [asdict(place) for place in self.places],
            "waiting": [fix.to_json() for fix in self.waiting],
        }
        return json.dumps(content) + "\n"


class LocationFile:
    """Write the file of one state folder; from any thread, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCATION
        self._mutex = threading.Lock()

    def write(self, text: str) -> None:
        """Replace the file. A disk that is full costs what waits after a crash, and no more."""
        with self._mutex:
            try:
                state.write_private(self._path, text)
            except OSError as error:
                logger.warning("%s cannot be written: %s", self._path, error.strerror or error)


def load(folder: Path, device_id: int) -> LocationState:
    """Read what is known of a device; nothing where there is no file or another device's."""
    path = folder / LOCATION
    if path.is_file():
        state.refuse_shared(path)
        try:
            found = _parse(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # Unlike an identity it can be had again.
            logger.warning("%s cannot be understood and is not used: %s", path, error)
        else:
            if found.device_id == device_id:
                return found
    return LocationState(device_id)


def describe(folder: Path, device_id: int | None) -> dict[str, Any]:
    """Give what `pgfleet agent status` shows of it."""
    known = LocationState(0) if device_id is None else load(folder, device_id)
    unknown = dict.fromkeys(("latitude", "longitude", "accuracy_m", "located_at"))
    accepted_at = None if known.accepted_at is None else known.accepted_at.isoformat()
    return {
        **(unknown if known.position is None else known.position.to_json()),
        "position_accepted_at": accepted_at,
        "places": [place.name for place in known.places],
        "waiting_positions": len(known.waiting),
    }


def _parse(found: dict[str, Any]) -> LocationState:
    now = datetime.now(UTC)
    position, accepted_at = found["position"], found["accepted_at"]
    return LocationState(
        device_id=int(found["device_id"]),
        position=None if position is None else parse_fix(position, now),
        accepted_at=None if accepted_at is None else datetime.fromisoformat(accepted_at),
        places=parse_places(found["places"]),
        waiting=sorted(
            (parse_fix(fix, now) for fix in found["waiting"]), key=lambda fix: fix.located_at
        ),
    )
