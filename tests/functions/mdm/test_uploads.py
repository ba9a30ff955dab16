"""From a file to the account of an MDM, over a real database and the sandbox."""

from __future__ import annotations

import json
import logging
import plistlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from tests.helpers.mdm_dispatch import dispatch
from tests.helpers.sandbox import FULL, READ_ONLY, Sandbox, serving, wait_until

from pgfleet_functions.setup import ensure_worker_role
from pgfleet_local.sandboxes.simplemdm import create_sandbox

WORD = "passphrase-51b7e0c2"


def file(word: str = WORD) -> bytes:
    """Make a configuration profile, with bytes of every kind in it."""
    known = {"PayloadType": "Configuration", "Password": word, "Blob": bytes(range(256))}
    return plistlib.dumps(known, fmt=plistlib.FMT_BINARY)


@dataclass
class Account:
    """One account of the sandbox and the fleet that uploads to it."""

    database: Any
    sandbox: Sandbox
    owner: UUID
    integration: int

    def rows(self, query: str, *values: Any) -> list[Any]:
        """Run a statement, committed, and give its rows."""
        with self.database.connect(autocommit=True) as conn:
            found = conn.execute(query, values)
            return list(found.fetchall()) if found.description else []

    def value(self, query: str, *values: Any) -> Any:
        """Run a statement and give its one value."""
        [(found,)] = self.rows(query, *values)
        return found

    def upload(self, name: str, content: bytes, **options: bool) -> int:
        """Upload a file as a person does, and give our id of the profile."""
        query = "select id from upload_profile(%s, %s, %s, %s::jsonb)"
        found: int = self.value(query, name, content, self.integration, json.dumps(options))
        return found

    def run(self) -> dict[str, int]:
        """Let the function run once."""
        return dispatch(self.database, 10)

    def again(self) -> dict[str, int]:
        """Let the pause after a failure be over, and run."""
        self.rows("update fleet.profile_uploads set next_at = now(), held_until = null")
        self.rows("delete from fleet.rate_limits")
        return self.run()

    def profile(self, profile_id: int) -> tuple[str, str | None, str | None]:
        """Give status, id in the MDM and error."""
        [found] = self.rows(
            "select status, external_id, error_message from profiles where id = %s", profile_id
        )
        return (found[0], found[1], found[2])

    def there(self) -> dict[int, str]:
        """Give the names of the custom profiles that the account really has."""
        found = self.get("custom_configuration_profiles?limit=100").json()["data"]
        return {one["id"]: one["attributes"]["name"] for one in found}

    def content(self, external_id: str | int | None) -> bytes:
        """Give the file that the account has."""
        return self.get(f"custom_configuration_profiles/{external_id}/download").content

    def by_hand(self, name: str, content: bytes) -> None:
        """Make a profile in the account without us."""
        answer = httpx.post(
            f"{self.sandbox.api}/custom_configuration_profiles",
            data={"name": name},
            files={"mobileconfig": ("a.mobileconfig", content)},
            auth=(FULL, ""),
            trust_env=False,
        )
        assert answer.status_code == 201

    def get(self, path: str) -> httpx.Response:
        """Ask the API itself."""
        answer = httpx.get(f"{self.sandbox.api}/{path}", auth=(FULL, ""), trust_env=False)
        assert answer.is_success, answer.text
        return answer

    def methods(self) -> Counter[str]:
        """Tell which calls about profiles changed something, or tried to."""
        return Counter(
            one["method"]
            for one in self.sandbox.requests()
            if "custom_configuration_profiles" in one["path"] and one["method"] != "GET"
        )


@pytest.fixture(scope="module")
def served(free_port: Callable[[], int]) -> Iterator[Sandbox]:
    with serving(create_sandbox({"full": FULL, "read_only": READ_ONLY}), free_port()) as url:
        yield Sandbox(url)


@pytest.fixture
def account(database: Any, served: Sandbox) -> Iterator[Account]:
    served.control("POST", "reset")
    with psycopg.connect(database.url("supabase_admin")) as admin:
        ensure_worker_role(admin, database.settings.password("fleet_worker"))
    made = Account(database, served, uuid4(), 0)
    made.rows("select fleet.grant_worker()")
    made.rows("insert into owners (id, name) values (%s, 'school')", made.owner)
    spec = {
        "name": "school",
        "integration_type": "simplemdm",
        "owner_id": str(made.owner),
        "settings": {"base_url": served.api, "syncEnabled": False, "rate_per_second": 500},
    }
    query = "select id from create_integration(%s::jsonb, %s)"
    made.integration = made.value(query, json.dumps(spec), FULL)
    yield made
    made.rows("select delete_integration(%s)", made.integration)


