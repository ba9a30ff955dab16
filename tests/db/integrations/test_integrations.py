"""Connections to other systems: their secrets, their rest, their pace, their devices."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.helpers.mdm import SECRET


def sync(mdm: Any, *devices: dict[str, Any]) -> dict[str, Any]:
    began = mdm.now()
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_sync_inventory(%s, %s::jsonb)", mdm.id, json.dumps(devices)
    )
    report = json.dumps({"counts": {"devices": len(devices)}})
    mdm.fleet.run("select fleet.worker_end_mdm_sync(%s, %s, %s)", mdm.id, began, report)
    return answer


def integration(mdm: Any) -> dict[str, Any]:
    row: dict[str, Any] = mdm.fleet.row("select * from device_integrations where id = %s", mdm.id)
    return row


def test_the_secret_is_nowhere_but_among_the_secrets(mdm: Any) -> None:
    mdm.install(mdm.device(), "1 hour")
    (job,) = mdm.claim()
    mdm.finish(job, "failed", error=f"key {SECRET}", result={"key": SECRET}, reason="error")
    (job,) = mdm.claim(now=mdm.now(3600))
    mdm.finish(job, "failed", error=f"key {SECRET}", reason="invalid_payload")
    tables = mdm.fleet.rows(
        "select c.oid::regclass::text as name from pg_class as c where c.relkind in ('r', 'p')"
        " and c.relnamespace::regnamespace::text in ('public', 'fleet', 'net', 'vault')"
    )

    holding = [
        table["name"]
        for table in tables
        if mdm.fleet.value(
            f"select exists (select 1 from {table['name']} as t where t::text like %s)",
            f"%{SECRET}%",
        )
    ]

    assert holding == ["pg_cron_secrets"]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"integration_type": "Simple MDM"}, "integration_type"),
        ({"integration_type": "simplemdn"}, "integration_type"),
        ({"integration_type": "jamf"}, "integration_type"),
        ({"integration_type": "simplemdm", "settings": {"rate_per_second": 0}}, "rate_per_second"),
        ({"integration_type": "simplemdm", "settings": {"burst": "many"}}, "settings.burst"),
        ({"integration_type": "simplemdm", "settings": {"api_key": "x"}}, "settings.api_key"),
        ({"integration_type": "simplemdm", "name": "OFFICE"}, "name"),
        ({"integration_type": "simplemdm", "secret": "x"}, "secret"),
        ({"integration_type": "simplemdn"}, "simplemdn"),
        ({"integration_type": "simplemdm", "settings": {"rate": 5}}, "settings.rate: is not known"),
        ({"integration_type": "simplemdm", "settings": {"profiles": {}}}, "settings.profiles"),
        ({"integration_type": "nanomdm", "settings": {"baseUrl": "x"}}, "settings.baseUrl"),
        ({"integration_type": "simplemdm", "settings": {"syncEnabled": "no"}}, "syncEnabled"),
        *(
            ({"integration_type": "nanomdm", "settings": {"base_url": url}}, f"base_url: {said}")
            for url, said in (
                ("ftp://mdm.example.com", "must be an https:// address"),
                ("mdm.example.com", "must be an https:// address"),
                ("javascript:alert(1)", "must be an https:// address"),
                (None, "must be a text"),
                (["https://mdm.example.com"], "must be a text"),
                ("https://me:word@mdm.example.com", "must hold no credentials"),
                ("https://me@mdm.example.com/a", "must hold no credentials"),
                ("https://", "is no address"),
                ("https://mdm.example.com/v1?key=1", "is no address"),
                ("https://mdm.example.com/#top", "is no address"),
                ("https://mdm example.com", "is no address"),
                ("https://mdm.example.com:99999", "has a port"),
                ("https://mdm.example.com/" + "a" * 2000, "is longer"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(mdm: Any, spec: dict[str, Any], word: str) -> None:
    whole = {"name": "other", "owner_id": str(mdm.fleet.owner_id), **spec}
    with mdm.fleet.refused("PT422", "integration_invalid", word):
        mdm.fleet.run("select create_integration(%s::jsonb)", json.dumps(whole))


@pytest.mark.parametrize(
    "url",
    [
        "https://mdm.example.com",
        "HTTPS://10.0.0.7:8443/api/v1/",
        "http://[fd00::7]:8080",
        "https://büro.example/a@b",
    ],
)
def test_where_an_mdm_may_be(mdm: Any, url: str) -> None:
    whole = {
        "name": "n",
        "integration_type": "nanomdm",
        "owner_id": str(mdm.fleet.owner_id),
        "settings": {"base_url": url, "user": "nano", "profiles": {}, "syncEnabled": False},
    }
    query = "select i.settings ->> 'base_url' from create_integration(%s::jsonb) as i"
    assert mdm.fleet.value(query, json.dumps(whole)) == url


def test_what_was_made_before_there_was_a_rule_still_pauses_and_goes_on(mdm: Any) -> None:
    check = "alter table device_integrations {} trigger device_integrations_02_check"
    mdm.fleet.run(check.format("disable"))
    mdm.fleet.run("update device_integrations set settings = settings || '{\"rate\": 5}'")
    mdm.fleet.run(check.format("enable"))

    mdm.fleet.run("select pause_integration(%s, 'holidays')", mdm.id)
    mdm.fleet.run("select resume_integration(%s)", mdm.id)

    assert integration(mdm)["status"] == "active"
    with mdm.fleet.refused("PT422", "integration_invalid", "settings.rate"):
        mdm.fleet.run("update device_integrations set name = 'new'")


def test_a_refused_secret_pauses_once_and_a_new_one_resumes(mdm: Any) -> None:
    pause = "select fleet.worker_pause_integration(%s, %s, fleet.hash_secret(%s))"
    for device in [mdm.device() for _ in range(3)]:
        mdm.install(device, "1 hour")
    jobs = mdm.claim()
    said = f"SimpleMDM refuses the key {SECRET} (401)"
    assert mdm.fleet.value(pause, mdm.id, said, SECRET) is True
    assert mdm.fleet.value(pause, mdm.id, "again", SECRET) is True
    for job in jobs:
        assert mdm.finish(job, "failed", reason="unauthorized")["status"] == "pending"

    assert mdm.claim(now=mdm.now(600)) == []
    assert mdm.fleet.value("select fleet.has_mdm_work(clock_timestamp())") is False
    assert integration(mdm)["status_reason"] == "SimpleMDM refuses the key *** (401)"

    mdm.fleet.run("select set_integration_secret(%s, 'another-key')", mdm.id)

    assert (integration(mdm)["status"], integration(mdm)["status_reason"]) == ("active", None)
    # A call that began with the old one is answered only now: that says nothing of the new one.
    assert mdm.fleet.value(pause, mdm.id, "too late", SECRET) is False
    assert mdm.fleet.value(pause, mdm.id, "without any", None) is False
    assert integration(mdm)["status"] == "active"
    again = mdm.claim(now=mdm.now(1))
    assert len(again) == 3
    assert {job["secret"] for job in again} == {"another-key"}


def test_one_that_a_person_paused_waits_for_a_person(mdm: Any) -> None:
    mdm.fleet.run("select pause_integration(%s, 'holidays')", mdm.id)
    mdm.fleet.run("select set_integration_secret(%s, 'another-key')", mdm.id)
    assert integration(mdm)["status"] == "paused"

    mdm.fleet.run("select resume_integration(%s)", mdm.id)

    assert integration(mdm)["status"] == "active"


def test_the_secret_goes_with_its_integration(mdm: Any) -> None:
    mdm.device()
    mdm.fleet.run("select delete_integration(%s)", mdm.id)

    names = mdm.fleet.rows("select name from pg_cron_secrets where name like 'integration:%%'")
    assert names == []
    assert mdm.fleet.value("select count(*) from device_links") == 0


def test_devices_are_found_by_link_serial_number_and_name(mdm: Any) -> None:
    linked = mdm.device("linked")
    serial = mdm.fleet.device("old-name", attributes={"serial_number": "S2"})
    named = mdm.fleet.device("Named")

    answer = sync(
        mdm,
        {"external_id": str(100_000 + linked), "name": "renamed there"},
        {"external_id": "2", "name": "other", "serial_number": "S2"},
        {"external_id": "3", "name": "named"},
        {"external_id": "4", "name": "new", "serial_number": "S4", "platform": "ios"},
        {"external_id": "5", "name": "new", "serial_number": "S5"},
        {"name": "without an id"},
    )

    assert (answer["created"], answer["updated"], len(answer["errors"])) == (2, 3, 1)
    links = {
        row["external_id"]: row["device_id"]
        for row in mdm.fleet.rows("select external_id, device_id from device_links")
    }
    assert links["2"] == serial
    assert links["3"] == named
    made = mdm.fleet.row("select * from devices where id = %s", links["4"])
    assert (made["hostname"], made["platform"]) == ("new", "ios")
    assert made["attributes"]["serial_number"] == "S4"
    assert integration(mdm)["last_sync_at"] is not None


def test_an_older_position_changes_nothing(mdm: Any) -> None:
    place = {"latitude": "60.1", "longitude": "24.9", "accuracy_m": 65}
    sync(mdm, {"external_id": "1", "name": "a", **place, "located_at": "2026-02-11T05:55:00Z"})
    older = {**place, "latitude": "1.0", "located_at": "2026-02-11T04:55:00Z"}
    sync(mdm, {"external_id": "1", "name": "a", **older})

    found = mdm.fleet.row("select latitude, longitude, accuracy_m from devices")
    assert found == {"latitude": 60.1, "longitude": 24.9, "accuracy_m": 65}


def test_what_has_no_secret_cannot_be_read(mdm: Any) -> None:
    mdm.fleet.run("delete from pg_cron_secrets where name = 'integration:' || %s", mdm.id)
    with mdm.fleet.refused("PT409", "integration_without_secret", "office"):
        mdm.fleet.run("select sync_integration(%s)", mdm.id)


def test_a_sync_is_due_at_first_when_asked_for_and_after_its_interval(mdm: Any) -> None:
    def due(plus: timedelta = timedelta()) -> int:
        query = "select count(*) from fleet.worker_claim_mdm_syncs('{}', %s)"
        return int(mdm.fleet.value(query, mdm.now() + plus))

    assert due() == 1
    assert due() == 0
    sync(mdm)
    assert due() == 0
    mdm.fleet.run("select sync_integration(%s)", mdm.id)
    assert due() == 1
    sync(mdm)
    assert due(timedelta(hours=1)) == 1
