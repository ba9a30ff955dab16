"""Pages of devices of an MDM: which of ours they mean, what is wrong with one, who has left."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.mdm import Mdm

Item = dict[str, Any]


def page(mdm: Mdm, *items: Any, now: datetime | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_sync_inventory(%s, %s, coalesce(%s, clock_timestamp()))",
        mdm.id,
        Jsonb(list(items)),
        now,
    )
    return answer


def end(mdm: Mdm, began: datetime, devices: int = 1, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_end_mdm_sync(%s, %s, %s)",
        mdm.id,
        began,
        Jsonb({"counts": {"devices": devices}, **more}),
    )
    return answer


def sync(mdm: Mdm, *items: Item) -> dict[str, Any]:
    began = mdm.now()
    answer = page(mdm, *items)
    answer["left"] += end(mdm, began, len(items))["left"]
    return answer


def links(mdm: Mdm) -> dict[str, int]:
    rows = mdm.fleet.rows("select * from device_links where integration_id = %s", mdm.id)
    return {row["external_id"]: row["device_id"] for row in rows}


def gone(mdm: Mdm) -> set[str]:
    rows = mdm.fleet.rows("select external_id from device_links where left_at is not null")
    return {row["external_id"] for row in rows}


def names(mdm: Mdm) -> list[str]:
    rows = mdm.fleet.rows("select hostname from devices order by hostname")
    return [row["hostname"] for row in rows]


def phone(number: int, **more: Any) -> Item:
    return {"external_id": str(number), "name": f"phone-{number}", **more}


# What the database has to find, written down once more as one would say it.


def expected(
    devices: dict[int, tuple[str, str | None]],
    linked: dict[str, tuple[int, bool]],
    items: list[Item],
) -> dict[str, int | None]:
    """Give the device that each item means, None for a new one; later copies of an item count."""
    last = {item["external_id"]: item for item in items}
    told = [item for index, item in enumerate(items) if item is last[item["external_id"]]]
    found: dict[str, int | None] = {
        item["external_id"]: linked[item["external_id"]][0]
        for item in told
        if item["external_id"] in linked
    }
    taken = set(found.values())
    rest = [item for item in told if item["external_id"] not in found]
    present = {device for device, has_left in linked.values() if not has_left}
    ever = {device for device, _ in linked.values()}
    for item in rest:
        for device, (_, serial) in sorted(devices.items()):
            if serial and serial == item["serial_number"] and device not in taken | present:
                found[item["external_id"]] = device
                taken.add(device)
                break
    for item in rest:
        if item["external_id"] in found:
            continue
        found[item["external_id"]] = None
        for device, (name, serial) in devices.items():
            other = serial and item["serial_number"] and serial != item["serial_number"]
            if name == item["name"].lower() and not other and device not in taken | ever:
                found[item["external_id"]] = device
                taken.add(device)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_each_item_means_the_device_that_it_should(mdm: Any, seed: int) -> None:
    chance = random.Random(seed)
    serials = [None, *(f"S{number}" for number in range(60))]
    devices: dict[int, tuple[str, str | None]] = {}
    linked: dict[str, tuple[int, bool]] = {}
    for number in range(120):
        serial = chance.choice(serials)
        device = mdm.fleet.device(
            f"Phone-{number}", attributes={"serial_number": serial} if serial else {}
        )
        devices[device] = (f"phone-{number}", serial)
        if chance.random() < 0.4:
            has_left = chance.random() < 0.4
            linked[str(1000 + number)] = (device, has_left)
            mdm.fleet.insert(
                "device_links",
                device_id=device,
                integration_id=mdm.id,
                owner_id=mdm.fleet.owner_id,
                external_id=str(1000 + number),
                left_at=mdm.now() if has_left else None,
            )
    items = [
        {
            "external_id": str(chance.choice([1000, 5000]) + chance.randrange(150)),
            "name": f"PHONE-{chance.randrange(140)}",
            "serial_number": chance.choice(serials),
        }
        for _ in range(300)
    ]

    wanted = expected(devices, linked, items)
    answer = page(mdm, *items)

    assert answer["errors"] == []
    found = {key: links(mdm)[key] for key in wanted}
    news = [key for key, device in wanted.items() if device is None]
    assert {key: found[key] for key in wanted if key not in news} == {
        key: device for key, device in wanted.items() if device is not None
    }
    assert not {found[key] for key in news} & set(devices)
    assert len(set(found.values())) == len(found)
    assert (answer["created"], answer["updated"]) == (len(news), len(wanted) - len(news))
    # The same once more finds what it made.
    again = page(mdm, *items)
    assert (again["created"], again["updated"]) == (0, len(wanted))
    assert {key: links(mdm)[key] for key in wanted} == found


def test_thousands_come_in_at_once(mdm: Any) -> None:
    answer = page(mdm, *(phone(number, serial_number=f"S{number}") for number in range(3000)))

    assert (answer["created"], answer["updated"], answer["errors"]) == (3000, 0, [])


def test_a_name_that_is_taken_gets_the_id_of_the_other_system(mdm: Any) -> None:
    # It is another one: its serial number says so.
    mdm.fleet.device("iPad", attributes={"serial_number": "S0"})
    mdm.fleet.device("Mac (7)", attributes={"serial_number": "S1"})
    answer = page(
        mdm,
        {"external_id": "5", "name": "IPAD", "serial_number": "S5"},
        {"external_id": "6", "name": "Mac", "serial_number": "S6"},
        {"external_id": "7", "name": "mac", "serial_number": "S7"},
        {"external_id": "8", "name": "  ", "serial_number": "S8"},
        {"external_id": "9"},
    )

    assert names(mdm) == ["9", "IPAD (5)", "Mac", "Mac (7)", "S8", "iPad"]
    assert answer["created"] == 4
    [error] = answer["errors"]
    assert error == {"external_id": "7", "error": "the host names mac and mac (7) are taken"}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"external_id": None}, "external_id is missing"),
        ({"external_id": " "}, "external_id is missing"),
        ({"external_id": {"id": 1}}, 'external_id cannot be {"id": 1}'),
        ({"last_seen": "yesterday"}, "last_seen cannot be yesterday"),
        ({"last_seen": "2026-02-31T10:00:00Z"}, "last_seen cannot be 2026-02-31T10:00:00Z"),
        ({"located_at": "2026-02-11 10:00"}, "located_at cannot be 2026-02-11 10:00"),
        ({"latitude": "north"}, "latitude cannot be north"),
        ({"longitude": 181}, "longitude cannot be 181"),
        ({"accuracy_m": -1}, "accuracy_m cannot be -1"),
        ({"accuracy_m": 10**400}, f"accuracy_m cannot be 1{'0' * 39}"),
        ({"name": 5}, "name cannot be 5"),
        ({"name": "x" * 9000}, f"name cannot be {'x' * 40}"),
        ({"platform": ["ios"]}, 'platform cannot be ["ios"]'),
        ({"attributes": "many"}, "attributes cannot be many"),
        ({"profiles": [{"id": 7}]}, 'profiles cannot be [{"id": 7}]'),
        ({"is_enrolled": "no"}, "is_enrolled cannot be no"),
        (
            {"latitude": True, "serial_number": 7},
            "serial_number cannot be 7; latitude cannot be true",
        ),
    ],
)
def test_what_is_wrong_with_one_is_told_and_keeps_no_other_out(
    mdm: Any, wrong: Item, error: str
) -> None:
    odd = phone(2) | wrong
    answer = page(mdm, phone(1), odd, phone(3))

    assert names(mdm) == ["phone-1", "phone-3"]
    known = odd["external_id"]
    if isinstance(known, dict):
        known = '{"id": 1}'
    assert answer["errors"] == [{"external_id": known, "error": error}]
    assert answer["created"] == 2


def test_what_is_no_object_is_told_too(mdm: Any) -> None:
    answer = page(mdm, "phone", None, 7, [], phone(1))

    assert [one["error"] for one in answer["errors"]] == ["external_id is missing"] * 4
    assert names(mdm) == ["phone-1"]


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

    assert (answer["left"], len(answer["errors"]), gone(mdm)) == (0, 1, set())


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
