"""How many devices an owner has in each zone is counted as they come, move and go."""

from __future__ import annotations

import pytest
from tests.helpers.fleet import Fleet

MOVES = {
    "one": "update devices set timezone = 'Asia/Tokyo' where hostname = 'pc-1'",
    "out of any": "update devices set timezone = null where hostname = 'pc-1'",
    "one of all that are written": "update devices set last_seen = now(),"
    " timezone = case hostname when 'pc-2' then 'Asia/Tokyo' else timezone end",
    "all": "update devices set timezone = 'Asia/Tokyo'",
    "one that is there already": "insert into devices (owner_id, hostname, timezone)"
    " select owner_id, hostname, 'Asia/Tokyo' from devices where hostname = 'pc-3'"
    " on conflict (owner_id, lower(hostname)) do update set timezone = excluded.timezone",
    "retired": "update devices set status = 'retired' where hostname = 'pc-1'",
    "to somebody else": "update devices set owner_id = %(other)s where hostname = 'pc-1'",
    "deleted": "delete from devices where hostname = 'pc-1'",
}


@pytest.fixture
def zones(fleet: Fleet) -> Fleet:
    for number, zone in enumerate(("Europe/Berlin", "Europe/Berlin", "America/New_York", None)):
        fleet.device(f"pc-{number + 1}", timezone=zone)
    return fleet


def assert_counted(fleet: Fleet) -> None:
    counted = fleet.rows(
        "select owner_id, zone, devices from fleet.owner_zones where devices > 0 order by 1, 2"
    )
    assert counted == fleet.rows(
        "select owner_id, coalesce(timezone, '') as zone, count(*) as devices from devices"
        " where status = 'active' group by 1, 2 order by 1, 2"
    )


@pytest.mark.parametrize("move", MOVES)
def test_each_way_to_move_a_device_is_counted(zones: Fleet, move: str) -> None:
    other = zones.value("insert into owners (name) values ('other') returning id")

    zones.run(MOVES[move] % {"other": f"'{other}'"})

    assert_counted(zones)


@pytest.mark.parametrize("move", ["one", "all", "retired"])
def test_what_is_taken_back_leaves_nothing_behind(zones: Fleet, move: str) -> None:
    with pytest.raises(ZeroDivisionError), zones.conn.transaction():
        zones.run(MOVES[move])
        raise ZeroDivisionError
    assert_counted(zones)

    zones.run("update devices set last_seen = now()")
    zones.run(MOVES[move])
    assert_counted(zones)


def test_to_be_seen_is_no_move(zones: Fleet) -> None:
    before = zones.rows("select xmin::text, * from fleet.owner_zones order by zone")

    zones.run("update devices set last_seen = now(), timezone = timezone")

    assert zones.rows("select xmin::text, * from fleet.owner_zones order by zone") == before
