"""Pulling from the sandbox: devices, state, points, cursors, and what the log says of it."""

from __future__ import annotations

from typing import Any


def test_a_pull_brings_devices_state_and_points(cloud: Any, ago: Any) -> None:
    first, second, _ = cloud.devices
    cloud.report([(first, ago(300), {"t": 20.5}), (second, ago(200), {"t": 21, "bat": 80})])

    row = cloud.pull()

    assert (row["status"], row["error"]) == ("completed", None)
    counts = row["counts"]
    assert (counts["devices"], counts["created"]) == (3, 3)
    assert (counts["points"], counts["stored"], counts.get("known", 0)) == (2, 2, 0)
    assert counts["api_calls"] == 2
    found = cloud.points()
    assert [(device, data) for device, _, data, _ in found] == sorted(
        [(first, {"t": 20.5}), (second, {"t": 21, "bat": 80})]
    )


def test_what_was_read_is_not_stored_again(cloud: Any, ago: Any) -> None:
    cloud.report([(cloud.devices[0], ago(60), {"t": 1})])
    cloud.pull()
    cloud.report([(cloud.devices[0], ago(30), {"t": 1})])

    counts = cloud.pull()["counts"]

    assert (counts["stored"], counts["known"]) == (1, 1)
    assert len(cloud.points()) == 2


def test_a_point_that_comes_late_is_found_within_the_overlap(cloud: Any, ago: Any) -> None:
    cloud.report([(cloud.devices[0], ago(10), {"t": 1})])
    cloud.pull()
    cloud.report([(cloud.devices[0], ago(90), {"t": 2})])

    assert cloud.pull()["counts"]["stored"] == 1


def test_a_device_is_heard_of_when_it_reports(cloud: Any, ago: Any) -> None:
    cloud.report([(cloud.devices[1], ago(40), {"t": 1})])
    cloud.pull()

    seen = cloud.site.value(
        "select extract(epoch from now() - d.last_seen) from devices as d join device_links as l"
        " on l.device_id = d.id where l.integration_id = %s and l.external_id = %s",
        cloud.integration,
        cloud.devices[1],
    )

    assert 39 < seen < 60


def test_too_many_calls_and_faults_of_the_server_are_waited_out(cloud: Any, ago: Any) -> None:
    cloud.report([(cloud.devices[0], ago(40), {"t": 1})])
    cloud.control("faults", {"limit_burst": 1, "error_burst": 1})

    row = cloud.pull()

    assert row["status"] == "completed"
    assert row["counts"]["api_calls"] == 4
    assert row["counts"]["stored"] == 1


def test_a_server_that_is_down_is_told_and_tried_again(cloud: Any) -> None:
    cloud.control("settings", {"key": "another"})
    row = cloud.pull()
    cloud.control("settings", {"key": "golioth-key-77a1"})

    assert row["status"] == "failed"
    assert "401" in row["error"]
    status = cloud.site.value(
        "select status from device_integrations where id = %s", cloud.integration
    )
    assert status == "paused"


def test_only_devices_that_the_filter_lets_through_are_pulled(cloud: Any, ago: Any) -> None:
    cloud.control("devices", {"name": "attic-1"})
    cloud.change(deviceFilter={"names": ["unit-0001", "attic-*"]})
    cloud.report([(one, ago(50), {"t": 1}) for one in cloud.devices])

    counts = cloud.pull()["counts"]

    assert (counts["devices"], counts["stored"]) == (2, 1)


def test_one_device_whose_stream_fails_keeps_no_other_from_being_read(cloud: Any, ago: Any) -> None:
    cloud.change(streamScope="device")
    cloud.control("faults", {"broken_devices": [cloud.devices[0]]})
    cloud.report([(one, ago(50), {"t": 1}) for one in cloud.devices])

    row = cloud.pull()

    assert (row["status"], row["counts"]["stored"], row["counts"]["errors"]) == ("completed", 2, 1)
    assert [one["external_id"] for one in row["detail"]["errors"]] == [cloud.devices[0]]

    cloud.control("faults", {"broken_devices": []})
    assert cloud.pull()["counts"]["stored"] == 1


def test_a_backfill_reads_what_was_before(cloud: Any, ago: Any) -> None:
    cloud.pull()
    cloud.report([(cloud.devices[0], ago(hours * 3600), {"t": hours}) for hours in range(30, 60)])
    cloud.site.value("select backfill_sync(%s, %s)", cloud.integration, ago(4 * 86400))

    row = cloud.pull()

    assert row["counts"]["stored"] == 30
    left = cloud.site.value("select sync_status(%s) -> 'backfills'", cloud.integration)
    assert left == []


def test_calls_are_answered_only_for_who_may(cloud: Any) -> None:
    assert cloud.call(Authorization="Bearer nonsense").status_code == 401
    assert cloud.call(Authorization="").status_code == 401
