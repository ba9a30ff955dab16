"""Being pushed: three shapes, signed or by a secret; each refusal has its word; stored once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.helpers.sandbox import wait_until


def push(cloud: Any, body: Any, path: str | None = None, **headers: str) -> httpx.Response:
    """Post a body to the secret address, or to another path."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(
        f"{cloud.site.url}/functions/v1{path or cloud.webhook['path']}",
        content=content,
        headers={"Content-Type": "application/json"} | headers,
    )


def signed(secret: str, body: Any, at: float | None = None, name: str = "webhook") -> Any:
    """Give the headers of a signed message."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp, text = str(int(at or time.time())), json.dumps(body)
    said = f"msg_1.{stamp}.{text}".encode()
    found = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    return {
        f"{name}-id": "msg_1",
        f"{name}-timestamp": stamp,
        f"{name}-signature": f"v1,b3RoZXI= v1,{found}",
    }


def inbox(cloud: Any) -> int:
    """Count what was ever pushed and kept."""
    count: int = cloud.site.value(
        "select count(*) from fleet.webhook_inbox where integration_id = %s", cloud.integration
    )
    return count


def stored(cloud: Any, count: int) -> list[Any]:
    """Wait until so many points are stored, and give them."""
    found: list[Any] = wait_until(lambda: len(cloud.points()) == count and cloud.points())
    return found


@pytest.mark.parametrize("shape", ["raw", "bare", "metadata"])
def test_a_point_is_stored_in_whichever_shape_it_is_pushed(
    cloud: Any, ago: Any, shape: str
) -> None:
    cloud.pull()
    cloud.control("settings", {"webhook": {"shape": shape}})
    at = ago(3)
    cloud.report([(cloud.devices[0], at, {"t": 20.0, "ok": True})], push=True)

    ((device, found, data, provisional),) = stored(cloud, 1)

    assert (device, data, provisional) == (cloud.devices[0], {"t": 20, "ok": True}, shape == "bare")
    assert shape == "bare" or found == at
    row = cloud.last("webhook_received")
    assert (row["status"], row["counts"]["stored"]) == ("completed", 1)


@pytest.mark.parametrize("shape", ["raw", "bare", "metadata"])
def test_the_pull_knows_what_was_pushed(cloud: Any, ago: Any, shape: str) -> None:
    cloud.pull()
    cloud.control("settings", {"webhook": {"shape": shape}})
    cloud.control("faults", {"double_share": 1.0})
    at = ago(3)
    cloud.report([(cloud.devices[0], at, {"t": 1})], push=True)
    wait_until(lambda: cloud.points())
    wait_until(
        lambda: (
            not cloud.site.value(
                "select count(*) from fleet.webhook_inbox where status = 'waiting'"
            )
        )
    )

    counts = cloud.pull()["counts"]

    ((_, found, data, provisional),) = cloud.points()
    assert (found, data, provisional) == (at, {"t": 1}, False)
    replaced = shape == "bare"
    assert counts.get("known", 0) == (0 if replaced else 1)
    assert counts.get("replaced", 0) == (2 if replaced else 0)


def test_a_push_that_comes_after_the_pull_changes_nothing(cloud: Any, ago: Any) -> None:
    at = ago(20)
    cloud.report([(cloud.devices[0], at, {"t": 1})])
    cloud.pull()
    headers = {"Ce-Source": cloud.devices[0], "Ce-Type": "io.golioth.data.v1/.s/sensor"}

    assert push(cloud, {"t": 1}, **headers).status_code == 202
    assert push(cloud, {"t": 1.0}, **headers, **{"Ce-Time": at.isoformat()}).status_code == 202

    wait_until(lambda: cloud.last("webhook_received"))
    assert [(found, provisional) for _, found, _, provisional in cloud.points()] == [(at, False)]


def test_a_device_that_is_not_known_yet_is_kept_aside(cloud: Any, ago: Any) -> None:
    cloud.report([(cloud.devices[0], ago(5), {"t": 1})], push=True)
    wait_until(lambda: cloud.last("webhook_received"))
    row = cloud.last("webhook_received")
    assert (row["counts"]["aside"], row["detail"]["unknown_devices"]) == (1, [cloud.devices[0]])
    assert cloud.points() == []

    # The pull finds the device; what was kept is stored, whether or not it is pulled as well.
    cloud.change(reads=["status"])
    cloud.pull()
    cloud.site.value("select fleet.poke_sync(now())")
    cloud.control("settings")
    httpx.post(
        f"{cloud.site.url}/functions/v1/golioth-inbox",
        json={},
        headers={"Authorization": "Bearer service-key-of-the-tests"},
    )
    stored(cloud, 1)


def test_the_same_message_again_changes_nothing(cloud: Any) -> None:
    headers = {"Ce-Source": cloud.devices[0], "Ce-Id": "5b0c1f0e"}

    first, again = push(cloud, {"t": 1}, **headers), push(cloud, {"t": 1}, **headers)

    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == {"status": "known", "is_new": False}
    assert inbox(cloud) == 1


def test_points_of_a_day_are_counted_and_what_is_too_many_waits(cloud: Any) -> None:
    value = cloud.site.value
    owner = value("select owner_id from device_integrations where id = %s", cloud.integration)
    value("select fleet.set_quota(%s, 'telemetry_a_day', 2)", owner)
    answers = [
        push(cloud, {"t": n}, **{"Ce-Source": cloud.devices[0], "Ce-Id": f"q-{n}"})
        for n in range(4)
    ]
    assert [one.status_code for one in answers] == [202, 202, 429, 429]
    assert answers[-1].json()["details"] == "quota_exceeded"
    used = "select used from fleet.owner_usage(%s, clock_timestamp()) where name = %s"
    assert value(used, owner, "telemetry_a_day") == 2
    # Nothing is pulled either, until there is some of it again.
    value("update fleet.golioth_syncs set asked_at = now() where integration_id = %s returning 1",
          cloud.integration)  # fmt: skip
    asked = (
        "select count(*) from fleet.worker_claim_golioth_syncs() as c where c ->> 'owner_id' = %s"
    )
    assert value(asked, str(owner)) == 0
    value("select fleet.set_quota(%s, 'telemetry_a_day', 1000)", owner)
    value("update fleet.quota_use set left_over = 900 where owner_id = %s returning 1", owner)
    assert value(asked, str(owner)) == 1


@pytest.mark.parametrize("header", ["Authorization", "X-Webhook-Secret"])
def test_the_secret_may_come_in_a_header(cloud: Any, header: str) -> None:
    token = cloud.webhook["token"]
    given = {header: f"Bearer {token}" if header == "Authorization" else token}

    answer = push(cloud, 1, "/integration-webhook", **given, **{"Ce-Source": cloud.devices[0]})

    assert answer.status_code == 202


def test_two_secrets_are_good_at_once_until_one_is_revoked(cloud: Any) -> None:
    newer = cloud.site.value("select create_integration_webhook(%s)", cloud.integration)
    headers = {"Ce-Source": cloud.devices[0]}
    assert push(cloud, 1, **headers).status_code == 202
    assert push(cloud, 2, newer["path"], **headers).status_code == 202

    cloud.site.value("select revoke_integration_webhook(%s)", cloud.webhook["id"])

    assert push(cloud, 3, **headers).status_code == 404
    assert push(cloud, 4, newer["path"], **headers).status_code == 202


@pytest.mark.parametrize("name", ["webhook", "svix"])
def test_signed_messages_are_verified(cloud: Any, name: str) -> None:
    made = cloud.site.value("select create_integration_webhook(%s, true)", cloud.integration)
    body = {"data": {"t": 1}, "device_id": cloud.devices[0], "timestamp": "2026-01-01T00:00:00Z"}
    secret = made["signing_secret"]

    assert push(cloud, body, made["path"], **signed(secret, body, name=name)).status_code == 202
    assert push(cloud, body, made["path"], **signed(secret, body, name=name)).status_code == 200

    changed = push(cloud, body | {"data": 2}, made["path"], **signed(secret, body, name=name))
    old = push(cloud, body, made["path"], **signed(secret, body, time.time() - 400, name=name))
    bare = push(cloud, body, made["path"])
    said = [(one.status_code, one.json()["details"]) for one in (changed, old, bare)]
    assert said == [
        (403, "webhook_signature_refused"),
        (408, "webhook_timestamp_refused"),
        (401, "webhook_signature_missing"),
    ]
    assert inbox(cloud) == 1


def test_each_refusal_has_a_word_of_its_own_and_stores_nothing(
    cloud: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    device = {"Ce-Source": cloud.devices[0]}
    secret = {"Authorization": "Bearer not-a-secret-of-ours-5521"}
    answers = [
        push(cloud, {"t": 1}, "/integration-webhook/" + "0" * 64, **device),
        push(cloud, {"t": 1}, "/integration-webhook", **device, **secret),
        push(cloud, {"t": 1}, "/integration-webhook", **device),
        push(cloud, b"{half", **device),
        push(cloud, b"\xa1\x61t\x01", **device | {"Content-Type": "application/cbor"}),
        push(cloud, b'"' + b"x" * 10_000_000 + b'"', **device),
        push(cloud, {"t": 1}),
        push(cloud, {"t": "x" * 40_000}, **device),
    ]

    assert [(one.status_code, one.json()["details"]) for one in answers] == [
        (404, "integration_webhook_not_found"),
        (401, "webhook_secret_refused"),
        (401, "webhook_secret_missing"),
        (400, "body_unreadable"),
        (415, "content_type_invalid"),
        (413, "body_too_large"),
        (422, "webhook_invalid"),
        (422, "webhook_invalid"),
    ]
    assert inbox(cloud) == 0
    # What the client of this test logs is not ours.
    ours = [one.getMessage() for one in caplog.records if not one.name.startswith("http")]
    said = json.dumps([ours, [one.text for one in answers]])
    assert cloud.webhook["token"] not in said
    assert "not-a-secret-of-ours" not in said


def test_what_no_database_can_hold_keeps_no_other_from_being_stored(cloud: Any) -> None:
    headers = {"Ce-Source": cloud.devices[0]}
    for body in (b'{"a": "\\u0000 \\ud800"}', b'{"a": NaN}', b'{"a": 1e999}', b"12345", b"null"):
        assert push(cloud, body, **headers).status_code == 202, body


def test_a_push_moves_when_a_device_was_heard_of(cloud: Any) -> None:
    cloud.pull()
    before = datetime.now(UTC)
    push(cloud, {"t": 1}, **{"Ce-Source": cloud.devices[1]})
    stored(cloud, 1)

    seen = cloud.site.value(
        "select d.last_seen from devices as d join device_links as l on l.device_id = d.id"
        " where l.external_id = %s and l.integration_id = %s",
        cloud.devices[1],
        cloud.integration,
    )

    assert seen >= before
