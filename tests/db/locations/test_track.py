"""Walking through two locations with the errors that real receivers have."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.locations import Area, point

# Each way leads through the school and the library, from outside to outside.
WAY = [(-700, -30), (-150, 10), (0, 0), (0, 0), (150, -10), (540, 0), (600, 0), (600, 0), (900, 20)]
PACE_M_S = 1.4
STEP_S = 10


def walk(seed: int) -> list[tuple[float, tuple[float, float], float]]:
    """Give (second, place, accuracy): errors that drift, and a bad fix now and then."""
    dice = random.Random(seed)
    track = []
    second, drift = 0.0, [0.0, 0.0]
    for (x, y), (to_x, to_y) in pairwise(WAY):
        length = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
        # Where the way stays, the walker sits for five minutes.
        steps = max(round((length / PACE_M_S if length else 300) / STEP_S), 1)
        for step in range(steps):
            # The error of one fix is like that of the one before.
            drift = [0.8 * value + dice.gauss(0, 3) for value in drift]
            place = (
                x + (to_x - x) * step / steps + drift[0],
                y + (to_y - y) * step / steps + drift[1],
            )
            accuracy = dice.uniform(12, 22)
            if dice.random() < 0.05:
                # Found by the cells around: far off, and it says so.
                place = (place[0] + dice.uniform(-200, 200), place[1] + dice.uniform(-200, 200))
                accuracy = dice.uniform(300, 800)
            track.append((second, place, accuracy))
            second += STEP_S
    return track


EXPECTED = [("entered", "School"), ("left", "School"), ("entered", "Library"), ("left", "Library")]


@pytest.mark.parametrize("seed", range(4))
def test_a_walk_fires_each_entry_and_each_exit_once(area: Area, seed: int) -> None:
    for location in (area.school, area.library):
        area.policy("enter", location)
        area.policy("leave", location)
    device = area.fleet.device()
    for second, place, accuracy in walk(seed):
        area.report(device, second, place, accuracy)
    area.act()

    assert area.crossings(device) == EXPECTED
    made = Counter((s["payload"]["message"], s["name"].split()[-1]) for s in area.schedules())
    assert made == Counter({(e, n): 1 for e in ("enter", "leave") for n in ("School", "Library")})
    commands = area.fleet.rows("select status from device_commands where device_id = %s", device)
    assert len(commands) == 4


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_settled_by_a_fix_whose_error_crosses_the_border(area: Area, seed: int) -> None:
    device = area.fleet.device()
    for second, place, accuracy in walk(seed):
        before = len(area.crossings(device))
        unclear = area.fleet.value(
            "select coalesce(bool_or("
            " fleet.side_of_fix(fleet.border_distance_m(l, %s, %s), %s, l.hysteresis_m, false)"
            " = 'unclear'), false) from locations as l"
            " where l.owner_id = %s",
            *point(*place),
            accuracy,
            area.fleet.owner_id,
        )
        area.report(device, second, place, accuracy)
        assert not (unclear and len(area.crossings(device)) > before)
    assert len(area.crossings(device)) == 4


@pytest.mark.parametrize("seed", range(3))
def test_a_sync_in_large_pieces_finds_what_single_reports_find(area: Area, seed: int) -> None:
    one, other = area.fleet.device(), area.fleet.device()
    fixes = []
    for second, place, accuracy in walk(seed):
        area.report(one, second, place, accuracy)
        latitude, longitude = point(*place)
        fix = {
            "device_id": other,
            "latitude": latitude,
            "longitude": longitude,
            "accuracy_m": accuracy,
            "located_at": area.at(second).isoformat(),
        }
        fixes.append(fix)
    random.Random(seed).shuffle(fixes)
    # All at once, in no order, and half of them twice.
    area.fleet.run("select fleet.take_fixes(%s, now())", Jsonb([*fixes, *fixes[: len(fixes) // 2]]))
    query = (
        "select event, location_name, at, fix_at from location_events where device_id = %s"
        " order by fix_at, event, location_name"
    )
    assert area.fleet.rows(query, other) == area.fleet.rows(query, one)
    assert area.crossings(other) == EXPECTED
