"""Profiles from the command line: uploaded, listed, named, deleted."""

from __future__ import annotations

import json
import plistlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.helpers.sandbox import wait_until
from typer.testing import CliRunner

from pgfleet.main import app

WORD = "passphrase-e03b71"
CUSTOM = "custom_configuration_profile"


@dataclass
class School:
    """A database with two MDMs, one device in the first, and a folder with files."""

    database: Any
    folder: Path

    def pgfleet(self, *words: str) -> Any:
        """Run a command."""
        return CliRunner().invoke(app, ["-d", self.database.url(), *words])

    def done(self, *words: str) -> Any:
        """Run a command that succeeds, and read its JSON."""
        answer = self.pgfleet(*words, "--json")
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout) if answer.stdout else None

    def refused(self, *words: str) -> str:
        """Run a command that fails, and give what it says."""
        answer = self.pgfleet(*words)
        assert answer.exit_code == 1, answer.output
        assert "Hint:" in answer.stderr
        return str(answer.stderr)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Run a statement, committed, and give its rows."""
        with psycopg.connect(self.database.url()) as conn:
            found = conn.execute(query.encode(), values)
            return list(found.fetchall()) if found.description else []

    def sync(self, integration: str, *profiles: tuple[str, str]) -> None:
        """Let the MDM have just these profiles."""
        found = [{"external_id": one, "name": name, "kind": CUSTOM} for one, name in profiles]
        self.rows(
            "select fleet.worker_sync_profiles(id, %s::jsonb, clock_timestamp())"
            " from device_integrations where name = %s",
            json.dumps(found),
            integration,
        )

    def finish(self, outcome: str, **said: str) -> bool:
        """Finish the upload that waits, if there is one, as the function does."""
        return bool(
            self.rows(
                "select fleet.worker_finish_profile_upload((c ->> 'profile_id')::bigint,"
                " (c ->> 'attempt')::integer, %s, %s, %s, %s)"
                " from fleet.worker_claim_profile_uploads() as c",
                outcome,
                said.get("external_id"),
                said.get("error"),
                said.get("reason"),
            )
        )

    def file(self, name: str = "wifi.mobileconfig", content: bytes | None = None) -> str:
        """Write a file and give its path."""
        path = self.folder / name
        known = {"PayloadType": "Configuration", "Password": WORD}
        path.write_bytes(plistlib.dumps(known) if content is None else content)
        return str(path)


@pytest.fixture
def school(own_database: Any, tmp_path: Path) -> Iterator[School]:
    made = School(own_database, tmp_path)
    made.rows(
        "select fleet.set_setting('default_owner', to_jsonb(o.id::text))"
        " from public.create_owner('School 7') as o"
    )
    for name in ("office", "lab"):
        made.rows(
            "select create_integration(jsonb_build_object("
            "'name', %s::text, 'integration_type', 'simplemdm'))",
            name,
        )
    made.rows(
        "with d as (insert into devices (hostname) values ('ipad-7') returning id, owner_id)"
        " insert into device_links (device_id, integration_id, owner_id, external_id)"
        " select d.id, i.id, i.owner_id, '1' from d, device_integrations as i"
        " where i.name = 'office'"
    )
    yield made


def test_a_file_is_uploaded_under_the_name_of_the_file(school: School) -> None:
    words = ("profile", "upload", school.file(), "--integration", "OFFICE", "--option")
    row = school.done(*words, "user_scope=false")
    assert (row["name"], row["status"], row["integration"]) == ("wifi", "pending", "office")
    assert row["options"] == {"user_scope": False}
    [listed] = school.done("profile", "available", "--integration", "office")
    assert (listed["name"], listed["profile_id"]) == ("wifi", None)
    assert school.done("profile", "available", "--integration", "lab") == []


def test_wait_follows_it_to_its_end(school: School) -> None:
    def serve(outcome: str, **said: str) -> None:
        wait_until(lambda: school.finish(outcome, **said))

    words = ("profile", "upload", school.file(), "--integration", "office", "--wait")
    function = threading.Thread(target=serve, args=("uploaded",), kwargs={"external_id": "41"})
    function.start()
    row = school.done(*words, "--name", "Wi-Fi")
    function.join()
    assert (row["status"], row["profile_id"]) == ("uploaded", "41")

    said = {"error": "the MDM answered 422: no", "reason": "refused"}
    function = threading.Thread(target=serve, args=("failed",), kwargs=said)
    function.start()
    answer = school.pgfleet(*words, "--name", "VPN", "--json")
    function.join()
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["error_message"] == "the MDM answered 422: no"
    assert "profile VPN: failed: the MDM answered 422: no" in answer.stderr


def test_the_file_is_not_shown_with_the_sql(school: School) -> None:
    answer = school.pgfleet(
        *("profile", "upload", school.file(), "--integration", "office", "--show-sql")
    )
    assert answer.exit_code == 0, answer.stderr
    assert "upload_profile" not in answer.stderr
    for shape in (WORD, WORD.encode().hex()):
        assert shape not in answer.output + answer.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"<plist>\n{WORD}</x>".encode(), "is no property list (line 2, column"),
        (WORD.encode(), "is no property list"),
        (b"<plist><integer>" + WORD.encode() + b"</integer></plist>", "is no property list"),
        (b"bplist00" + WORD.encode(), "is no property list"),
        (plistlib.dumps([WORD]), "is a property list but no profile"),
        (plistlib.dumps({"PayloadType": WORD}), "is a property list but no profile"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_here(
    school: School, content: bytes, words: str
) -> None:
    said = school.refused("profile", "upload", school.file(content=content), "--integration", "lab")
    assert words in said and WORD not in said


def test_a_signed_file_is_uploaded_as_it_is(school: School) -> None:
    content = bytes.fromhex("3082010006092a864886f70d010702a0820100") + b"signed"
    words = ("profile", "upload", school.file(content=content), "--integration", "lab")
    assert school.done(*words)["status"] == "pending"


def test_what_is_missing_or_wrong_is_named(school: School) -> None:
    file = school.file()
    assert "cannot read" in school.refused("profile", "upload", "no-such-file")
    assert 'several MDMs: 1 "office", 2 "lab"' in school.refused("profile", "upload", file)
    assert 'integration "x" was not found' in school.refused(
        *("profile", "upload", file, "--integration", "x")
    )
    words = ("profile", "upload", file, "--integration", "lab", "--option")
    assert "is not NAME=true or NAME=false" in school.refused(*words, "user_scope")
    assert "p_options.colour: is not known" in school.refused(*words, "colour=true")


def test_a_name_stands_for_the_profile_that_the_mdm_of_the_device_has(school: School) -> None:
    school.sync("office", ("41", "Exam Mode"), ("42", "Kiosk"))
    school.sync("lab", ("77", "Exam Mode"), ("78", "VPN"))

    assert school.done("profile", "install", "exam mode", "ipad-7")["profile_id"] == "41"
    assert school.done("profile", "install", "Kiosk", "ipad-7", "--for", "1 hour")
    assert school.done("profile", "remove", "Exam Mode", "ipad-7")["profile_id"] == "41"
    listed = school.done("profile", "list", "--profile", "Exam Mode", "--device", "ipad-7")
    assert {(row["profile_id"], row["profile_name"]) for row in listed} == {("41", "Exam Mode")}
    [pair] = school.done("profile", "list", "--profile", "kiosk", "--temporary")
    assert (pair["profile_id"], pair["profile_name"]) == ("42", "Kiosk")
    made = school.done("profile", "assign", "VPN", "--device", "ipad-7")
    assert made["profile_id"] == "78"

    said = school.refused("profile", "install", "VPN", "ipad-7")
    assert 'profile "VPN" was not found' in said and "pgfleet profile available" in said
    said = school.refused("profile", "assign", "Exam Mode", "--device", "ipad-7")
    assert 'profile "Exam Mode" is ambiguous: 41 (office), 77 (lab)' in said


def test_digits_are_the_mdm_s_id_whether_or_not_it_is_known(school: School) -> None:
    school.sync("office", ("41", "12345"))
    assert school.done("profile", "install", "12345", "ipad-7")["profile_id"] == "12345"


def test_what_is_not_uploaded_yet_cannot_be_installed(school: School) -> None:
    school.done("profile", "upload", school.file(), "--integration", "office")
    said = school.refused("profile", "install", "wifi", "ipad-7")
    assert 'profile "wifi" is not in the MDM (pending)' in said


def test_what_was_uploaded_wins_over_its_namesakes(school: School) -> None:
    school.sync("office", ("41", "wifi"))
    school.done("profile", "upload", school.file(), "--integration", "office")
    school.finish("uploaded", external_id="55")
    assert school.done("profile", "install", "wifi", "ipad-7")["profile_id"] == "55"


def test_profiles_that_are_described_in_the_settings_have_names_of_their_own(
    school: School,
) -> None:
    school.rows(
        "update device_integrations set integration_type = 'nanomdm',"
        " settings = '{\"profiles\": {\"wifi\": {}}}' where name = 'office'"
    )
    assert school.done("profile", "install", "wifi", "ipad-7")["profile_id"] == "wifi"
    school.sync("office", ("wifi", "wifi"))
    assert school.done("profile", "remove", "wifi", "ipad-7")["profile_id"] == "wifi"


def test_a_profile_is_deleted_after_it_was_confirmed(school: School) -> None:
    school.done("profile", "upload", school.file(), "--integration", "office")
    school.finish("uploaded", external_id="55")
    assert "not confirmed" in school.refused("profile", "delete", "wifi")
    dry = school.pgfleet("profile", "delete", "wifi", "--dry-run")
    assert "Dry run: nothing was changed." in dry.stderr
    assert school.done("profile", "available")[0]["status"] == "uploaded"

    assert school.done("profile", "delete", "55", "--yes")["status"] == "deleting"
    school.finish("deleted")
    assert school.done("profile", "available") == []
    assert 'profile "wifi" was not found' in school.refused("profile", "delete", "wifi")


def test_only_what_was_uploaded_from_here_is_deleted(school: School) -> None:
    school.sync("office", ("41", "Exam"))
    for more in ("--yes", "--dry-run"):
        assert "was not uploaded from here" in school.refused("profile", "delete", "Exam", more)


def test_a_name_that_both_mdms_have_is_deleted_in_the_one_that_is_named(school: School) -> None:
    for external_id, integration in (("55", "office"), ("66", "lab")):
        school.done("profile", "upload", school.file(), "--integration", integration)
        school.finish("uploaded", external_id=external_id)
    said = school.refused("profile", "delete", "wifi", "--yes")
    assert 'profile "wifi" is ambiguous: 55 (office), 66 (lab)' in said
    words = ("profile", "delete", "wifi", "--integration", "lab", "--yes")
    assert school.done(*words)["profile_id"] == "66"
