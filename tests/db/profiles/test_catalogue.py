"""The catalogue: which profiles an MDM has, and what becomes of those that it has no more."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from tests.db.profiles.test_uploads import claim, finish, profile, upload, uploaded

CUSTOM = "custom_configuration_profile"


def sync(
    mdm: Any, *profiles: tuple[str, str, str], began: datetime | None = None
) -> dict[str, Any]:
    found = [{"external_id": one, "name": name, "kind": kind} for one, name, kind in profiles]
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_sync_profiles(%s, %s::jsonb, coalesce(%s, clock_timestamp()))",
        mdm.id,
        json.dumps(found),
        began,
    )
    return answer


def names(mdm: Any) -> dict[str, str]:
    rows = mdm.fleet.rows("select external_id, name from profiles order by external_id")
    return {row["external_id"]: row["name"] for row in rows}


def test_profiles_of_every_kind_are_taken_over_and_kept_up_to_date(mdm: Any) -> None:
    answer = sync(mdm, ("7", "E-mail", "email"), ("8", "VPN", CUSTOM), ("8", "VPN", CUSTOM))
    assert answer == {"accepted": True, "seen": 2, "gone": 0, "lost": 0}
    row = mdm.fleet.row("select * from profiles where external_id = '7'")
    assert (row["kind"], row["status"], row["is_managed"]) == ("email", "uploaded", False)

    answer = sync(mdm, ("7", "Mail", "email"), ("9", " ", "apn"))

    assert (answer["seen"], answer["gone"]) == (2, 1)
    assert names(mdm) == {"7": "Mail", "9": "9"}
    assert mdm.fleet.value("select count(*) from audit_log where table_name = 'profiles'") == 0


def test_what_was_uploaded_from_here_keeps_its_name(mdm: Any) -> None:
    row = uploaded(mdm, "Wi-Fi", "41")
    sync(mdm, ("41", "Renamed", CUSTOM))
    found = profile(mdm, row["id"])
    assert (found["name"], found["kind"], found["status"]) == ("Wi-Fi", "custom", "uploaded")


def test_what_was_uploaded_from_here_and_is_gone_has_failed_and_can_be_uploaded_again(
    mdm: Any,
) -> None:
    row = uploaded(mdm)
    assert sync(mdm)["lost"] == 1
    found = profile(mdm, row["id"])
    assert (found["status"], found["external_id"]) == ("failed", None)
    assert found["error_message"] == "the MDM has it no more: upload it again"

    assert upload(mdm)["status"] == "pending"
    (job,) = claim(mdm)
    assert job["external_id"] is None


def test_what_was_uploaded_while_the_list_was_read_is_not_missed_in_it(mdm: Any) -> None:
    began = mdm.now()
    row = uploaded(mdm)
    assert sync(mdm, began=began)["lost"] == 0
    assert profile(mdm, row["id"])["status"] == "uploaded"


def test_what_waits_is_left_alone(mdm: Any) -> None:
    row = uploaded(mdm)
    mdm.fleet.run("select delete_profile(%s)", row["id"])
    other = upload(mdm, "VPN")
    sync(mdm)
    assert profile(mdm, row["id"])["status"] == "deleting"
    assert profile(mdm, other["id"])["status"] == "pending"


def test_one_that_a_sync_has_seen_before_its_upload_was_known_is_one_profile(mdm: Any) -> None:
    row = upload(mdm)
    (job,) = claim(mdm)
    sync(mdm, ("41", "Wi-Fi", CUSTOM))
    assert finish(mdm, job, "uploaded", external_id="41")["status"] == "uploaded"
    assert [one["id"] for one in mdm.fleet.rows("select id from profiles")] == [row["id"]]


def test_two_may_have_the_same_name_in_the_mdm(mdm: Any) -> None:
    uploaded(mdm, "Wi-Fi", "41")
    sync(mdm, ("41", "Wi-Fi", CUSTOM), ("42", "Wi-Fi", CUSTOM))
    assert names(mdm) == {"41": "Wi-Fi", "42": "Wi-Fi"}


def test_the_views_tell_the_name_that_the_mdm_of_the_device_has(mdm: Any) -> None:
    sync(mdm, ("7", "Exam", CUSTOM))
    linked, other = mdm.device(), mdm.fleet.device()
    at = mdm.now() + timedelta(hours=1)
    mdm.install(linked, "1 hour", at)
    mdm.install(other, "1 hour", at)
    mdm.install(linked, "1 hour", at, profile="8")
    for view in ("profile_schedules", "temporary_profiles"):
        rows = mdm.fleet.rows(f"select distinct device_id, profile_id, profile_name from {view}")
        assert {(row["device_id"], row["profile_id"]): row["profile_name"] for row in rows} == {
            (linked, "7"): "Exam",
            (linked, "8"): None,
            (other, "7"): None,
        }


def test_profiles_go_with_their_integration(mdm: Any) -> None:
    upload(mdm)
    sync(mdm, ("7", "Exam", CUSTOM))
    mdm.fleet.run("select delete_integration(%s)", mdm.id)
    assert mdm.fleet.value("select count(*) from profiles") == 0
    assert mdm.fleet.value("select count(*) from fleet.profile_uploads") == 0


def test_an_integration_that_is_gone_takes_nothing(mdm: Any) -> None:
    answer = mdm.fleet.value(
        "select fleet.worker_sync_profiles(999999999, '[]', clock_timestamp())"
    )
    assert answer == {"accepted": False, "reason": "not_found"}


def test_members_see_the_catalogue_and_strangers_do_not(mdm: Any) -> None:
    sync(mdm, ("7", "Exam", CUSTOM))
    count = "select count(*) from profiles"
    with mdm.fleet.acting(mdm.person("view")):
        assert mdm.fleet.value(count) == 1
    with mdm.fleet.acting("6f1c5cf0-9a55-4a3e-9a35-0a5c3ec4b1aa"):
        assert mdm.fleet.value(count) == 0
