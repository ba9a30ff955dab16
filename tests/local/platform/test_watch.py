"""What is started again, when, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from pgfleet_local.server import watch
from pgfleet_local.server.watch import LONGEST_PAUSE_SECONDS, LOOK_SECONDS, WATCH_SECONDS, Watch


@dataclass
class FakePart:
    """A server whose fate the test decides."""

    name: str = "database"
    patience: float = 10.0
    running: bool = True
    ill: str | None = None
    broken: Exception | None = None
    # It runs although its start failed.
    half_started: bool = False
    did: list[str] = field(default_factory=list)

    def is_running(self) -> bool:
        return self.running

    def complaint(self) -> str | None:
        return self.ill

    def start(self) -> None:
        self.did.append("start")
        self.running = self.broken is None or self.half_started
        if self.broken:
            raise self.broken

    def stop(self) -> None:
        self.did.append("stop")
        self.running = False
        self.ill = None


class World:
    """A watch whose clock the test moves."""

    def __init__(self, *parts: FakePart) -> None:
        self.now = 1000.0
        self.said: list[str] = []
        self.watch = Watch(parts, self.said.append, clock=lambda: self.now)

    def pass_seconds(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += WATCH_SECONDS
            self.watch.look()


def test_a_part_that_ended_is_started_again_at_once() -> None:
    part = FakePart()
    world = World(part)
    world.pass_seconds(60)
    part.running = False
    world.pass_seconds(WATCH_SECONDS)

    assert part.did == ["start"]
    assert world.said == ["database ended, starting it again"]


def test_a_part_that_keeps_ending_is_started_more_and_more_slowly() -> None:
    part = FakePart()
    world = World(part)
    starts: list[float] = []
    for _ in range(12):
        part.running = False
        while not part.running:
            world.pass_seconds(WATCH_SECONDS)
        starts.append(world.now)

    pauses = [round(b - a, 1) for a, b in pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS, abs=1)


def test_a_part_that_cannot_start_is_tried_for_ever() -> None:
    part = FakePart(running=False, broken=RuntimeError("no space left"))
    world = World(part)
    world.pass_seconds(3600)
    assert len(part.did) > 300
    assert "cannot start the database: no space left" in world.said

    part.broken = None
    world.pass_seconds(LONGEST_PAUSE_SECONDS + 1)
    assert part.running


def test_one_part_that_cannot_start_keeps_no_other_from_it() -> None:
    database = FakePart(running=False, broken=RuntimeError("no space left"))
    gateway = FakePart(name="gateway", running=False)
    world = World(database, gateway)
    world.pass_seconds(1)

    assert gateway.running


def test_a_part_that_came_up_though_its_start_failed_is_left_alone() -> None:
    part = FakePart(running=False, broken=RuntimeError("slow"), half_started=True)
    world = World(part)
    world.pass_seconds(120)

    assert part.did == ["start"]


def test_a_part_that_runs_and_does_not_work_is_started_again() -> None:
    part = FakePart(ill="pg_cron has ended", patience=10)
    world = World(part)
    world.pass_seconds(10)
    assert part.did == []
    world.pass_seconds(10)

    assert part.did == ["stop", "start"]
    assert world.said == ["database: pg_cron has ended, starting it again"]
    world.pass_seconds(60)
    assert part.did == ["stop", "start"]


def test_a_part_that_gets_well_in_time_is_left_alone() -> None:
    part = FakePart(ill="it does not answer", patience=60)
    world = World(part)
    for _ in range(10):
        part.ill = "it does not answer"
        world.pass_seconds(50)
        part.ill = None
        world.pass_seconds(LOOK_SECONDS + 1)

    assert part.did == []


def test_parts_are_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    part, looks = FakePart(), []
    monkeypatch.setattr(part, "complaint", lambda: looks.append(1))
    World(part).pass_seconds(60)

    assert len(looks) == pytest.approx(60 / watch.LOOK_SECONDS, abs=2)
