"""An inventory that is read again: who left, who came back, and what is kept of each."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.inventory import end, gone, links, names, page, phone, sync
from tests.helpers.mdm import Mdm


def test_what_is_told_of_a_device_is_kept(mdm: Any) -> None:
    device = mdm.fleet.device(
        "Phone-1",
        platform="ipados",
        attributes={"room": 7},
        last_seen=datetime.fromisoformat("2026-02-11T06:00:00Z"),
    )
    told = phone(
        1,
        platform="ios",
        serial_number="S1",
        last_seen="2026-02-11T05:00:00Z",
        attributes={"model": "A"},
        profiles=["7", 8],
    )
    page(mdm, told)

    row = mdm.fleet.row("select * from devices where id = %s", device)
    assert row["attributes"] == {"room": 7, "model": "A", "serial_number": "S1"}
    assert (row["platform"], row["last_seen"].isoformat()[:13]) == ("ipados", "2026-02-11T06")
    page(mdm, told | {"profiles": ["8", "8"], "last_seen": "2026-02-11T09:00:00+01:00"})
    profiles = mdm.fleet.rows("select profile_id, is_installed from device_profiles order by 1")
    assert [(one["profile_id"], one["is_installed"]) for one in profiles] == [
        ("7", False),
        ("8", True),
    ]
    row = mdm.fleet.row("select * from devices where id = %s", device)
    assert row["last_seen"] == datetime.fromisoformat("2026-02-11T08:00:00Z")


def test_a_page_that_says_nothing_new_writes_no_device(mdm: Any) -> None:
    page(mdm, phone(1, serial_number="S1", attributes={"a": 1}))
    query = "select ctid::text from devices"
    before = mdm.fleet.value(query)

    assert page(mdm, phone(1, serial_number="S1", attributes={"a": 1}))["updated"] == 1
    assert mdm.fleet.value(query) == before


def test_whom_a_whole_sync_did_not_see_has_left_and_may_come_back(mdm: Any) -> None:
    sync(mdm, phone(1), phone(2), phone(3))

    assert sync(mdm, phone(1))["left"] == 2
    assert gone(mdm) == {"2", "3"}
    assert sync(mdm, phone(1), phone(3))["left"] == 0
    assert gone(mdm) == {"2"}
    device = links(mdm)["2"]
    assert mdm.fleet.value("select count(*) from fleet.mdms_of(array[%s::bigint])", device) == 0


def test_who_was_seen_since_it_began_or_came_in_between_has_not_left(mdm: Any) -> None:
    page(mdm, phone(1), phone(2))
    began = mdm.now()
    page(mdm, phone(1))
    page(mdm, phone(9))

    assert end(mdm, began)["left"] == 1
    assert gone(mdm) == {"2"}


def test_a_sync_that_saw_nobody_takes_nobody_away(mdm: Any) -> None:
    sync(mdm, phone(1), phone(2))

    assert sync(mdm)["left"] == 0
    assert gone(mdm) == set()


def test_one_that_cannot_be_read_is_there_all_the_same(mdm: Any) -> None:
    sync(mdm, phone(1), phone(2))

    answer = sync(mdm, phone(1), phone(2, last_seen="soon"))

    assert (answer["left"], len(answer["notes"]), gone(mdm)) == (0, 1, set())


def test_a_record_without_a_device_is_one_that_left(mdm: Any) -> None:
    sync(mdm, phone(1), phone(2))

    answer = page(mdm, phone(1), phone(2, is_enrolled=False), phone(3, is_enrolled=False))

    assert (answer["created"], answer["updated"], answer["left"]) == (0, 2, 1)
    assert gone(mdm) == {"2"}
    since = mdm.fleet.value("select left_at from device_links where left_at is not null")
    assert page(mdm, phone(2, is_enrolled=False))["left"] == 0
    assert mdm.fleet.value("select left_at from device_links where left_at is not null") == since
    page(mdm, phone(2))
    assert gone(mdm) == set()


@pytest.mark.parametrize("is_told_together", [False, True])
def test_a_device_that_comes_back_under_another_id_is_the_same_device(
    mdm: Any, is_told_together: bool
) -> None:
    sync(mdm, phone(1, serial_number="S1"))
    device = links(mdm)["1"]
    record = phone(1, serial_number="S1", is_enrolled=False)
    again = phone(2, serial_number="S1", name="phone-1")
    if is_told_together:
        sync(mdm, record, again)
    else:
        sync(mdm, record)
        sync(mdm, record, again)

    assert links(mdm) == {"2": device}
    assert (gone(mdm), names(mdm)) == (set(), ["phone-1"])


def test_a_request_made_while_a_sync_runs_is_not_lost(mdm: Any) -> None:
    began = mdm.now()
    mdm.fleet.run("select sync_integration(%s)", mdm.id)
    page(mdm, phone(1))
    end(mdm, began)

    assert mdm.fleet.value("select count(*) from fleet.worker_claim_mdm_syncs()") == 1


def test_other_integrations_and_owners_keep_their_devices(mdm: Any) -> None:
    other = Fleet(mdm.fleet.conn)
    foreign = other.device("phone-1", attributes={"serial_number": "S1"})
    second = mdm.fleet.row(
        "select id from create_integration(%s)",
        Jsonb({"name": "b", "integration_type": "simplemdm", "owner_id": str(mdm.fleet.owner_id)}),
    )
    sync(mdm, phone(1, serial_number="S1"))
    sync(Mdm(mdm.fleet, second["id"]), phone(1, serial_number="S1"))

    assert links(mdm)["1"] == links(Mdm(mdm.fleet, second["id"]))["1"] != foreign
    assert gone(mdm) == set()
    assert mdm.fleet.value("select fleet.worker_sync_inventory(0, '[]')") == {
        "accepted": False,
        "reason": "not_found",
    }


def test_two_who_sync_the_same_at_once_make_each_device_once(
    connect: Callable[..., Fleet],
) -> None:
    first = connect()
    ids = [
        first.value(
            "select id from create_integration(%s)",
            Jsonb({"name": name, "integration_type": "simplemdm", "owner_id": str(first.owner_id)}),
        )
        for name in "ab"
    ]
    sessions = [Mdm(connect(owner=first), ids[number % 2]) for number in range(4)]
    items = [phone(number, serial_number=f"S{number}") for number in range(400)]
    backwards = items[::-1]

    def run(index: int) -> dict[str, Any]:
        return page(sessions[index], *(items if index < 2 else backwards))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(run, range(4)))

    # Two accounts may both make a device that neither has committed yet; under two names then.
    assert [one["errors"] for one in answers] == [[], [], [], []]
    for integration in ids:
        assert len(links(Mdm(first, integration))) == 400
    assert first.value("select count(*) from devices") == sum(one["created"] for one in answers)
    again = [page(one, *items) for one in sessions]
    assert sum(one["created"] for one in again) == 0
