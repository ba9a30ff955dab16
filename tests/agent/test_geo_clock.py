"""The server's time on a device whose clock anybody may set."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgfleet.agent.geo.clock import ServerClock, Ticks

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


@dataclass
class Machine:
    """A machine whose wall clock and boots are in our hands."""

    wall: datetime = NOON
    uptime: float = 1000.0
    boots: int = 1
    kept: dict[str, Any] | None = None
    clock: ServerClock = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the agent with what it saved."""
        ticks = Ticks(lambda: f"boot-{self.boots}", lambda: self.uptime, lambda: self.wall)
        self.clock = ServerClock.resume(ticks, self.kept)

    def passes(self, span: timedelta) -> None:
        self.uptime += span.total_seconds()
        self.wall += span

    def restarts(self) -> None:
        self.kept = self.clock.saved()
        self.start()

    def reboots(self, off_for: timedelta) -> None:
        self.kept = self.clock.saved()
        self.boots, self.uptime, self.wall = self.boots + 1, 20.0, self.wall + off_for
        self.start()


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.clock.heard(NOON)
    return made


@pytest.mark.parametrize("jump", [timedelta(days=400), timedelta(days=-400), timedelta(hours=3)])
def test_a_wall_clock_that_jumps_while_the_device_is_up_is_ignored(
    machine: Machine, jump: timedelta
) -> None:
    machine.wall += jump
    machine.passes(timedelta(hours=2))
    assert machine.clock.now() == NOON + timedelta(hours=2)


def test_nor_does_a_restart_of_the_agent_believe_it(machine: Machine) -> None:
    machine.wall += timedelta(days=9)
    machine.restarts()
    machine.passes(timedelta(minutes=7))
    assert machine.clock.now() == NOON + timedelta(minutes=7)
    assert machine.clock.heard(NOON + timedelta(minutes=7)) is None


def test_after_a_boot_time_has_gone_on(machine: Machine) -> None:
    machine.reboots(timedelta(days=3))
    machine.passes(timedelta(minutes=1))
    assert machine.clock.now() == NOON + timedelta(days=3, minutes=1)
    # It was right, so there is nothing to tell.
    assert machine.clock.heard(NOON + timedelta(days=3, minutes=1, seconds=5)) is None


def test_after_a_boot_time_is_never_earlier_than_it_was(machine: Machine) -> None:
    machine.passes(timedelta(hours=5))
    machine.reboots(timedelta(days=-30))
    assert machine.clock.now() == NOON + timedelta(hours=5)


def test_a_jump_ahead_over_a_boot_is_told_at_the_next_contact(machine: Machine) -> None:
    machine.reboots(timedelta(days=2))
    moved = machine.clock.heard(NOON + timedelta(hours=1))
    assert moved == pytest.approx(47 * 3600)
    # Once: from then on the server's time is known.
    machine.passes(timedelta(minutes=1))
    assert machine.clock.heard(NOON + timedelta(hours=1, minutes=9)) is None
    assert machine.clock.now() == NOON + timedelta(hours=1, minutes=9)


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"at": "yesterday", "boot_id": "boot-1", "monotonic": 1, "is_sure": True},
        {"at": NOON.isoformat(), "boot_id": "boot-1", "monotonic": "x", "is_sure": True},
        {"at": "9999-12-31T23:59:59-23:59", "boot_id": None, "monotonic": 1, "is_sure": True},
    ],
)
def test_what_cannot_be_read_counts_for_nothing(kept: dict[str, Any]) -> None:
    assert Machine(kept=kept).clock.now() == NOON


def test_a_boot_without_a_name_is_another_one() -> None:
    kept = {"at": NOON.isoformat(), "boot_id": None, "monotonic": 1000.0, "is_sure": True}
    machine = Machine(kept=kept, wall=NOON + timedelta(hours=1))
    assert machine.clock.now() == NOON + timedelta(hours=1)
    assert not machine.clock.is_sure