def test_a_file_arrives_as_it_is_with_its_options(account: Account) -> None:
    made = account.upload("Wi-Fi", file(), user_scope=False, attribute_support=True)
    assert account.run() == {"profiles": 1}

    status, external_id, error = account.profile(made)
    assert (status, error) == ("uploaded", None)
    assert account.there() == {int(external_id or 0): "Wi-Fi"}
    assert account.content(external_id) == file()
    [known] = account.get("profiles").json()["data"]
    assert known["attributes"]["user_scope"] is False
    assert known["attributes"]["attribute_support"] is True
    assert account.run() == {}


def test_another_file_takes_its_place_and_goes_to_the_devices_that_have_it(
    account: Account,
) -> None:
    made = account.upload("Wi-Fi", file())
    account.run()
    external_id = account.profile(made)[1]
    [device] = account.sandbox.devices()
    path = f"custom_configuration_profiles/{external_id}/devices/{device}"
    httpx.post(f"{account.sandbox.api}/{path}", auth=(FULL, ""), trust_env=False)

    account.upload("Wi-Fi", file("another"))
    account.run()

    assert account.methods() == {"POST": 2, "PATCH": 1}
    assert account.content(external_id) == file("another")
    queued = account.sandbox.device(device)
    names = [*(one["name"] for one in queued["commands"]), *queued["waiting"]]
    assert names == ["install_profile", "install_profile"]


def test_where_answers_get_lost_there_is_one_of_each_in_the_end(account: Account) -> None:
    made = [account.upload(f"Profile {one}", file(str(one))) for one in range(12)]
    account.sandbox.faults(reset_share=0.5)
    for _ in range(10):
        account.again()
    account.sandbox.faults(reset_share=0.0)
    account.again()

    assert [account.profile(one)[0] for one in made] == ["uploaded"] * 12
    assert sorted(account.there().values()) == sorted(f"Profile {one}" for one in range(12))
    broken = [one for one in account.sandbox.requests() if one.get("reset")]
    # Some were made by an attempt that never heard of it.
    assert any(one["method"] == "POST" and one["status"] == 201 for one in broken)
    for one, profile_id in enumerate(made):
        assert account.content(account.profile(profile_id)[1]) == file(str(one))


def test_a_burst_of_errors_is_waited_out(account: Account) -> None:
    made = account.upload("Wi-Fi", file())
    account.sandbox.faults(error_burst=2)
    account.run()
    status, _, error = account.profile(made)
    assert (status, error) == ("pending", "the MDM answered 500: internal server error")
    account.again()
    account.again()
    assert account.profile(made)[0] == "uploaded"
    assert len(account.there()) == 1


def test_a_refused_file_fails_with_the_words_of_the_mdm(account: Account) -> None:
    made = account.upload("Broken", b"<?xml version='1.0'?><plist><dict>")
    account.run()
    assert account.profile(made) == (
        *("failed", None),
        "the MDM answered 422: mobileconfig is not a configuration profile",
    )
    assert account.there() == {}
    assert account.run() == {}


def test_a_refused_key_pauses_and_the_upload_waits_for_another(account: Account) -> None:
    account.rows("select set_integration_secret(%s, %s)", account.integration, READ_ONLY)
    made = account.upload("Wi-Fi", file())
    account.run()
    query = "select status from device_integrations where id = %s"
    assert account.value(query, account.integration) == "paused"
    assert account.profile(made)[0] == "pending"

    account.rows("select set_integration_secret(%s, %s)", account.integration, FULL)
    account.run()
    assert account.profile(made)[0] == "uploaded"


def test_one_that_was_made_by_hand_under_the_same_name_is_taken_over(account: Account) -> None:
    account.by_hand("Wi-Fi", file("by hand"))
    [there] = account.there()
    made = account.upload("Wi-Fi", file())
    account.run()
    assert account.profile(made)[:2] == ("uploaded", str(there))
    assert account.content(there) == file()


def test_where_two_have_the_name_nobody_guesses_which_one_is_meant(account: Account) -> None:
    for word in ("a", "b"):
        account.by_hand("Wi-Fi", file(word))
    made = account.upload("Wi-Fi", file())
    account.run()
    status, _, error = account.profile(made)
    assert (status, error) == (
        "failed",
        'the MDM has 2 profiles named "Wi-Fi": rename all but one there',
    )
    assert account.methods()["PATCH"] == 0


