"""From a code to a finished command, as devices of several kinds walk it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from supabase import PostgrestAPIError


@pytest.fixture(scope="module", params=["HS256", "ES256"])
def signed_site(
    request: Any, database: Any, serving_site: Any, signing_key: Any, free_port: Callable[[], int]
) -> Any:
    private, public = signing_key
    given = {"jwt_private_key": private, "jwks": public} if request.param == "ES256" else {}
    with serving_site(database, free_port(), **given) as served:
        yield served


@pytest.fixture
def device(signed_site: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    enrolled: dict[str, Any] = signed_site.enroll(request.node.name[:200])
    return enrolled


def send(site: Any, device: dict[str, Any], command_type: str = "lock", payload: str = "{}") -> int:
    query = "select id from send_command(%s, %s, %s::jsonb)"
    return int(site.value(query, device["device_id"], command_type, payload))


def status_of(site: Any, command_id: int) -> tuple[Any, ...]:
    with site.connect() as owner:
        row = owner.execute(
            "select status, result from device_commands where id = %s", (command_id,)
        ).fetchone()
    assert row is not None
    return tuple(row)


def test_a_device_claims_and_finishes_what_was_sent(
    signed_site: Any, device: dict[str, Any]
) -> None:
    command_id = send(signed_site, device)
    client = signed_site.client(device["access_token"])

    claimed = client.rpc("claim_commands", {"p_limit": 5}).execute().data
    again = client.rpc("claim_commands", {"p_limit": 5}).execute().data
    finished = client.rpc(
        "finish_command",
        {
            "p_command_id": command_id,
            "p_attempt": claimed[0]["attempt"],
            "p_status": "completed",
            "p_result": {"ok": True},
        },
    ).execute()

    assert [row["command_id"] for row in claimed] == [command_id]
    assert claimed[0]["command_type"] == "lock"
    assert again == []
    assert finished.data["accepted"] is True
    assert status_of(signed_site, command_id) == ("completed", {"ok": True})


def test_a_stale_finish_is_answered_not_raised(signed_site: Any, device: dict[str, Any]) -> None:
    command_id = send(signed_site, device)
    client = signed_site.client(device["access_token"])
    client.rpc("claim_commands").execute()

    answer = client.rpc(
        "finish_command",
        {"p_command_id": command_id, "p_attempt": 99, "p_status": "completed"},
    ).execute()

    assert answer.data == {"accepted": False, "reason": "stale_attempt"}


def test_arguments_of_the_wrong_type_are_refused(signed_site: Any, device: dict[str, Any]) -> None:
    client = signed_site.client(device["access_token"])

    with pytest.raises(PostgrestAPIError) as caught:
        client.rpc("claim_commands", {"p_limit": "many"}).execute()

    assert caught.value.code == "22P02"


def test_nobody_claims_without_a_token_of_a_device(signed_site: Any) -> None:
    answer = signed_site.http(signed_site.settings.anon_key).post("/rpc/claim_commands", json={})

    assert (answer.status_code, answer.json()["code"]) == (401, "42501")


def test_a_device_sees_its_own_row_of_work_only(signed_site: Any, device: dict[str, Any]) -> None:
    other = signed_site.enroll(f"{device['hostname']}-other"[:250])
    send(signed_site, other)
    mine = send(signed_site, device)
    client = signed_site.client(device["access_token"])

    rows = client.table("device_commands").select("id,device_hostname").execute().data

    assert rows == [{"id": mine, "device_hostname": device["hostname"]}]
    assert [row["id"] for row in client.table("devices").select("*").execute().data] == [
        device["device_id"]
    ]


def test_a_client_that_reads_and_answers_by_table_works_with_a_device_token(
    signed_site: Any, device: dict[str, Any]
) -> None:
    command_id = send(signed_site, device, "broadcast_message", '{"message": "hello"}')
    http = signed_site.http(device["access_token"], **{"Content-Type": "application/json"})
    pending = f"device_hostname=eq.{device['hostname']}&status=eq.pending"

    found = http.get(f"/device_commands?{pending}&select=*&order=created_at.asc")
    answered = http.patch(
        f"/device_commands?id=eq.{command_id}",
        json={"status": "completed", "result": {"shown": True}},
        headers={"Prefer": "return=minimal"},
    )
    left = http.get(f"/device_commands?{pending}")

    assert [(row["id"], row["payload"]) for row in found.json()] == [
        (command_id, {"message": "hello"})
    ]
    assert (answered.status_code, answered.content) == (204, b"")
    assert left.json() == []
    assert status_of(signed_site, command_id) == ("completed", {"shown": True})


def test_a_device_cannot_answer_for_another_one(signed_site: Any, device: dict[str, Any]) -> None:
    other = signed_site.enroll(f"{device['hostname']}-other"[:250])
    foreign = send(signed_site, other)
    http = signed_site.http(device["access_token"], Prefer="return=representation")

    changed = http.patch(f"/device_commands?id=eq.{foreign}", json={"status": "completed"})
    moved = http.patch(f"/device_commands?id=eq.{foreign}", json={"device_id": 1})

    assert (changed.status_code, changed.json()) == (200, [])
    assert (moved.status_code, moved.json()["code"]) == (403, "42501")
    assert status_of(signed_site, foreign)[0] == "pending"


def test_a_re_keyed_device_hears_nothing_with_its_old_token(
    signed_site: Any, device: dict[str, Any]
) -> None:
    send(signed_site, device)
    code = signed_site.value("select rekey_device(%s) ->> 'code'", device["device_id"])
    answer = signed_site.post("enroll-device", {"code": code, "hostname": device["hostname"]})
    old, new = (
        signed_site.http(token) for token in (device["access_token"], answer.json()["access_token"])
    )

    assert old.get("/device_commands").json() == []
    assert old.post("/rpc/claim_commands", json={}).status_code in (401, 403)
    assert len(new.post("/rpc/claim_commands", json={}).json()) == 1
