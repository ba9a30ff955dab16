"""What a device keeps of its geo actions, so that it goes on for days without a network.

One JSON object in the state folder, replaced at once:

    {"device_id", "clock": {at, monotonic, boot_id, is_sure}, "courses": [{action, status, …}]}
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pgfleet.agent import state
from pgfleet.agent.geo.actions import Course, GeoAction

logger = logging.getLogger(__name__)

GEO = "geo.json"


@dataclass(slots=True)
class GeoState:
    """Hold what is known of one device."""

    device_id: int
    courses: dict[int, Course] = field(default_factory=dict)
    clock: dict[str, Any] | None = None

    def to_text(self) -> str:
        """Give the content of the file."""
        courses = [_course_json(course) for course in self.courses.values()]
        content = {"device_id": self.device_id, "clock": self.clock, "courses": courses}
        return json.dumps(content) + "\n"


def load(folder: Path, device_id: int) -> GeoState:
    """Read what is known of a device; nothing where there is no file or another device's."""
    path = folder / GEO
    if path.is_file():
        state.refuse_shared(path)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if int(found["device_id"]) == device_id:
                courses = [_course(one) for one in found["courses"]]
                known = {one.action.geo_action_id: one for one in courses}
                return GeoState(device_id, known, found["clock"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # The server has it all, and is asked at the start.
            logger.warning("%s cannot be understood and is not used: %s", path, error)
    return GeoState(device_id)


def save(folder: Path, text: str) -> None:
    """Replace the file. A disk that is full costs what was learnt since, and no more."""
    path = folder / GEO
    try:
        state.write_private(path, text)
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error.strerror or error)


def _course_json(course: Course) -> dict[str, Any]:
    status, met_at = course.told
    return {
        "action": course.action.to_json(),
        "status": course.status,
        "is_inside": course.is_inside,
        "is_met": course.is_met,
        "met_at": _text(course.met_at),
        "reason": course.reason,
        "told": [status, _text(met_at)],
    }


def _course(found: Mapping[str, Any]) -> Course:
    status, met_at = found["told"]
    return Course(
        action=GeoAction.from_json(found["action"]),
        status=str(found["status"]),
        is_inside=bool(found["is_inside"]),
        is_met=bool(found["is_met"]),
        met_at=_instant(found["met_at"]),
        reason=found["reason"],
        told=(status, _instant(met_at)),
    )


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