def test_one_that_somebody_deleted_in_the_mdm_is_made_anew(account: Account) -> None:
    made = account.upload("Wi-Fi", file())
    account.run()
    first = account.profile(made)[1]
    httpx.delete(
        f"{account.sandbox.api}/custom_configuration_profiles/{first}",
        auth=(FULL, ""),
        trust_env=False,
    )
    account.upload("Wi-Fi", file("another"))
    account.run()
    status, second, _ = account.profile(made)
    assert status == "uploaded" and second != first
    assert account.there() == {int(second or 0): "Wi-Fi"}


def test_a_deleted_profile_is_gone_in_both_places(account: Account) -> None:
    made = account.upload("Wi-Fi", file())
    account.run()
    account.rows("select delete_profile(%s)", made)
    account.run()
    assert account.there() == {}
    assert account.value("select count(*) from profiles where id = %s", made) == 0


def test_a_deletion_whose_answer_was_lost_is_one_deletion(account: Account) -> None:
    made = account.upload("Wi-Fi", file())
    account.run()
    account.rows("select delete_profile(%s)", made)
    account.sandbox.faults(reset_share=1.0)
    account.run()
    account.sandbox.faults(reset_share=0.0)
    assert account.there() == {}
    assert account.profile(made)[0] == "deleting"
    account.again()
    assert account.value("select count(*) from profiles where id = %s", made) == 0


def test_a_sync_reads_the_catalogue_page_by_page(account: Account) -> None:
    made = account.upload("Wi-Fi", file())
    account.run()
    account.sandbox.profiles(*(f"VPN {one}" for one in range(205)))
    account.sandbox.profiles("Mail", kind="email")
    account.rows("select sync_integration(%s)", account.integration)
    synced = "select last_sync_at >= sync_requested_at from device_integrations where id = %s"
    wait_until(lambda: account.run() is None or account.value(synced, account.integration))
    found = account.rows(
        "select kind, count(*) from profiles where integration_id = %s group by 1 order by 1",
        account.integration,
    )
    assert found == [("custom", 1), ("custom_configuration_profile", 205), ("email", 1)]
    assert account.profile(made)[0] == "uploaded"


def test_nanomdm_has_no_place_for_profiles_and_tells_those_of_its_settings(
    account: Account,
) -> None:
    spec = {
        "name": "nano",
        "integration_type": "nanomdm",
        "owner_id": str(account.owner),
        "settings": {"base_url": account.sandbox.api, "profiles": {"wifi": {}}},
    }
    query = "select id from create_integration(%s::jsonb, 'nano-key-000')"
    account.integration = account.value(query, json.dumps(spec))
    made = account.upload("Wi-Fi", file())
    account.run()
    status, _, error = account.profile(made)
    assert status == "failed"
    assert error == "unsupported: NanoMDM keeps no profiles; they are in the integration's settings"
    # What the upload holds the sync passes over, until the next poke.
    query = "select external_id, name from profiles where integration_id = %s and not is_managed"
    wait_until(lambda: account.run() is None or account.rows(query, account.integration))
    assert account.rows(query, account.integration) == [("wifi", "wifi")]


def test_the_file_is_in_no_table_log_or_error_once_it_is_uploaded(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    word = f"passphrase-{uuid4().hex}"
    content = plistlib.dumps({"PayloadType": "Configuration", "Password": word})
    account.sandbox.faults(error_burst=1)
    account.upload("Wi-Fi", content)
    broken = content[: content.index(b"</dict>")]
    account.upload("Broken", broken)
    account.run()
    account.again()
    account.again()
    assert account.value("select count(*) from fleet.profile_uploads") == 0

    shapes = [word, word.encode().hex()]
    tables = account.rows(
        "select c.oid::regclass::text from pg_class as c join pg_namespace as n"
        " on n.oid = c.relnamespace where c.relkind = 'r'"
        " and n.nspname not in ('pg_catalog', 'information_schema')"
    )
    with account.database.connect("supabase_admin") as conn:
        for (table,) in tables:
            for shape in shapes:
                look = f"select 1 from {table} as t where strpos(t::text, %s) > 0 limit 1"
                assert conn.execute(look, (shape,)).fetchone() is None, table
    assert word not in caplog.text
    bodies = account.rows(
        "select request_body from mdm_api_logs"
        " where integration_id = %s and method = 'POST' and status = 201",
        account.integration,
    )
    [(body,)] = bodies
    assert body.startswith(f"name=Wi-Fi&mobileconfig=[{len(content)} bytes, sha256 ")
