"""Pages of devices of an MDM: which of ours they mean, what is wrong with one, who has left."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.helpers.inventory import Item, links, names, page, phone


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
    ("known", "error"),
    [
        (None, "external_id is missing"),
        (" ", "external_id is missing"),
        ({"id": 1}, 'external_id cannot be {"id": 1}'),
        ("x" * 300, f"external_id cannot be {'x' * 40}"),
    ],
)
def test_what_cannot_be_told_apart_keeps_no_other_out(mdm: Any, known: Any, error: str) -> None:
    answer = page(mdm, phone(1), phone(2) | {"external_id": known}, phone(3))

    assert names(mdm) == ["phone-1", "phone-3"]
    [told] = answer["errors"]
    assert (told["error"], answer["created"]) == (error, 2)


@pytest.mark.parametrize(
    ("odd", "note"),
    [
        ({"last_seen": "yesterday"}, "last_seen cannot be yesterday"),
        ({"last_seen": ""}, "last_seen cannot be "),
        ({"last_seen": "2026-02-31T10:00:00Z"}, "last_seen cannot be 2026-02-31T10:00:00Z"),
        ({"last_seen": 7}, "last_seen cannot be 7"),
        ({"located_at": "2026-02-11 10:00"}, "located_at cannot be 2026-02-11 10:00"),
        ({"latitude": "north"}, "latitude cannot be north"),
        ({"latitude": 91}, "latitude cannot be 91"),
        ({"longitude": 181}, "longitude cannot be 181"),
        ({"accuracy_m": -1}, "accuracy_m cannot be -1"),
        ({"accuracy_m": 10**400}, f"accuracy_m cannot be 1{'0' * 39}"),
        ({"serial_number": 123456}, "serial_number cannot be 123456"),
        ({"serial_number": {"a": 1}}, 'serial_number cannot be {"a": 1}'),
        ({"platform": ["ios"]}, 'platform cannot be ["ios"]'),
        ({"attributes": "many"}, "attributes cannot be many"),
        ({"profiles": [{"id": 7}]}, 'profiles cannot be [{"id": 7}]'),
        ({"is_enrolled": "no"}, "is_enrolled cannot be no"),
        (
            {"latitude": 0, "longitude": "0.0", "accuracy_m": 0},
            "latitude cannot be 0 by 0 to the metre",
        ),
        (
            {"latitude": True, "serial_number": 7},
            "serial_number cannot be 7; latitude cannot be true",
        ),
    ],
)
def test_one_odd_fact_is_left_out_and_noted_and_the_device_is_not(
    mdm: Any, odd: Item, note: str
) -> None:
    whole = phone(2, attributes={"model": "A"}) | odd
    answer = page(mdm, phone(1), whole, phone(3))

    assert names(mdm) == ["phone-1", "phone-2", "phone-3"]
    assert (answer["created"], answer["errors"]) == (3, [])
    assert answer["notes"] == [{"external_id": whole["external_id"], "error": note}]
    row = mdm.fleet.row("select * from devices where hostname = 'phone-2'")
    assert (row["latitude"], row["last_seen"]) == (None, None)


@pytest.mark.parametrize("name", [5, "x" * 9000, ["a"]])
def test_without_a_name_that_can_be_the_serial_number_or_the_id_is_it(mdm: Any, name: Any) -> None:
    answer = page(
        mdm,
        {"external_id": "1", "name": name},
        {"external_id": "2", "name": name, "serial_number": "S2"},
    )

    assert names(mdm) == ["1", "S2"]
    assert len(answer["notes"]) == 2


def test_times_may_be_numbers_and_an_odd_accuracy_costs_the_position(mdm: Any) -> None:
    where = {"latitude": "60.17", "longitude": 24.94, "accuracy_m": "65"}
    page(
        mdm,
        phone(1, **where, located_at=1770789300),
        phone(2, **where, located_at=1770789300500, last_seen=1770789300),
        phone(3, **where | {"accuracy_m": -1}, located_at=1770789300),
    )

    rows = mdm.fleet.rows("select * from devices order by hostname")
    assert [one["latitude"] for one in rows] == [60.17, 60.17, None]
    at = datetime.fromisoformat("2026-02-11T05:55:00Z")
    assert [one["located_at"] - at for one in rows[:2]] == [
        timedelta(),
        timedelta(milliseconds=500),
    ]
    assert rows[1]["last_seen"] == at


def test_what_is_no_object_is_told_too(mdm: Any) -> None:
    answer = page(mdm, "phone", None, 7, [], phone(1))

    assert [one["error"] for one in answer["errors"]] == ["external_id is missing"] * 4
    assert names(mdm) == ["phone-1"]
