"""The map: a flat drawing, who is where, and what holds at a time of the day."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from tests.helpers.serving import serving

from pgfleet_console.app import create_local
from pgfleet_console.pages.places.drawing import (
    HEIGHT,
    WIDTH,
    drawn_devices,
    drawn_locations,
    frame_of,
    grid,
    holds_at,
    tiles,
)
from pgfleet_console.settings import ConsoleSettings, ConsoleSettingsError, Tiles
from pgfleet_console.viewers import OPERATOR


def place(**more: Any) -> dict[str, Any]:
    known = {"id": 1, "name": "Yard", "inside": 0, "polygon": None, "radius_m": 500}
    return known | {"latitude": 52.5, "longitude": 13.4} | more


def device(latitude: float, longitude: float) -> dict[str, Any]:
    return {"hostname": "x", "inside": [], "latitude": latitude, "longitude": longitude}


def test_everything_is_within_the_drawing() -> None:
    locations, devices = [place()], [device(52.51, 13.42), device(52.49, 13.38)]

    frame = frame_of(locations, devices)

    assert frame is not None and frame_of([], []) is None
    (circle,) = drawn_locations(frame, locations)
    assert 0 < circle["cx"] - circle["r"] and circle["cx"] + circle["r"] < WIDTH
    assert 0 < circle["cy"] - circle["r"] and circle["cy"] + circle["r"] < HEIGHT
    north, south = drawn_devices(frame, devices)
    assert north["x"] > south["x"] and north["y"] < south["y"]
    lines = grid(frame)
    assert {one["axis"] for one in lines} == {"x", "y"}
    assert all(0 <= one["at"] <= (WIDTH if one["axis"] == "x" else HEIGHT) for one in lines)


def test_the_date_line_is_no_border() -> None:
    devices = [device(-17, 179.9), device(-17, -179.9)]

    frame = frame_of([], devices)

    assert frame is not None
    fiji, beyond = drawn_devices(frame, devices)
    assert 0 < fiji["x"] < beyond["x"] < WIDTH
    assert any(one["said"].startswith("-179") for one in grid(frame))


def test_polygons_and_single_points_are_drawn() -> None:
    corners = place(polygon=[[52.5, 13.4], [52.6, 13.4], [52.6, 13.5]], latitude=None)
    frame = frame_of([corners], [])
    assert frame is not None and len(drawn_locations(frame, [corners])[0]["points"].split()) == 3
    alone = frame_of([], [device(0, 0)])
    assert alone is not None and drawn_devices(alone, [device(0, 0)])[0]["x"] == WIDTH / 2


def test_what_goes_over_midnight_holds_on_both_sides() -> None:
    night, day = {"starts": "22:00", "ends": "06:00"}, {"starts": "08:00", "ends": "15:30"}

    assert [holds_at(night, hour * 60) for hour in (21, 22, 0, 5, 6)] == [
        *(False, True, True, True, False)
    ]
    assert [holds_at(day, minute) for minute in (479, 480, 929, 930)] == [False, True, True, False]
    assert holds_at({"starts": "00:00", "ends": "00:00"}, 700), "all day"


def test_places_and_devices_are_on_the_map(console: Any, a_school: Any) -> None:
    with a_school.fleet() as fleet:
        fleet.insert(
            "locations",
            owner_id=a_school.owner,
            name="Yard <1>",
            kind="circle",
            latitude=52.5,
            longitude=13.4,
            radius_m=300,
        )
        fleet.run(
            "update devices set latitude = 52.501, longitude = 13.401, located_at = now()"
            " where id = %s",
            a_school.devices[0],
        )
        fleet.run(
            "insert into geo_schedules (owner_id, name, device_id, apps, start_minute, end_minute)"
            " values (%s, 'No chess', %s, '{chess}', 480, 930)",
            *(a_school.owner, a_school.devices[0]),
        )
    viewer = console("viewer")

    text = viewer.get("/map?minute=600")
    assert "<title>Yard &lt;1&gt;: 0 inside</title>" in text and "<title>lab-01: " in text
    assert "No chess" in text and "holds</span>" in text
    assert "rests</span>" in viewer.get("/map?minute=1000")
    nothing = console("stranger").get("/map?minute=600")
    assert "Yard" not in nothing and "lab-01" not in nothing and "No chess" not in nothing


def test_tiles_lie_where_the_drawing_is() -> None:
    frame = frame_of([], [device(52.5, 13.4), device(52.6, 13.6)])
    assert frame is not None

    found = tiles(frame, "https://tiles.example/{z}/{x}/{y}.png")

    # All of the drawing is covered, and hardly more.
    assert min(one["x"] for one in found) <= 0 and min(one["y"] for one in found) <= 0
    assert max(one["x"] + one["size"] for one in found) >= WIDTH
    assert max(one["y"] + one["size"] for one in found) >= HEIGHT
    assert len(found) <= 60 and all(128 < one["size"] < 400 for one in found)
    # Where the tile of a place is by the common formula, there its dot is.
    by_address = {one["href"]: one for one in found}
    zoom = int(found[0]["href"].split("/")[3])
    column, row = (13.4 + 180) / 360 * 2**zoom, 0.32804645 * 2**zoom
    tile = by_address[f"https://tiles.example/{zoom}/{int(column)}/{int(row)}.png"]
    assert tile["x"] <= frame.x(13.4) <= tile["x"] + tile["size"]
    assert tile["y"] <= frame.y(52.5) <= tile["y"] + tile["size"]


def test_all_of_the_earth_is_few_tiles() -> None:
    frame = frame_of([], [device(-60, -179), device(70, 0), device(0, 179)])
    assert frame is not None
    found = tiles(frame, "https://t.example/{z}/{x}/{y}")
    rows = {int(one["href"].rsplit("/", 1)[1]) for one in found}
    zoom = int(found[0]["href"].split("/")[3])
    assert 0 < len(found) < 60 and rows <= set(range(2**zoom))


@pytest.mark.parametrize(
    "template",
    [
        "https://t.example/{z}/{x}.png",
        "javascript:{z}{x}{y}",
        "https://t.example; script-src */{z}/{x}/{y}",
        "https://t.example/{z}/{x}/{y}/{secret}",
    ],
)
def test_what_is_no_address_of_tiles_is_refused(template: str) -> None:
    with pytest.raises(ConsoleSettingsError, match="PGFLEET_CONSOLE_TILES"):
        Tiles.from_environment({"PGFLEET_CONSOLE_TILES": template})
    assert Tiles.from_environment({}) is None


def test_only_the_host_of_the_tiles_may_be_asked(
    console: Any, a_school: Any, free_port: Any
) -> None:
    with a_school.fleet() as fleet:
        fleet.run(
            "update devices set latitude = 52.5, longitude = 13.4, located_at = now()"
            " where id = %s",
            a_school.devices[1],
        )
    known = Tiles.from_environment(
        {
            "PGFLEET_CONSOLE_TILES": "https://tiles.example:8443/{z}/{x}/{y}.png?a=1",
            "PGFLEET_CONSOLE_TILES_BY": "(c) Us",
        }
    )
    port = free_port()
    app, door = create_local(
        ConsoleSettings(database_url=a_school.database.url(), tiles=known), OPERATOR, port
    )
    with serving(app, port) as url, httpx.Client(base_url=url, follow_redirects=True) as client:
        client.get(door.new_link())
        answer = client.get("/map")
    policy = answer.headers["content-security-policy"]
    assert "img-src 'self' data: https://tiles.example:8443;" in policy
    assert re.search(r'href="https://tiles.example:8443/\d+/\d+/\d+.png\?a=1"', answer.text)
    assert "(c) Us" in answer.text

    plain = console("viewer").http.get("/map")
    assert "<image" not in plain.text
    assert "img-src 'self' data:;" in plain.headers["content-security-policy"]
