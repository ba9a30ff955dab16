"""Profiles that are uploaded to an MDM: what people ask for, and what the function makes of it."""

from __future__ import annotations

import json
import plistlib
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

WORD = "passphrase-7d0c41"


def file(word: str = "a", form: Any = plistlib.FMT_XML) -> bytes:
    """Make a configuration profile."""
    return plistlib.dumps({"PayloadType": "Configuration", "Password": word}, fmt=form)


def upload(
    mdm: Any, name: str = "Wi-Fi", content: bytes | None = None, **options: bool
) -> dict[str, Any]:
    row: dict[str, Any] = mdm.fleet.row(
        "select * from upload_profile(%s, %s, %s, %s::jsonb)",
        name,
        file() if content is None else content,
        mdm.id,
        json.dumps(options),
    )
    return row


def claim(mdm: Any, now: datetime | None = None) -> list[dict[str, Any]]:
    rows = mdm.fleet.rows(
        "select fleet.worker_claim_profile_uploads('{}', coalesce(%s, clock_timestamp())) as job",
        now,
    )
    return [row["job"] for row in rows]


def finish(mdm: Any, job: dict[str, Any], outcome: str, **said: Any) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_finish_profile_upload("
        "%s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))",
        job["profile_id"],
        job["attempt"],
        outcome,
        said.get("external_id"),
        said.get("error"),
        said.get("reason"),
        said.get("retry_after"),
        said.get("now"),
    )
    return answer


def uploaded(mdm: Any, name: str = "Wi-Fi", external_id: str = "41") -> dict[str, Any]:
    """Make a profile that the MDM has."""
    row = upload(mdm, name)
    (job,) = claim(mdm)
    assert finish(mdm, job, "uploaded", external_id=external_id)["status"] == "uploaded"
    return profile(mdm, row["id"])


def profile(mdm: Any, profile_id: int) -> dict[str, Any]:
    row: dict[str, Any] = mdm.fleet.row("select * from profiles where id = %s", profile_id)
    return row


def waiting(mdm: Any) -> int:
    count: int = mdm.fleet.value("select count(*) from fleet.profile_uploads")
    return count


def test_an_upload_is_claimed_with_all_that_a_call_needs_and_then_forgotten(mdm: Any) -> None:
    row = upload(mdm, content=file(WORD), user_scope=False)
    assert (row["status"], row["kind"], row["is_managed"]) == ("pending", "custom", True)
    (job,) = claim(mdm)
    assert (job["name"], job["action"], job["external_id"]) == ("Wi-Fi", "upload", None)
    assert job["options"] == {"user_scope": False}
    assert claim(mdm) == []

    assert finish(mdm, job, "uploaded", external_id="41") == {
        "accepted": True,
        "status": "uploaded",
    }

    found = profile(mdm, row["id"])
    assert (found["status"], found["external_id"], found["error_message"]) == (
        *("uploaded", "41"),
        None,
    )
    assert found["uploaded_at"] is not None
    assert waiting(mdm) == 0


def test_the_same_file_again_does_nothing_and_another_one_replaces_it(mdm: Any) -> None:
    first = uploaded(mdm)
    again = upload(mdm, "Wi-Fi ")
    assert (again["id"], again["status"], waiting(mdm)) == (first["id"], "uploaded", 0)

    other = upload(mdm, "wi-fi", file("b"), declarative=True)

    assert (other["id"], other["status"], other["external_id"]) == (first["id"], "pending", "41")
    (job,) = claim(mdm)
    assert (job["external_id"], job["name"], job["options"]) == (
        *("41", "wi-fi"),
        {"declarative": True},
    )
    finish(mdm, job, "uploaded", external_id="41")
    assert upload(mdm, "wi-fi", file("b"))["status"] == "uploaded"
    assert upload(mdm, "wi-fi", file("b"), declarative=False)["status"] == "pending"


def test_what_is_asked_for_during_an_upload_comes_after_it(mdm: Any) -> None:
    row = upload(mdm)
    (job,) = claim(mdm)
    upload(mdm, content=file("b"))
    assert claim(mdm) == []

    assert finish(mdm, job, "uploaded", external_id="41")["status"] == "pending"

    (second,) = claim(mdm)
    assert (second["external_id"], second["attempt"]) == ("41", 2)
    assert second["content"] != job["content"]
    assert finish(mdm, second, "uploaded", external_id="41")["status"] == "uploaded"
    assert profile(mdm, row["id"])["status"] == "uploaded"


