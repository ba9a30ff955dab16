"""Any number of people, ticks and functions at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.helpers.fleet import Fleet
from tests.helpers.mdm import Mdm

INSTALL = "select p.id from install_profile('7', %s, '1 hour') as p"


@pytest.fixture
def shared(connect: Callable[..., Fleet]) -> Mdm:
    """Make a fleet with an MDM that other sessions see."""
    fleet = connect()
    made = fleet.row(
        "select i.* from create_integration(%s::jsonb) as i",
        json.dumps(
            {
                "integration_type": "simplemdm",
                "owner_id": str(fleet.owner_id),
                "settings": {"rate_per_second": 1000, "burst": 1000},
            }
        ),
    )
    return Mdm(fleet, made["id"])


def test_functions_share_the_commands(shared: Mdm, connect: Callable[..., Fleet]) -> None:
    for _ in range(60):
        shared.install(shared.device())
    functions = [Mdm(connect(owner=shared.fleet), shared.id) for _ in range(4)]

    ids: list[int] = []

    def share(one: Mdm) -> None:
        # Who comes while another is at it takes nothing, and comes again.
        end = time.monotonic() + 60
        while len(ids) < 60 and time.monotonic() < end:
            ids.extend(job["command_id"] for job in one.claim(10))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(share, functions))

    assert len(ids) == len(set(ids)) == 60


def test_people_who_press_the_button_at_once_make_one_pair(
    shared: Mdm, connect: Callable[..., Fleet]
) -> None:
    device = shared.device()
    people = [connect(owner=shared.fleet) for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        ids = set(pool.map(lambda one: one.value(INSTALL, device), people))

    assert len(ids) == 1
    assert shared.fleet.value("select count(*) from schedules") == 2


def test_a_person_who_forgets_to_commit_holds_up_no_tick(
    shared: Mdm, connect: Callable[..., Fleet]
) -> None:
    url = "select fleet.set_setting('functions_url', '\"http://127.0.0.1:9/functions/v1\"')"
    shared.fleet.run(url)
    person, ticker = connect(owner=shared.fleet), connect(owner=shared.fleet)
    device, other = shared.device(), shared.device()
    with person.conn.transaction():
        person.run(INSTALL, device)
        ticker.run("set statement_timeout = '5s'")
        ticker.run(INSTALL, other)
        assert ticker.tick()["errors"] == []

    assert len(shared.claim()) == 2


def test_the_pace_holds_however_many_ask(shared: Mdm, connect: Callable[..., Fleet]) -> None:
    shared.fleet.run(
        'update device_integrations set settings = \'{"rate_per_second": 1, "burst": 10}\''
    )
    askers = [connect(owner=shared.fleet) for _ in range(4)]
    query = "select fleet.worker_reserve_call(%s, '0', false, '2030-01-01 00:00:00Z') ->> 'granted'"

    with ThreadPoolExecutor(4) as pool:
        granted: list[Any] = list(
            pool.map(
                lambda one: [one.value(query, shared.id) for _ in range(5)].count("true"), askers
            )
        )

    assert sum(granted) == 10


def test_a_new_command_wakes_the_function(shared: Mdm) -> None:
    url = "select fleet.set_setting('functions_url', '\"http://127.0.0.1:9/functions/v1\"')"
    shared.fleet.run(url)
    with shared.fleet.conn.transaction():
        shared.install(shared.device())
        poked = shared.fleet.rows("select url from net.http_request_queue")

    assert [row["url"] for row in poked] == ["http://127.0.0.1:9/functions/v1/mdm-dispatch"]
