"""What no sender should send and some do: each odd thing is told, and keeps nothing else out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.helpers.odd_golioth import SERVICE_KEY, Odd, OddCloud, connected, device, point
from tests.helpers.sandbox import wait_until

DEEP = "[" * 3000 + "]" * 3000
RATHER_DEEP = '{"a":' * 450 + "1" + "}" * 450
LONG_NUMBER = "9" * 5000


@pytest.fixture(scope="module")
def odd_cloud(free_port: Callable[[], int], serving: Any) -> Iterator[tuple[OddCloud, str]]:
    """Serve a cloud that is filled by the tests."""
    cloud = OddCloud()
    with serving(cloud.app(), free_port()) as url:
        yield cloud, url


@pytest.fixture
def odd(golioth_site: Any, odd_cloud: tuple[OddCloud, str]) -> Iterator[Odd]:
    """Connect an integration with the emptied cloud, with two devices."""
    cloud, url = odd_cloud
    vars(cloud).update(vars(OddCloud(devices=[device(1), device(2)])))
    with connected(golioth_site, url, cloud) as made:
        yield made


def test_a_point_that_nobody_can_read_keeps_no_other_of_its_page_out(odd: Odd) -> None:
    odd.cloud.points = [point(1, str(n), seconds=300 - n) for n in range(130)]
    odd.cloud.points[7] = point(1, DEEP)
    odd.cloud.points[128] = point(2, f'{{"n":{LONG_NUMBER}}}')

    row = odd.pull()

    assert row["status"] == "completed"
    assert odd.stored() == [n for n in range(130) if n not in (7, 128)]
    assert "2 points" in row["detail"]["errors"][0]["error"]
    # A page that is whole is asked for once.
    assert [one["perPage"] for one in odd.cloud.asked].count(100) == 2


def test_where_nothing_at_all_can_be_read_the_pull_fails_and_no_cursor_moves(odd: Odd) -> None:
    odd.pull()
    odd.cloud.points = [point(1, "1")]
    odd.cloud.is_broken = True
    row = odd.pull()
    assert row["status"] == "failed" and "cannot be read" in row["error"]
    # Calls are counted by the month: it is not tried point by point.
    assert row["counts"]["api_calls"] == 3

    odd.cloud.is_broken = False
    assert odd.pull()["counts"]["stored"] == 1

    # One point alone that nobody can read is another matter.
    odd.cloud.points.append(point(1, DEEP))
    odd.cloud.points.reverse()
    del odd.cloud.points[1]
    assert odd.pull()["status"] == "completed"


def test_a_page_that_is_too_large_is_read_in_parts(odd: Odd) -> None:
    large = json.dumps({"text": "x" * 31_000})
    odd.cloud.points = [point(1, large, seconds=n) for n in range(1, 91)]

    assert odd.pull()["counts"]["stored"] == 90


def test_values_of_every_kind_come_as_they_are_or_are_told(odd: Odd) -> None:
    kept = [
        ('{"a.b": 1, "a": {"b": 2}}', {"a.b": 1, "a": {"b": 2}}),
        ('{"n": "18446744073709551615", "m": 18446744073709551615}', None),
        ("null", None),
        ('[1, "x", null]', [1, "x", None]),
        ('{"a": NaN, "b": Infinity, "c": 1e999}', {"a": None, "b": None, "c": None}),
        ('{"a\\u0000b": "c\\u0000d"}', {"ab": "cd"}),
        ('"\\ud800"', "?"),
        ('{"tiny": 5e-324, "none": 1e-999}', {"tiny": 5e-324, "none": 0}),
        ('{"": ""}', {"": ""}),
    ]
    times = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "soon", "24:00"]
    odd.cloud.points = [
        *(point(1, text, seconds=60 - n) for n, (text, _) in enumerate(kept)),
        point(1, RATHER_DEEP.replace("1", "NaN")),
        point(1, f"[{','.join(['1e308'] * 4000)}]"),
        *(point(1, "1", at=at) for at in times),
        '"no record"',
        '{"deviceId": null, "time": null, "data": 1}',
    ]

    row = odd.pull()

    assert row["status"] == "completed"
    wanted = [json.loads(text) if data is None else data for text, data in kept]
    assert odd.stored() == wanted
    assert row["counts"]["errors"] == 2 + len(times)
    assert odd.site.value("select telemetry.worker_roll_up() >= 0") is True


def test_a_state_that_nobody_can_keep_leaves_the_device_where_it_is(odd: Odd) -> None:
    odd.cloud.devices = [device(1, RATHER_DEEP), device(2, '{"t": 1}'), device(3, "7")]

    row = odd.pull()

    assert (row["status"], row["counts"]["devices"]) == ("completed", 3)
    assert row["counts"]["states"] == 2
    assert [one["external_id"] for one in row["detail"]["errors"]] == [f"{1:024x}"]

    # Read without states where the page is none with them: nobody has left.
    odd.cloud.devices[0] = device(1, DEEP)
    row = odd.pull()
    assert (row["status"], row["counts"]["devices"], row["counts"]["left"]) == ("completed", 3, 0)


def test_where_no_total_is_told_a_full_page_is_followed_by_another(odd: Odd) -> None:
    odd.cloud.says_total = False
    odd.cloud.points = [point(1, str(n), seconds=600 - n) for n in range(200)]

    assert odd.pull()["counts"]["stored"] == 200


def test_pages_that_repeat_without_end_are_stored_as_they_come_and_fill_no_memory(
    odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgfleet_functions.golioth.windows.MOST_POINTS", 200)
    monkeypatch.setattr("pgfleet_functions.golioth.windows.SHORTEST", timedelta(days=2))
    monkeypatch.setattr("pgfleet_functions.integrations.connections.MOST_KEPT", 3)
    odd.cloud.endless = 1050
    odd.cloud.points = [point(1, str(n), seconds=300 - n) for n in range(100)]

    row = odd.pull()

    assert (row["counts"]["stored"], row["counts"]["known"]) == (100, 1000)
    batches = "select count(distinct received_at) from telemetry.points where owner_id = %s"
    assert odd.site.value(batches, odd.owner) == 1
    # Nor do calls: what became of each is in the log all the same.
    logged = "select count(*) from mdm_api_logs where integration_id = %s and status = 200"
    assert odd.site.value(logged, odd.integration) == row["counts"]["api_calls"]


def test_two_integrations_with_one_project_store_each_point_once(
    odd: Odd, odd_cloud: tuple[OddCloud, str]
) -> None:
    odd.cloud.points = [point(1, '{"t": 1}'), point(2, '{"t": 2}')]
    with connected(odd.site, odd_cloud[1], odd.cloud, odd.owner) as other:
        # The call makes both due, and they are read side by side.
        odd.pull()
        other.pull()

        logged = (
            "select sum((counts ->> 'stored')::integer) from integration_activity_log"
            " where owner_id = %s"
        )
        assert (len(odd.stored()), odd.site.value(logged, odd.owner)) == (2, 2)
        devices = "select count(*) from devices where owner_id = %s"
        assert odd.site.value(devices, odd.owner) == 2


def test_a_device_that_is_deleted_and_made_anew_is_read_as_what_it_is_now(odd: Odd) -> None:
    names = "select array_agg(hostname order by id) from devices where owner_id = %s"
    odd.cloud.devices = [device(1).replace("odd-", "twin-"), device(2)]
    odd.cloud.points = [point(1, "1", seconds=50)]
    odd.pull()
    before = odd.site.value(names, odd.owner)
    # Renamed over there: the device is the same, and its name here is ours.
    odd.cloud.devices[1] = f'{{"id":"{2:024x}","name":"renamed","data":null}}'
    # Another one has its name by now.
    odd.cloud.devices[0] = odd.cloud.devices[0].replace(f"{1:024x}", f"{3:024x}")
    odd.cloud.points.append(point(3, "2", seconds=20))

    assert odd.pull()["counts"]["stored"] == 1

    assert odd.stored() == [1, 2]
    assert len(odd.site.value(names, odd.owner)) == len(before) + 1
    left = (
        "select array_agg(external_id) from device_links"
        " where integration_id = %s and left_at is not null"
    )
    assert odd.site.value(left, odd.integration) == [f"{1:024x}"]


def test_a_device_that_was_away_for_long_is_read_without_reading_all_others_again(odd: Odd) -> None:
    odd.pull()
    odd.site.value(
        "update fleet.sync_cursors as c set read_to = now() - interval '9 days' from device_links"
        " as l where l.device_id = c.device_id and l.external_id = %s and c.integration_id = %s"
        " returning 1",
        *(f"{1:024x}", odd.integration),
    )
    odd.cloud.points = [point(1, "1", seconds=8 * 86400)]
    odd.cloud.asked.clear()

    odd.pull()

    assert odd.stored() == [1]
    late, others = odd.cloud.asked
    assert late["deviceId"] == [f"{1:024x}"] and "deviceId" not in others
    assert late["start"] < others["start"] == late["end"]


def test_numbers_that_grow_when_they_are_stored_are_counted_as_they_are_stored(
    odd: Odd,
) -> None:
    odd.pull()
    webhook = odd.site.value("select create_integration_webhook(%s)", odd.integration)

    def push(body: bytes, **headers: str) -> httpx.Response:
        return httpx.post(
            f"{odd.site.url}/functions/v1{webhook['path']}",
            content=body,
            headers={"Content-Type": "application/json", "Ce-Source": f"{1:024x}"} | headers,
        )

    grown = push(f"[{','.join(['1e308'] * 4000)}]".encode())
    fine = push(f"[{','.join(['1e308'] * 60)}]".encode())

    assert (grown.status_code, fine.status_code) == (422, 202)
    assert wait_until(lambda: odd.stored())[0] == [10**308] * 60


def test_odd_pushes_are_stored_or_refused_each_by_itself(odd: Odd) -> None:
    odd.pull()
    webhook = odd.site.value("select create_integration_webhook(%s)", odd.integration)
    base = f"{odd.site.url}/functions/v1/integration-webhook"

    def push(body: Any, path: str = "", **headers: str) -> int:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Ce-Source": f"{1:024x}"} | headers
        url = base + path if path else f"{odd.site.url}/functions/v1{webhook['path']}"
        return httpx.post(url, content=content, headers=given).status_code

    event = {"specversion": "1.0", "source": f"{1:024x}", "id": "1", "data": 1}
    stored = [
        push(b"\xef\xbb\xbf" + b'{"mark": 1}'),
        push({"t": 1}, **{"Ce-Id": "7"}),
        # Another device numbers its own.
        push({"t": 1}, **{"Ce-Id": "7", "Ce-Source": f"{2:024x}"}),
        push({"t": 2}, **{"Ce-Time": "0001-01-01T00:00:00+14:00"}),
        push({"t": 3}, **{"Ce-Time": "9999-12-31T23:59:59-14:00"}),
        push(event | {"time": 12, "type": "io.golioth.data.v1/.s/a\x00\ud800"}),
        push(event | {"source": "nobody\x00\ud800", "id": "2"}),
        push({"device_id": f"{1:024x}", "timestamp": {"seconds": 1e300}, "data": 4}),
    ]
    refused = [
        push(json.dumps({"t": 1}).encode("utf-16")),
        push(b"\xff\xfe{}"),
        push(b'{"t": \x80}'),
        push(DEEP.encode()),
        push(f'{{"n": {LONG_NUMBER}}}'.encode()),
        push(b""),
        push({"t": 1}, "/%00"),
        push({"t": 1}, "/%F0%9F%92%A9"),
        push({"t": 1}, f"/{'a' * 5000}"),
    ]

    assert stored == [202] * len(stored)
    assert refused == [400] * 6 + [404] * 3
    kept = "select count(*) from fleet.webhook_inbox where integration_id = %s"
    assert odd.site.value(kept, odd.integration) == len(stored)


def test_what_was_kept_aside_is_stored_for_when_it_came(odd: Odd) -> None:
    webhook = odd.site.value("select create_integration_webhook(%s)", odd.integration)
    url = f"{odd.site.url}/functions/v1{webhook['path']}"
    httpx.post(url, json={"t": 1}, headers={"Ce-Source": f"{1:024x}"})
    count = "select count(*) from fleet.webhook_inbox where integration_id = %s and status = %s"
    wait_until(lambda: odd.site.value(count, odd.integration, "aside"))
    odd.site.value(
        "update fleet.webhook_inbox set received_at = now() - interval '5 hours'"
        " where integration_id = %s returning 1",
        odd.integration,
    )
    at = (datetime.now(UTC) - timedelta(hours=5, seconds=20)).isoformat()
    odd.cloud.points = [point(1, '{"t": 1}', at=at)]

    # Pulled with the time that the device told, it is the same point.
    odd.pull()
    httpx.post(
        f"{odd.site.url}/functions/v1/golioth-inbox",
        json={},
        headers={"Authorization": f"Bearer {SERVICE_KEY}"},
    )
    wait_until(lambda: odd.site.value(count, odd.integration, "done"))
    assert odd.stored() == [{"t": 1}]