def test_a_function_that_was_killed_loses_its_lease(mdm: Any) -> None:
    upload(mdm)
    (first,) = claim(mdm)
    assert claim(mdm, mdm.now(60)) == []
    (second,) = claim(mdm, mdm.now(300))
    assert finish(mdm, first, "uploaded", external_id="41") == {
        "accepted": False,
        "reason": "stale_attempt",
    }
    assert finish(mdm, second, "uploaded", external_id="41")["accepted"]


@pytest.mark.parametrize("reason", ["network", "unavailable", "rate_limited", "not_sent"])
def test_what_fails_in_passing_is_tried_again_after_growing_pauses(mdm: Any, reason: str) -> None:
    row = upload(mdm)
    now = mdm.now()
    pauses = []
    for _ in range(3):
        (job,) = claim(mdm, now)
        said = {"error": "no answer", "reason": reason, "now": now}
        assert finish(mdm, job, "failed", **said)["status"] == "pending"
        due = mdm.fleet.value("select next_at from fleet.profile_uploads")
        pauses.append((due - now).total_seconds())
        assert claim(mdm, due - timedelta(seconds=0.5)) == []
        now = due
    assert 2 <= pauses[0] < pauses[1] < pauses[2] < 10
    assert profile(mdm, row["id"])["error_message"] == "no answer"
    (job,) = claim(mdm, now)
    finish(mdm, job, "uploaded", external_id="41")
    assert profile(mdm, row["id"])["error_message"] is None


def test_a_file_waits_for_a_day_at_most(mdm: Any) -> None:
    row = upload(mdm)
    late = mdm.now() + timedelta(hours=25)
    (job,) = claim(mdm, late)
    said = {"error": "no answer", "reason": "network", "now": late}
    assert finish(mdm, job, "failed", **said)["status"] == "failed"
    assert profile(mdm, row["id"])["error_message"] == "it was given up after a day: no answer"
    assert waiting(mdm) == 0


def test_a_refusal_is_final_and_the_same_file_may_be_tried_again(mdm: Any) -> None:
    row = upload(mdm)
    (job,) = claim(mdm)
    said = {"error": "the MDM answered 422: no", "reason": "refused"}
    assert finish(mdm, job, "failed", **said)["status"] == "failed"
    found = profile(mdm, row["id"])
    assert (found["status"], found["error_message"]) == ("failed", "the MDM answered 422: no")
    assert waiting(mdm) == 0
    assert upload(mdm)["status"] == "pending"


def test_what_waits_for_a_paused_integration_goes_on_with_it(mdm: Any) -> None:
    upload(mdm)
    (job,) = claim(mdm)
    mdm.fleet.value(
        "select fleet.worker_pause_integration(i.id, 'refused', fleet.hash_secret("
        " fleet.stored_secret('integration:' || i.id))) from device_integrations as i"
        " where i.id = %s",
        mdm.id,
    )
    said = {"error": "401", "reason": "integration_paused"}
    assert finish(mdm, job, "failed", **said)["status"] == "pending"
    assert claim(mdm) == []
    assert mdm.fleet.value("select fleet.has_mdm_work(clock_timestamp())") is False
    mdm.fleet.run("select resume_integration(%s)", mdm.id)
    assert len(claim(mdm)) == 1


def test_an_upload_that_is_due_wakes_the_function(mdm: Any) -> None:
    mdm.fleet.run("update device_integrations set last_sync_at = clock_timestamp()")
    work = "select fleet.has_mdm_work(clock_timestamp())"
    assert mdm.fleet.value(work) is False
    upload(mdm)
    assert mdm.fleet.value(work) is True
    claim(mdm)
    assert mdm.fleet.value(work) is False


def test_a_profile_is_deleted_in_the_mdm_before_it_is_gone_here(mdm: Any) -> None:
    row = uploaded(mdm)
    assert mdm.fleet.row("select * from delete_profile(%s)", row["id"])["status"] == "deleting"
    (job,) = claim(mdm)
    assert (job["action"], job["external_id"], job["content"]) == ("delete", "41", None)
    assert finish(mdm, job, "deleted")["status"] == "deleted"
    assert mdm.fleet.value("select count(*) from profiles") == 0


