"""The map as a page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pgfleet.statements import Compared
from pgfleet_console.page import Look, Page, Shown, View
from pgfleet_console.pages.places import drawing
from pgfleet_console.settings import Tiles

LOCATIONS, DEVICES, GEO_SCHEDULES = 500, 2000, 200
QUARTER = 15
GOING = ("active", "waiting", "ending")


async def show(look: Look) -> Shown:
    """Show where locations and devices are, and which geo schedules hold at a time of the day."""
    chosen = look.asked_number("location")
    locations = await look.db.find(
        "location_list", {"id": chosen}, order=("name", "id"), limit=LOCATIONS
    )
    devices = await look.db.find(
        "device_location_list",
        {"latitude": Compared(">= {}", -90)},
        order=("hostname", "id"),
        limit=DEVICES,
    )
    if chosen is not None:
        names = {one["name"] for one in locations}
        devices = [one for one in devices if names & set(one["inside"])]
    geo = await look.db.find("geo_schedule_list", order=("name", "id"), limit=GEO_SCHEDULES)
    minute = _minute(look)
    return Shown(
        "map.html",
        {
            **_drawing(locations, devices, look.tiles),
            "locations": locations,
            "devices": devices,
            "chosen": chosen,
            "minute": minute,
            "clock": f"{minute // 60:02}:{minute % 60:02}",
            "geo": [
                one | {"holds": drawing.holds_at(one, minute)}
                for one in geo
                if one["state"] in GOING
            ],
        },
    )


def _drawing(
    locations: list[dict[str, Any]], devices: list[dict[str, Any]], tiles: Tiles | None
) -> dict[str, Any]:
    frame = drawing.frame_of(locations, devices)
    if frame is None:
        return {"frame": None}
    return {
        "frame": frame,
        "tiles": drawing.tiles(frame, tiles.template) if tiles else [],
        "credit": tiles.credit if tiles else "",
        "grid": drawing.grid(frame),
        "shapes": drawing.drawn_locations(frame, locations),
        "dots": drawing.drawn_devices(frame, devices),
    }


def _minute(look: Look) -> int:
    """Give the minute of the day that is asked for, or the present one in UTC."""
    asked = look.asked_number("minute")
    if asked is None:
        now = datetime.now(UTC)
        asked = now.hour * 60 + now.minute
    return min(asked, 24 * 60 - 1) // QUARTER * QUARTER


PAGE = Page("Map", "/map", "m", views=(View("/map", show, live=True),))
