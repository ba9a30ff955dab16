"""Who calls is one look into one index, also before Postgres has counted the devices."""

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


def read(fleet: Fleet) -> int:
    number: int = fleet.value(
        "select pg_stat_get_xact_tuples_returned('devices'::regclass)"
        " + (select sum(pg_stat_get_xact_tuples_returned(i.indexrelid))"
        "   from pg_index as i where i.indrelid = 'devices'::regclass)::bigint"
    )
    return number