def test_what_the_mdm_was_never_told_of_is_gone_at_once(mdm: Any) -> None:
    row = upload(mdm)
    mdm.fleet.run("select delete_profile(%s)", row["id"])
    assert (mdm.fleet.value("select count(*) from profiles"), waiting(mdm)) == (0, 0)


def test_what_is_deleted_during_its_upload_is_deleted_after_it(mdm: Any) -> None:
    row = upload(mdm)
    (job,) = claim(mdm)
    mdm.fleet.run("select delete_profile(%s)", row["id"])
    finish(mdm, job, "uploaded", external_id="41")
    (second,) = claim(mdm)
    assert (second["action"], second["external_id"]) == ("delete", "41")


def test_what_is_uploaded_again_during_its_deletion_is_made_anew(mdm: Any) -> None:
    row = uploaded(mdm)
    mdm.fleet.run("select delete_profile(%s)", row["id"])
    (job,) = claim(mdm)
    assert upload(mdm)["id"] == row["id"]
    finish(mdm, job, "deleted")
    (second,) = claim(mdm)
    assert (second["action"], second["external_id"]) == ("upload", None)
    assert profile(mdm, row["id"])["status"] == "pending"


def test_only_what_was_uploaded_from_here_is_deleted_from_here(mdm: Any) -> None:
    row = mdm.fleet.insert(
        "profiles",
        owner_id=mdm.fleet.owner_id,
        integration_id=mdm.id,
        external_id="7",
        name="E-mail",
        kind="email",
    )
    with mdm.fleet.refused("PT409", "profile_not_managed", '"E-mail"'):
        mdm.fleet.run("select delete_profile(%s)", row["id"])


@pytest.mark.parametrize(
    "content",
    [
        file(),
        b"\xef\xbb\xbf\n " + file(),
        file(form=plistlib.FMT_BINARY),
        bytes.fromhex("3082010006092a864886f70d010702a0820100") + b"signed",
        bytes.fromhex("308006092a864886f70d010702a080") + b"signed",
    ],
)
def test_files_of_every_form_are_taken(mdm: Any, content: bytes) -> None:
    assert upload(mdm, content=content)["status"] == "pending"


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        (" ", file(), {}, ["p_name: must not be blank"]),
        ("x" * 201, file(), {}, ["p_name: has 201 characters; at most 200"]),
        ("x", b"", {}, ["p_mobileconfig: is empty"]),
        ("x", file() + b" " * 1_048_576, {}, ["p_mobileconfig: has", "at most 1048576"]),
        ("x", WORD.encode(), {}, ["p_mobileconfig: is no configuration profile"]),
        ("x", b"<html></html>", {}, ["p_mobileconfig: is no configuration profile"]),
        ("x", bytes.fromhex("30820100") + b"cert", {}, ["p_mobileconfig: is no configuration"]),
        ("x", file(), {"user_scope": "yes"}, ["p_options.user_scope: must be true or false"]),
        ("x", file(), {"color": True}, ["p_options.color: is not known"]),
        ("", b"", {"color": True}, ["p_name", "p_mobileconfig", "p_options.color"]),
    ],
)
def test_what_is_wrong_is_named(
    mdm: Any, name: str, content: bytes, options: Any, words: list[str]
) -> None:
    with mdm.fleet.refused("PT422", "profile_invalid", *words) as refusal:
        upload(mdm, name, content, **options)
    assert WORD not in refusal.message + refusal.hint


def test_where_there_are_several_mdms_one_is_to_be_named(mdm: Any) -> None:
    query = "select * from upload_profile('Wi-Fi', %s)"
    with mdm.fleet.acting(mdm.person("manage")):
        assert mdm.fleet.row(query, file())["integration_id"] == mdm.id
    mdm.fleet.run(
        "select create_integration(jsonb_build_object("
        "'name', 'lab', 'integration_type', 'simplemdm', 'owner_id', %s::text))",
        mdm.fleet.owner_id,
    )
    with (
        mdm.fleet.refused("PT422", "integration_ambiguous", f'{mdm.id} "office"', '"lab"'),
        mdm.fleet.acting(mdm.person("manage")),
    ):
        mdm.fleet.run(query, file())


