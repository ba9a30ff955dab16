"""In which time zone this device is, by its IANA name."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import tzlocal

logger = logging.getLogger(__name__)


def zone_name() -> str | None:
    """Find the zone of this device as it is set at this moment, on whatever system.

    None where the system does not tell; the server then goes by what it knew.
    """
    try:
        # It remembers the first answer; people travel, and their laptops with them.
        tzlocal.reload_localzone()
        name = tzlocal.get_localzone_name()
    except (LookupError, OSError, ValueError) as error:
        logger.debug("the time zone cannot be told: %s", error)
        name = None
    return name if name and "/" in name else _linked_name() or name or None


def _linked_name() -> str | None:
    """Follow the link of a Unix system, where nothing else names the zone."""
    target = os.path.realpath("/etc/localtime")
    if "/zoneinfo/" in target:
        return target.split("/zoneinfo/", 1)[1].removeprefix("posix/")
    try:
        return Path("/etc/timezone").read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
