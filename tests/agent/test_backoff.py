"""Waiting between attempts: bounded, spread, and steady over long outages."""

from __future__ import annotations

import random

from pgfleet.agent.backoff import Backoff, jittered, stretched


def test_the_bound_doubles_up_to_the_limit() -> None:
    backoff = Backoff(5, 300)
    bounds = []
    for _ in range(8):
        bounds.append(backoff.bound)
        backoff.next_delay()
    assert bounds == [5, 10, 20, 40, 80, 160, 300, 300]


def test_every_delay_is_between_nothing_and_the_bound() -> None:
    backoff = Backoff(5, 300, random=random.Random(1))
    for _ in range(200):
        bound = backoff.bound
        assert 0 <= backoff.next_delay() <= bound


def test_delays_of_two_devices_differ() -> None:
    one, other = Backoff(5, 300), Backoff(5, 300)
    assert [one.next_delay() for _ in range(5)] != [other.next_delay() for _ in range(5)]


def test_an_outage_of_days_does_not_overflow() -> None:
    backoff = Backoff(1.0, 60.0, attempt=1_000_000)
    assert 0 <= backoff.next_delay() <= 60


def test_reset_starts_from_the_beginning() -> None:
    backoff = Backoff(5, 300, attempt=4)
    backoff.reset()
    assert backoff.bound == 5


def test_asking_for_patience_skips_the_short_waits_only() -> None:
    backoff = Backoff(5, 300)
    backoff.at_least(3)
    assert backoff.bound == 40
    backoff.attempt = 5
    backoff.at_least(3)
    assert backoff.bound == 160


def test_jitter_stays_within_its_share() -> None:
    assert all(270 <= jittered(300) <= 330 for _ in range(100))


def test_a_quiet_interval_stretches_to_an_hour_and_never_shrinks() -> None:
    assert [stretched(300, 3600, times) for times in range(6)] == [300, 600, 1200, 2400, 3600, 3600]
    assert stretched(7200, 3600, 3) == 7200
    assert stretched(300, 3600, 10_000) == 3600