def payload(identifier: str, encoding: str = "utf-8") -> bytes:
    inner = {"PayloadType": "com.apple.wifi.managed", "PayloadIdentifier": "inner.one"}
    whole = {
        "PayloadContent": [inner, {**inner, "PayloadIdentifier": "inner.two"}],
        "PayloadIdentifier": identifier,
        "PayloadType": "Configuration",
    }
    text = plistlib.dumps(whole).decode()
    return text.replace("UTF-8", encoding.upper()).encode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_profile_may_be_in_any_encoding_of_unicode(mdm: Any, encoding: str) -> None:
    row = upload(mdm, content=payload("com.example.wi-fi & more", encoding))
    assert row["payload_identifier"] == "com.example.wi-fi & more"


def test_two_profiles_with_one_identifier_are_told(mdm: Any) -> None:
    upload(mdm, "first", content=payload("com.example.same"))
    upload(mdm, "second", content=payload("com.example.same", "utf-16"))
    upload(mdm, "third", content=payload("com.example.other"))
    rows = mdm.fleet.rows("select name, replaces from profile_list order by name")
    assert [(row["name"], row["replaces"]) for row in rows] == [
        ("first", "second"),
        ("second", "first"),
        ("third", None),
    ]


SIGNED_DATA = bytes.fromhex("30820400 06092a864886f70d010702 a0820300 30820200 020101 3100")
DATA = bytes.fromhex("06092a864886f70d010701")


def test_a_signature_without_what_it_signs_is_no_profile(mdm: Any) -> None:
    detached = SIGNED_DATA + bytes.fromhex("300b") + DATA + bytes.fromhex("3182 0100 3081")
    with mdm.fleet.refused("PT422", "profile_invalid", "is a signature without the profile"):
        upload(mdm, content=detached)

    whole = SIGNED_DATA + bytes.fromhex("3080") + DATA + bytes.fromhex("a080 2480 0482 0100")
    row = upload(mdm, content=whole + payload("com.example.signed"))
    assert (row["status"], row["payload_identifier"]) == ("pending", "com.example.signed")


def test_where_there_is_no_mdm_that_is_said(mdm: Any) -> None:
    query = "select upload_profile('Wi-Fi', %s, %s)"
    mdm.fleet.run("update device_integrations set status = 'disabled'")
    with mdm.fleet.refused("PT422", "integration_missing", "there is no MDM"):
        mdm.fleet.run(query, file(), None)
    with mdm.fleet.refused("PT409", "integration_disabled"):
        mdm.fleet.run(query, file(), mdm.id)
    cloud = mdm.fleet.value(
        "select id from create_integration(jsonb_build_object("
        "'name', 'cloud', 'integration_type', 'golioth', 'owner_id', %s::text,"
        " 'settings', jsonb_build_object('projectId', 'acme-demo')))",
        mdm.fleet.owner_id,
    )
    with mdm.fleet.refused("PT422", "integration_not_mdm", "golioth"):
        mdm.fleet.run(query, file(), cloud)


def test_the_file_is_nobody_s_to_read_and_in_no_log(mdm: Any) -> None:
    row = upload(mdm, content=file(WORD))
    for role in ("service_role", "authenticated"):
        user = mdm.person("admin")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), mdm.fleet.conn.transaction():
            with mdm.fleet.acting(user, role):
                mdm.fleet.rows("select content from fleet.profile_uploads")
        mdm.fleet.run("reset role")
        mdm.fleet.run("select set_config('request.jwt.claims', '', true)")
    found = mdm.fleet.rows(
        "select action, new from audit_log where table_name = 'profiles' order by id"
    )
    assert [one["action"] for one in found] == ["insert"]
    assert found[0]["new"]["content_sha256"] == row["content_sha256"]
    mdm.fleet.run("select delete_profile(%s)", row["id"])
    actions = mdm.fleet.rows(
        "select action from audit_log where table_name = 'profiles' order by id"
    )
    assert [one["action"] for one in actions] == ["insert", "update", "delete"]
