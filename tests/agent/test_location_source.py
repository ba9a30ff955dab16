"""What tells a device where it is: programs that fail, hang or print rubbish, places, walks."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgfleet.agent.location.fix import Fix, metres_between
from pgfleet.agent.location.options import choose_source, parse_place, parse_walk
from pgfleet.agent.location.source import LocationProgram, NoFix
from pgfleet.agent.location.walk import WALKING_SPEED, Walk, WalkArea, fix_of_walk, way
from pgfleet.errors import InvalidInput, NotAllowed

DOCS = Path(__file__).parents[2] / "docs" / "agent"
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
TOWN = WalkArea(52.52, 13.405, 500)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "programs"
    made.mkdir(mode=0o755)
    return made


def program(folder: Path, body: str, name: str = "where") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def look(path: Path, timeout: float = 20) -> Fix:
    return asyncio.run(LocationProgram(path, timeout).look())


def test_a_program_that_prints_a_fix_is_believed(folder: Path) -> None:
    printed = {"latitude": 52.5, "longitude": 13.4, "accuracy_m": 9}
    before = datetime.now(UTC)
    found = look(program(folder, f"echo '{json.dumps(printed)}'"))
    assert (found.latitude, found.longitude, found.accuracy_m) == (52.5, 13.4, 9.0)
    assert before <= found.located_at <= datetime.now(UTC)


def test_a_program_may_tell_the_time_of_its_fix(folder: Path) -> None:
    printed = '{"latitude": 1, "longitude": 2, "located_at": "2026-01-31T13:00:00.5+01:00"}'
    found = look(program(folder, f"echo '{printed}'"))
    assert found.located_at == START + timedelta(seconds=0.5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'no satellites' >&2; exit 3", "where ended with exit code 3: no satellites"),
        ("exit 0", "no JSON"),
        ("echo here", "no JSON"),
        ("echo '[52.5, 13.4]'", "no JSON object"),
        ("echo '{\"latitude\": 52.5}'", "longitude is not a number"),
        ('echo \'{"latitude": NaN, "longitude": 1}\'', "latitude is not within"),
        ('echo \'{"latitude": 1, "longitude": 1} and more\'', "no JSON"),
        ("head -c 100000 /dev/zero | tr '\\0' '['", "no JSON|recursion"),
    ],
)
def test_anything_else_is_no_fix_and_says_why(folder: Path, body: str, says: str) -> None:
    with pytest.raises(NoFix, match=says):
        look(program(folder, body))


def test_a_failure_does_not_tell_where_somebody_is(folder: Path) -> None:
    with pytest.raises(NoFix) as failed:
        look(program(folder, "echo '{\"latitude\": 52.5}'; exit 1"))
    assert "52.5" not in failed.value.message


def test_a_program_that_hangs_is_ended_with_its_children(folder: Path, tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    path = program(folder, f"sleep 60 & echo $! > {pid_file}; wait")
    began = time.monotonic()
    with pytest.raises(NoFix, match="did not end within"):
        look(path, timeout=0.5)
    assert time.monotonic() - began < 20
    # Where nobody collects orphans, what has ended stays listed as a zombie.
    status = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_a_program_does_not_see_the_keys_of_the_agent(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGFLEET_ANON_KEY", "do-not-tell")
    with pytest.raises(NoFix, match=r"exit code 1$"):
        look(program(folder, 'echo "$PGFLEET_ANON_KEY" >&2; exit 1'))


def test_a_program_that_goes_away_is_no_fix_until_it_is_back(folder: Path) -> None:
    path = program(folder, 'echo \'{"latitude": 1, "longitude": 2}\'')
    source = LocationProgram(path, 20)
    content = path.read_text()
    path.unlink()
    with pytest.raises(NoFix, match="cannot be run: No such file"):
        asyncio.run(source.look())
    path.write_text(content)
    path.chmod(0o755)
    assert asyncio.run(source.look()).latitude == 1


def test_a_program_that_everybody_can_write_is_not_run(folder: Path) -> None:
    path = program(folder, "exit 0")
    source = LocationProgram(path, 20)
    path.chmod(0o777)
    with pytest.raises(NoFix, match="can be written by every user"):
        asyncio.run(source.look())
    with pytest.raises(NotAllowed) as refused:
        LocationProgram(path, 20)
    assert refused.value.reason == "location_program_unsafe"


def test_what_is_not_a_program_is_refused_at_the_start(folder: Path) -> None:
    path = program(folder, "exit 0")
    path.chmod(0o644)
    for wrong in (path, folder, folder / "none"):
        with pytest.raises(InvalidInput, match="location-program"):
            LocationProgram(wrong, 20)


@pytest.mark.parametrize(
    ("text", "accuracy_m"), [("52.52,13.405", None), ("52.52, 13.405, 20", 20.0)]
)
def test_a_fixed_place_is_always_there(text: str, accuracy_m: float | None) -> None:
    source = parse_place(text)
    first, second = (asyncio.run(source.look()) for _ in range(2))
    assert (first.latitude, first.longitude, first.accuracy_m) == (52.52, 13.405, accuracy_m)
    assert second.located_at > first.located_at


@pytest.mark.parametrize("text", ["", "52.52", "a,b", "52.52;13.405", "1,2,3,4", "91,0", "nan,0"])
def test_what_is_no_place_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_place(text)
    assert refused.value.hint == "Example: --location 52.52,13.405,20"


@pytest.mark.parametrize("text", ["52.52,13.405", "52,13,0", "52,13,-5", "52,13,1e9", "89,0,50"])
def test_what_is_no_circle_to_walk_in_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_walk(text)
    assert refused.value.hint == "Example: --location-walk 52.52,13.405,500"


def choose(*given: Any, is_simulation: bool = False) -> Any:
    return choose_source(*given, is_simulation=is_simulation, timeout=20)


def test_there_is_one_source_or_none(folder: Path) -> None:
    path = program(folder, "exit 0")
    assert choose(None, None, None) is None
    assert choose("1,2", None, None)("lab-01") is not None
    assert isinstance(choose(None, path, None)("lab-01"), LocationProgram)
    assert isinstance(choose(None, None, "1,2,50", is_simulation=True)("lab-01"), Walk)
    with pytest.raises(InvalidInput, match="--location and --location-program exclude each other"):
        choose("1,2", path, None)
    with pytest.raises(InvalidInput, match="--location and --location-walk exclude"):
        choose("1,2", None, "1,2,50", is_simulation=True)
    with pytest.raises(InvalidInput, match="simulated devices"):
        choose(None, None, "1,2,50")


@given(name=st.text(max_size=20), radius=st.floats(1, 100_000), second=st.floats(0, 4e9))
def test_a_walker_never_leaves_the_circle_and_never_jumps(
    name: str, radius: float, second: float
) -> None:
    here, there = way(name, radius, second), way(name, radius, second + 1)
    assert math.hypot(*here) <= radius
    assert math.dist(here, there) <= 3.5 * WALKING_SPEED
    assert way(name, radius, second) == here


@pytest.mark.parametrize("name", ["sim-0001", "sim-0002", "laptop"])
def test_a_walker_walks_about_as_fast_as_people_do(name: str) -> None:
    steps = [math.dist(way(name, 500, s), way(name, 500, s + 1)) for s in range(0, 40_000, 10)]
    assert sum(steps) / len(steps) == pytest.approx(WALKING_SPEED, rel=0.25)


def test_walkers_go_their_own_ways_and_get_around() -> None:
    one = [way("sim-0001", 500, s) for s in range(0, 20_000, 100)]
    other = [way("sim-0002", 500, s) for s in range(0, 20_000, 100)]
    assert max(map(math.hypot, *zip(*one, strict=True))) > 250
    assert min(map(math.hypot, *zip(*one, strict=True))) < 250
    assert max(math.dist(a, b) for a, b in zip(one, other, strict=True)) > 250


def test_a_walkers_fix_is_off_by_no_more_than_it_says_and_now_and_then_rough() -> None:
    rough = 0
    for second in range(2000):
        at = START + timedelta(seconds=second)
        fix = fix_of_walk("sim-0001", TOWN, at)
        true = Fix(*TOWN.point(*way("sim-0001", 500, at.timestamp())), at)
        assert fix.accuracy_m is not None
        assert metres_between(fix, true) <= fix.accuracy_m + 0.5
        assert 5 <= fix.accuracy_m <= 25 or 300 <= fix.accuracy_m <= 800
        rough += fix.accuracy_m >= 300
    assert 50 <= rough <= 150
    assert fix_of_walk("sim-0001", TOWN, START) == fix_of_walk("sim-0001", TOWN, START)


def test_a_walk_across_the_date_line_stays_on_earth() -> None:
    area = WalkArea(-17.0, 180.0, 5000)
    for second in range(0, 20_000, 50):
        fix = fix_of_walk("sim-0001", area, START + timedelta(seconds=second))
        assert -180 <= fix.longitude <= 180
        assert metres_between(fix, Fix(-17.0, 180.0, START)) <= 5800


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "New location:\nLatitude:    1.000000°\nLongitude:   2.000000°\n"
            "Accuracy:    500.000000 meters\n\n"
            "New location:\nLatitude:    -33.856800°\nLongitude:   151.215300°\n"
            "Accuracy:    12.500000 meters\nDescription: GPS\n",
            (-33.8568, 151.2153, 12.5),
        ),
        ("New location:\nLatitude: 1.0°\nLongitude: 2.0°\nAccuracy: 25000.0 meters\n", None),
        ("", None),
    ],
)
def test_the_example_for_linux_reads_what_geoclue_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: Any
) -> None:
    (folder / "said").write_text(said)
    program(folder, f"cat {folder / 'said'}", name="where-am-i")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    done = subprocess.run([DOCS / "location-geoclue.sh"], capture_output=True, text=True)
    if expected is None:
        assert (done.returncode, done.stdout) == (1, "")
        return
    found = json.loads(done.stdout)
    assert (found["latitude"], found["longitude"], found["accuracy_m"]) == expected
