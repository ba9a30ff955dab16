"""What devices ask for is counted by the day, and how they are is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest


def enrolled(db: Any) -> tuple[int, str]:
    owner, auth = str(uuid4()), str(uuid4())
    db.execute("insert into owners (id, name) values (%s, 'school')", (owner,))
    row = db.execute(
        "insert into devices (owner_id, hostname, auth_id) values (%s, 'pc', %s) returning id",
        (owner, auth),
    ).fetchone()
    return int(row[0]), auth


def counted(db: Any, device: int) -> dict[str, int]:
    row = db.execute(
        "select to_jsonb(r) - '{device_id,owner_id,day,created_at}'::text[]"
        " from device_requests as r where device_id = %s",
        (device,),
    ).fetchone()
    return {name: count for name, count in row[0].items() if count}


@pytest.fixture
def as_device(db: Any, sign_in: Any, sign_out: Any) -> Any:
    """Give a context in which a device is signed in."""

    @contextmanager
    def signed_in(auth: str) -> Iterator[None]:
        sign_in(db, auth)
        yield
        sign_out(db)

    return signed_in


def test_claims_looks_and_check_ins_are_counted(db: Any, as_device: Any) -> None:
    device, auth = enrolled(db)
    with as_device(auth):
        db.execute("select claim_commands()")
    command = "insert into device_commands (device_id, command_type) values (%s, 'buzz')"
    db.execute(command, (device,))
    with as_device(auth):
        db.execute("select claim_commands()")
        # What follows within half a minute, and finds nothing, is the same look.
        db.execute("select claim_commands()")
        db.execute("select device_checkin('{\"sockets\": 2}')")
        # What cannot be is left out.
        for told in ('"many"', "-1", "1e9", "null"):
            db.execute("select device_checkin(%s)", (f'{{"sockets": {told}}}',))

    assert counted(db, device) == {"claims": 1, "looks": 1, "checkins": 5, "sockets": 2}
    row = db.execute("select to_jsonb(l) from request_list as l").fetchone()[0]
    assert (row["devices"], row["requests"], row["a_device"]) == (1, 9, 9)
    assert (row["by_polling"], row["percent_saved"]) == (144, 94)


def test_what_a_device_says_of_its_health_is_listed_and_becomes_a_point(
    db: Any, as_device: Any
) -> None:
    device, auth = enrolled(db)

    def tell(**health: Any) -> None:
        facts = {"attributes": {"health": health}}
        with as_device(auth):
            db.execute("select device_checkin(%s)", (json.dumps(facts),))

    tell(battery_percent=80, is_charging=True, os="Debian")
    tell(battery_percent=80, is_charging=True, os="Debian")
    assert db.execute("select fleet.store_health()").fetchone()[0] == 1
    tell(battery_percent="full", is_charging="so-so", os=7)
    # Once a minute is enough, however often it says something else.
    assert db.execute("select fleet.store_health()").fetchone()[0] == 0
    later = "select fleet.store_health(now() + interval '2 minutes')"
    assert db.execute(later).fetchone()[0] == 1

    points = db.execute(
        "select source, data -> 'battery_percent' from device_telemetry_history"
        " where device_id = %s and stream = 'health' order by recorded_at",
        (device,),
    ).fetchall()
    assert points == [("agent", 80), ("agent", "full")]
    listed = db.execute(
        "select battery_percent, is_charging, os from device_health_list"
    ).fetchall()
    assert listed == [(None, None, None)]


def test_a_rule_hears_of_the_health_of_a_device(db: Any, as_device: Any) -> None:
    device, auth = enrolled(db)
    db.execute(
        "insert into telemetry_rules (owner_id, condition, action_type)"
        " select owner_id, 'battery_percent < 15', 'buzz' from devices where id = %s",
        (device,),
    )
    with as_device(auth):
        db.execute('select device_checkin(\'{"attributes": {"health": {"battery_percent": 9}}}\')')
    db.execute("select fleet.store_health()")

    found = db.execute("select command_type from device_commands where device_id = %s", (device,))
    assert found.fetchall() == [("buzz",)]
