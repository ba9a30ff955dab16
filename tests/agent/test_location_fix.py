"""When a fix is told and when the device looks again: decisions without a clock."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgfleet.agent.location.fix import (
    EARTH_RADIUS_M,
    FOLLOW_UP_SECONDS,
    KEEP_ALIVE_SECONDS,
    Fix,
    Told,
    Why,
    after_report,
    metres_between,
    next_look_seconds,
    parse_fix,
    why_to_report,
)

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
DEGREES_A_METRE = math.degrees(1 / EARTH_RADIUS_M)
DAY = 24 * 3600


def seen(second: float, north: float = 0.0, accuracy_m: float | None = 5.0) -> Fix:
    """Give a fix so many seconds after the start and metres north of the middle."""
    at = START + timedelta(seconds=second)
    return Fix(52.52 + north * DEGREES_A_METRE, 13.405, at, accuracy_m)


def told(second: float = 0.0, follow_ups: int = 0, **more: Any) -> Told:
    return Told(seen(second, **more), follow_ups)


def live(track: Any, every: float, until: float) -> list[tuple[float, Why]]:
    """Let a device look as it would, and give when it told what."""
    state: Told | None = None
    reports: list[tuple[float, Why]] = []
    second = 0.0
    while second < until:
        fix = track(second)
        if (why := why_to_report(state, fix)) is not None:
            state = after_report(state, fix, why)
            reports.append((second, why))
        second += next_look_seconds(every, state, fix)
    return reports


def test_the_first_fix_is_news() -> None:
    assert why_to_report(None, seen(0)) is Why.FIRST


@pytest.mark.parametrize(
    ("before", "now", "metres", "why"),
    [
        (5.0, 5.0, 9, None),
        (5.0, 5.0, 11, Why.MOVED),
        (None, None, 11, Why.MOVED),
        (5.0, 40.0, 30, None),
        (40.0, 25.0, 30, None),
        (40.0, 25.0, 41, Why.MOVED),
        # A fall back to a cell tower.
        (5.0, 500.0, 300, None),
        # And back to satellites.
        (500.0, 5.0, 300, Why.SHARPER),
        (500.0, 5.0, 0, Why.SHARPER),
        (500.0, 300.0, 0, None),
        (24.0, 5.0, 0, None),
    ],
)
def test_a_fix_is_news_when_it_is_clear_of_what_was_told_or_much_surer(
    before: float | None, now: float | None, metres: float, why: Why | None
) -> None:
    state = told(accuracy_m=before)
    assert why_to_report(state, seen(10, metres, accuracy_m=now)) is why


@pytest.mark.parametrize("second", [-100, 0])
def test_a_fix_that_is_not_newer_is_never_told(second: float) -> None:
    assert why_to_report(told(), seen(second, north=5000)) is None


def test_steps_that_are_each_too_small_add_up() -> None:
    state = told()
    reasons = [why_to_report(state, seen(second, north=second * 4)) for second in range(1, 4)]
    assert reasons == [None, None, Why.MOVED]


def test_follow_ups_come_at_doubling_pauses_until_only_the_keep_alive_is_left() -> None:
    reports = live(seen, every=300, until=4 * 3600)
    assert reports[0] == (0.0, Why.FIRST)
    assert {why for _, why in reports[1:]} == {Why.FOLLOW_UP}
    seconds = [second for second, _ in reports]
    pauses = [b - a for a, b in pairwise(seconds)]
    assert pauses == [62, 124, 248, 496, 992, 1984, 3600, 3600]


def test_a_device_that_moves_is_told_once_a_minute_however_seldom_it_looks() -> None:
    reports = live(lambda second: seen(second, north=1.4 * second), every=300, until=1800)
    assert [why for _, why in reports[1:]] == [Why.MOVED] * (len(reports) - 1)
    assert reports[1][0] == FOLLOW_UP_SECONDS
    assert len(reports) == math.ceil(1800 / FOLLOW_UP_SECONDS)


def test_a_look_that_brings_nothing_new_does_not_hurry_the_next() -> None:
    assert next_look_seconds(300, None, None) == 300
    assert next_look_seconds(300, told(), None) == 300


@given(
    every=st.floats(0.5, 3600),
    north=st.floats(-4, 4),
    accuracy_m=st.one_of(st.none(), st.floats(0, 25)),
)
@settings(max_examples=50, deadline=None)
def test_a_device_that_lies_still_tells_little_but_is_never_silent_for_long(
    every: float, north: float, accuracy_m: float | None
) -> None:
    def shaken(second: float) -> Fix:
        return seen(second, north * math.sin(second), accuracy_m)

    # Where a device looks every half a second a day is a long time to play.
    until = min(DAY, every * 20_000)
    seconds = [second for second, _ in live(shaken, every, until)]
    assert len(seconds) <= 7 + until / KEEP_ALIVE_SECONDS
    pauses = [b - a for a, b in pairwise([*seconds, until])]
    assert max(pauses) <= KEEP_ALIVE_SECONDS + every


@given(every=st.floats(1, 300), moved_at=st.floats(100, 20_000), min_dwell=st.floats(0, 900))
@settings(max_examples=100, deadline=None)
def test_a_move_is_confirmed_after_min_dwell_and_not_long_after(
    every: float, moved_at: float, min_dwell: float
) -> None:
    def track(second: float) -> Fix:
        return seen(second, north=0 if second < moved_at else 500)

    reports = live(track, every, moved_at + every + 3 * min_dwell + 400)
    moved = next(second for second, why in reports if why is Why.MOVED)
    assert moved_at <= moved <= moved_at + every
    confirmed = next(second for second, _ in reports if second >= moved + max(min_dwell, 1e-9))
    assert confirmed - moved <= FOLLOW_UP_SECONDS + 2 * min_dwell + every


@pytest.mark.parametrize(
    ("one", "other", "metres"),
    [
        ((52.52, 13.405), (52.52, 13.405), 0),
        ((0, 0), (0, 180), math.pi * EARTH_RADIUS_M),
        ((0, 179.9999), (0, -179.9999), 22.24),
        ((52.52, 13.405), (48.8566, 2.3522), 877_463),
    ],
)
def test_distances_are_those_over_the_ground(
    one: tuple[float, float], other: tuple[float, float], metres: float
) -> None:
    found = metres_between(Fix(*one, START), Fix(*other, START))
    assert found == pytest.approx(metres, rel=1e-3)


def test_what_a_program_leaves_out_is_unknown_or_now() -> None:
    assert parse_fix({"latitude": 1, "longitude": -2.5}, START) == Fix(1.0, -2.5, START, None)


def test_a_fix_comes_back_from_its_json_as_it_was() -> None:
    assert parse_fix(seen(7).to_json(), START) == seen(7)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latitude": None}, "latitude"),
        ({"latitude": "52"}, "latitude"),
        ({"latitude": True}, "latitude"),
        ({"latitude": 90.1}, "latitude is not within -90 to 90"),
        ({"latitude": math.nan}, "latitude"),
        ({"longitude": math.inf}, "longitude"),
        ({"longitude": -180.5}, "longitude"),
        ({"accuracy_m": -1}, "accuracy_m"),
        ({"accuracy_m": "good"}, "accuracy_m"),
        ({"located_at": "yesterday"}, "located_at is not a time"),
        ({"located_at": 17}, "located_at is not a time"),
        ({"located_at": True}, "located_at is not a time"),
        ({"latitude": 0, "longitude": 0.0, "accuracy_m": 0}, "a receiver says that knows nothing"),
        ({"located_at": "2026-01-31T12:00:00"}, "offset"),
        ({"located_at": "0001-01-01T00:00:00+14:00"}, "located_at"),
    ],
)
def test_what_is_no_fix_says_why(change: dict[str, Any], says: str) -> None:
    good = {"latitude": 52.5, "longitude": 13.4, "accuracy_m": 5, "located_at": "2026-01-31T12:00Z"}
    parse_fix(good, START)
    with pytest.raises(ValueError, match=says):
        parse_fix({**good, **change}, START)
