"""Telemetry in a database of its own: the same pulls and pushes, and the core has no point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from tests.helpers.sandbox import wait_until

from pgfleet.schema import telemetry


def test_points_go_where_the_setting_says(
    database: Any,
    empty_database: Any,
    free_port: Callable[[], int],
    serving_site: Any,
    sandbox: str,
    connect: Any,
    ago: Any,
) -> None:
    own = empty_database.url()
    made = telemetry.prepare(own)
    assert made[0].startswith("migrations/")
    # Again, as after an update: the tables stay.
    assert not any(name.startswith("migrations/") for name in telemetry.prepare(own))
    site = serving_site(
        database,
        free_port(),
        telemetry_url=own,
        service_role_key="service-key-of-the-tests",
        allow_private_addresses=True,
    )
    with site as served, connect(served, sandbox) as cloud:
        # Both at once: a push, and a pull that finds it and one more.
        cloud.pull()
        at = ago(5)
        cloud.report([(cloud.devices[0], at, {"t": 1})], push=True)
        wait_until(lambda: cloud.last("webhook_received"))
        cloud.report([(cloud.devices[1], ago(4), {"t": 2})])
        counts = cloud.pull()["counts"]

        assert (counts["stored"], counts["known"]) == (1, 1)
        assert cloud.points() == []
        with psycopg.connect(own) as conn:
            rows = conn.execute("select at, source, data from telemetry.points order by at")
            assert [row[1:] for row in rows] == [("push", {"t": 1}), ("pull", {"t": 2})]
            found = conn.execute("select count(*) from telemetry.hourly").fetchone()
            assert found is not None and found[0] > 0
        number = served.value(
            "select device_id from device_links where external_id = %s and integration_id = %s",
            cloud.devices[0],
            cloud.integration,
        )
        (point,) = telemetry.points(own, number, ago(60), ago(0), 10)
        assert (point["recorded_at"], point["data"]) == (at, {"t": 1})
