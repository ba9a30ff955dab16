"""What a whole fleet wants is worked out once, not for each of its devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import Database
from tests.db.profiles.test_assignments import assign, take_all
from tests.db.profiles.test_wanted import end
from tests.helpers.mdm import Mdm


@pytest.fixture
def db(database: Database) -> Iterator[Any]:
    # Only the superuser may count calls.
    with database.connect("supabase_admin") as conn:
        conn.execute("set track_functions = 'all'")
        yield conn
        conn.rollback()


def asked(mdm: Mdm, function: str = "wishes_for_profiles") -> int:
    number: int = mdm.fleet.value(
        "select coalesce(sum(calls), 0)::bigint from pg_stat_xact_user_functions"
        " where funcname = %s",
        function,
    )
    return number


def test_what_a_fleet_wants_is_asked_once_for_all_that_is_taken_away(mdm: Mdm) -> None:
    assigned, many = mdm.fleet.devices(60), 20
    mdm.fleet.run(
        "insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select u.id, %s, %s, u.id::text from unnest(%s::bigint[]) as u(id)",
        *(mdm.id, mdm.fleet.owner_id, assigned),
    )
    assign(mdm, device_ids=assigned)
    take_all(mdm)
    mdm.fleet.run(
        "insert into profile_holds (device_id, profile_id, holder, owner_id)"
        " select u.id, '7', 'geo', %s from unnest(%s::bigint[]) as u(id)",
        *(mdm.fleet.owner_id, assigned[:many]),
    )
    before = asked(mdm)
    mdm.fleet.run(
        "select send_commands(%s, 'remove_profile', %s)",
        *(json.dumps({"device_ids": assigned[: 2 * many]}), json.dumps({"profile_id": "7"})),
    )

    assert asked(mdm) - before == 1
    found = mdm.fleet.rows(
        "select status, count(*) as n, min(result ->> 'kept') as kept from device_commands"
        " where command_type = 'remove_profile' group by 1 order by 1"
    )
    assert [(row["status"], row["n"], row["kept"]) for row in found] == [
        ("completed", many, "it stays, because it is held"),
        ("pending", many, None),
    ]


def test_where_nothing_is_held_or_installed_for_a_time_it_is_not_asked_at_all(mdm: Mdm) -> None:
    devices = [mdm.device() for _ in range(2)]
    assign(mdm, device_ids=devices)
    take_all(mdm)
    before = asked(mdm)
    mdm.fleet.run(
        "select send_commands(%s, 'remove_profile', %s)",
        *(json.dumps({"device_ids": devices}), json.dumps({"profile_id": "7"})),
    )
    assert asked(mdm) == before
    assert take_all(mdm) == [(device, "remove_profile") for device in devices]


def test_the_end_of_an_install_asks_only_for_assignments_of_its_profile(mdm: Mdm) -> None:
    device = mdm.device()

    def targets_at_end() -> int:
        install = mdm.install(device, "30 minutes")
        take_all(mdm)
        before = asked(mdm, "targets")
        assert end(mdm, install)["status"] == "pending"
        found = asked(mdm, "targets") - before
        take_all(mdm)
        return found

    alone = targets_at_end()
    assign(mdm, "8", device_ids=[device])
    take_all(mdm)
    assert targets_at_end() == alone
