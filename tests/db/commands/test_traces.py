"""Which trace a command belongs to: its own, its run's, or the one that it was made in."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from tests.helpers.fleet import Fleet

GIVEN = "4bf92f3577b34da6a3ce929d0e0e4736"


def trace_of(fleet: Fleet, command_id: int) -> str:
    found: str = fleet.value("select trace_id from command_list where id = %s", command_id)
    return found


def test_the_commands_of_a_run_have_one_trace_and_no_two_runs_the_same(fleet: Fleet) -> None:
    now = datetime.now(UTC)
    made = fleet.minutely(fleet.devices(3), now)
    fleet.tick_until_idle(fleet.schedule(made["id"])["next_run_at"])
    commands = fleet.commands(made["id"])
    traces = {trace_of(fleet, command["id"]) for command in commands}
    assert len(commands) == 3 and len(traces) == 1
    alone = [trace_of(fleet, fleet.send(fleet.device())["id"]) for _ in range(2)]
    assert len({*traces, *alone}) == 3


def test_a_command_keeps_the_trace_that_it_was_made_in(fleet: Fleet) -> None:
    device = fleet.device()
    command = fleet.send(device)["id"]
    fleet.run("update device_commands set trace_id = %s where id = %s", GIVEN, command)
    (claimed,) = fleet.claim(device)
    assert claimed["trace_id"] == trace_of(fleet, command) == GIVEN


@pytest.mark.parametrize("text", ["", "0" * 32, GIVEN.upper(), GIVEN[:-1], f"{GIVEN}0", "x" * 32])
def test_what_is_no_trace_is_refused(fleet: Fleet, text: str) -> None:
    command = fleet.send(fleet.device())["id"]
    with pytest.raises(psycopg.errors.CheckViolation):
        fleet.run("update device_commands set trace_id = %s where id = %s", text, command)
