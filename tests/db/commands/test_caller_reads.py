"""Who calls is one look into one index, and a claim reads what it takes, not all that waits."""

from __future__ import annotations

import pytest
from tests.helpers.fleet import Fleet

MANY = 200


@pytest.mark.parametrize(
    "asked",
    [
        "select fleet.current_device_id()",
        "select fleet.working_device_id()",
        "select count(*) from claim_commands()",
        "select device_checkin()",
    ],
)
def test_of_many_new_devices_only_the_one_that_calls_is_read(fleet: Fleet, asked: str) -> None:
    device = fleet.device()
    fleet.run(
        "insert into devices (owner_id, hostname, auth_id, last_seen)"
        " select %s, 'new-' || i, gen_random_uuid(), now() from generate_series(1, %s) as i",
        fleet.owner_id,
        MANY,
    )
    fleet.run("update devices set last_seen = clock_timestamp() where id = %s", device)
    before = read(fleet)
    for _ in range(3):
        with fleet.as_device(device):
            fleet.value(asked)
    # The row itself, and its versions of this transaction.
    assert read(fleet) - before <= 20


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize(
    "asked", ["select count(*) from claim_commands(10)", "select work('[]', 10)"]
)
def test_of_what_waits_for_a_device_only_what_it_takes_is_read(
    fleet: Fleet, asked: str, analyzed: bool
) -> None:
    device = busy_device(fleet)
    if analyzed:
        fleet.run("analyze device_commands")
    before = read(fleet, "device_commands")
    for _ in range(3):
        with fleet.as_device(device):
            fleet.value(asked)
    after = read(fleet, "device_commands")
    taken = fleet.value(
        "select count(*) from device_commands where device_id = %s and status = 'running'", device
    )
    assert taken == 30
    # Each is found, locked and changed, and leaves a version behind.
    assert after - before <= 10 * taken


def test_a_check_in_counts_no_more_than_a_claim_takes(fleet: Fleet) -> None:
    device = busy_device(fleet)
    before = read(fleet, "device_commands")
    with fleet.as_device(device):
        assert fleet.value("select device_checkin()")["pending"] == 100
    assert read(fleet, "device_commands") - before < 500


def busy_device(fleet: Fleet) -> int:
    """Make a device for which far more waits than it takes at once."""
    device = fleet.device()
    fleet.run(
        "insert into device_commands (device_id, command_type)"
        " select %s, 'lock' from generate_series(1, %s)",
        device,
        10 * MANY,
    )
    return device


def read(fleet: Fleet, table: str = "devices") -> int:
    number: int = fleet.value(
        "select pg_stat_get_xact_tuples_returned(t.oid)"
        " + (select sum(pg_stat_get_xact_tuples_returned(i.indexrelid))"
        "   from pg_index as i where i.indrelid = t.oid)::bigint"
        " from pg_class as t where t.oid = %s::regclass",
        table,
    )
    return number
