"""An owner is copied only when all that devices had begun before it was held still has ended."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from tests.helpers.fleet import Fleet


def under_way(fleet: Fleet) -> int:
    found: int = fleet.value("select fleet.begin_move(%s)", fleet.owner_id)["under_way"]
    return found


def test_what_a_device_has_not_committed_is_waited_for(connect: Callable[..., Fleet]) -> None:
    people = connect()
    device = people.device()
    command = people.send(device)
    agent = connect(owner=people)
    agent.conn.autocommit = False
    with agent.as_device(device):
        (claimed,) = agent.rows("select * from claim_commands()")
        agent.conn.commit()
    with agent.as_device(device):
        done = agent.value(
            "select finish_command(%s, %s, 'completed')", claimed["command_id"], claimed["attempt"]
        )
        assert done["accepted"]

    # Said, and not committed: a copy that is made now would hand it out once more.
    assert under_way(people) > 0
    assert people.command(command["id"])["status"] == "running"
    assert under_way(people) == 1
    agent.conn.commit()
    assert under_way(people) == 0
    assert people.command(command["id"])["status"] == "completed"


def test_what_begins_later_sees_it_and_is_not_waited_for(connect: Callable[..., Fleet]) -> None:
    people = connect()
    device = people.device()
    agent = connect(owner=people)
    agent.conn.autocommit = False
    assert under_way(people) == 1
    assert under_way(people) == 0
    with pytest.raises(psycopg.Error, match="being moved"), agent.as_device(device):
        agent.rows("select * from claim_commands()")
    agent.conn.rollback()
    agent.run("select fleet.is_moving(%s)", people.owner_id)
    assert under_way(people) == 0


def test_an_owner_that_stays_and_leaves_again_is_looked_at_anew(
    connect: Callable[..., Fleet],
) -> None:
    people = connect()
    assert [under_way(people), under_way(people)] == [1, 0]
    people.run("select fleet.give_up_move(%s)", people.owner_id)
    agent = connect(owner=people)
    agent.conn.autocommit = False
    agent.run("select fleet.is_moving(%s)", people.owner_id)
    assert [under_way(people), under_way(people)] == [1, 1]
    agent.conn.rollback()
    assert under_way(people) == 0
