"""From one line of SQL to the profile on the device, and off it again, over the whole platform."""

from __future__ import annotations

import base64
import json
import plistlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers import mdm_journey
from tests.helpers.sandbox import wait_until
from typer.testing import CliRunner

from pgfleet.main import app

SIDE_BY_SIDE = 12


class Office(mdm_journey.Office):
    """An office that enrols devices and installs profiles."""

    def link(self, external: int) -> int:
        """Wait until the inventory has brought a device, and give our id of it."""
        query = "select device_id from device_links where integration_id = %s and external_id = %s"
        found: int = wait_until(lambda: self.value(query, self.integration, str(external)))
        return found

    def enrol(self, count: int, **given: Any) -> dict[int, int]:
        """Enrol devices in the MDM and give their ids there with ours."""
        made = self.sandbox.devices(count, **given)
        self.run("select sync_integration(%s)", self.integration)
        return {external: self.link(external) for external in made}

    def install(self, profile: int, device: int, duration: str | None = None) -> float:
        """Install a profile as a person does, and give the time at which that was."""
        at = time.time()
        self.run("select install_profile(%s, %s, %s)", str(profile), device, duration)
        return at

    def settled(self) -> bool:
        """Tell whether no command is on its way."""
        return not self.value(
            "select exists (select from device_commands"
            " where owner_id = %s and status in ('pending', 'running'))",
            self.owner,
        )


@pytest.fixture
def office(stack: Any) -> Iterator[Office]:
    with mdm_journey.account(stack) as made:
        yield Office(*made)


def statuses(office: Office) -> list[str]:
    """Give the statuses of all commands, each once."""
    query = "select distinct status from device_commands where owner_id = %s"
    return sorted(status for (status,) in office.run(query, office.owner))


def percentile(values: list[float], share: float) -> float:
    """Give the value that a share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def test_a_temporary_profile_is_there_within_a_second_and_gone_on_time(office: Office) -> None:
    [profile] = office.sandbox.profiles("Exam")
    devices = office.enrol(SIDE_BY_SIDE)
    pressed = {}
    for external, device in devices.items():
        pressed[external] = office.install(profile, device, "2 seconds")
        wait_until(lambda external=external: office.sandbox.has(external, profile))
    query = (
        "select count(*) from temporary_profiles where removed_at is not null and profile_id = %s"
    )
    wait_until(lambda: office.value(query, str(profile)) == SIDE_BY_SIDE)

    def times(event: str) -> dict[int, float]:
        return {
            one["device_id"]: one["at"] for one in office.sandbox.history() if one["event"] == event
        }

    wait_until(lambda: len(times("removed")) == SIDE_BY_SIDE)
    there, gone = times("installed"), times("removed")
    waits = [there[one] - pressed[one] for one in devices]
    lates = [gone[one] - pressed[one] - 2 for one in devices]
    assert percentile(waits, 0.95) < 1, sorted(waits)
    assert percentile(lates, 0.95) < 1.2 and max(lates) < 2, sorted(lates)


def test_a_file_is_uploaded_at_once_installed_by_its_name_and_replaced(
    office: Office, tmp_path: Path
) -> None:
    def pgfleet(*words: str) -> Any:
        given = ["-d", office.stack.url(), "profile", *words, "--json"]
        answer = CliRunner().invoke(app, given)
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout)

    file = tmp_path / "exam.mobileconfig"
    file.write_bytes(plistlib.dumps({"PayloadType": "Configuration", "Word": "first"}))
    upload = ("upload", str(file), "--integration", str(office.integration), "--wait")
    [(external, device)] = office.enrol(1).items()

    began = time.monotonic()
    row = pgfleet(*upload)
    assert row["status"] == "uploaded"
    assert time.monotonic() - began < 5

    made = pgfleet("install", "Exam", str(device))
    profile = int(made["profile_id"])
    assert str(profile) == row["profile_id"]
    wait_until(lambda: office.sandbox.has(external, profile))

    file.write_bytes(plistlib.dumps({"PayloadType": "Configuration", "Word": "second"}))
    assert pgfleet(*upload)["profile_id"] == row["profile_id"]
    pushed = wait_until(
        lambda: (found := office.sandbox.device(external)["commands"])[1:] and found
    )
    assert [one["name"] for one in pushed] == ["install_profile"] * 2
    assert pgfleet("list", "--profile", "exam")[0]["profile_name"] == "exam"

    pgfleet("delete", "exam", "--integration", str(office.integration), "--yes")
    wait_until(lambda: office.sandbox.has(external, profile) is None)
    count = "select count(*) from profiles where integration_id = %s"
    wait_until(lambda: office.value(count, office.integration) == 0)


def test_a_sync_tells_what_devices_can_be_asked_to_do(office: Office) -> None:
    [phone] = office.enrol(1).values()
    [mac] = office.enrol(1, model_name="MacBook Air").values()
    query = "select capabilities from device_links where device_id = %s"
    assert office.value(query, phone) == {
        "platform": "ios",
        "supervised": True,
        "can_locate": True,
        "needs_pin": False,
        "can_settle": True,
    }
    assert office.value(query, mac)["can_locate"] is False
    assert office.value(query, mac)["needs_pin"] is True

    office.run("select send_command(%s, 'mdm_locate')", mac)
    wait_until(lambda: statuses(office) == ["failed"])
    assert office.value("select reason from device_commands where device_id = %s", mac) == (
        "unsupported"
    )


def test_accepted_is_not_yet_done(office: Office) -> None:
    [profile] = office.sandbox.profiles("Kiosk")
    [(external, device)] = office.enrol(1, online=False).items()
    office.install(profile, device)
    wait_until(lambda: str(profile) in office.sandbox.device(external)["assigned"])
    query = "select last_executed_at from schedules where device_id = %s"
    wait_until(lambda: office.value(query, device))
    assert statuses(office) == ["running"]

    office.sandbox.device(external, online=True)
    wait_until(lambda: statuses(office) == ["completed"])
    result = office.value("select result from device_commands where device_id = %s", device)
    assert (result["state"], result["status"]) == ("acknowledged", 204)


def test_a_refused_key_pauses_with_one_message_and_a_new_one_lets_it_go_on(
    office: Office,
) -> None:
    [profile] = office.sandbox.profiles("Wi-Fi")
    devices = office.enrol(10)
    before = len(office.sandbox.requests())
    office.run("select set_integration_secret(%s, 'wrong-key-77')", office.integration)
    for device in devices.values():
        office.install(profile, device)

    query = "select status, status_reason from device_integrations where id = %s"
    reason = wait_until(
        lambda: dict(office.run(query, office.integration)).get("paused"), seconds=20
    )
    assert reason == "the MDM refuses the API key (401): replace the secret of the integration"
    refused = [one["status"] for one in office.sandbox.requests()[before:]]
    assert set(refused) == {401} and len(refused) <= 10
    assert statuses(office) == ["pending"]

    office.run("select set_integration_secret(%s, %s)", office.integration, office.key)
    for external in devices:
        wait_until(lambda external=external: office.sandbox.has(external, profile))
    assert office.run(query, office.integration) == [("active", None)]


def test_a_key_that_may_only_read_pauses_too(office: Office) -> None:
    [profile] = office.sandbox.profiles("Wi-Fi")
    [device] = office.enrol(1).values()
    key = office.stack.settings.simplemdm_keys["read_only"]
    office.run("select set_integration_secret(%s, %s)", office.integration, key)
    office.install(profile, device)
    query = "select status, status_reason from device_integrations where id = %s"
    reason = wait_until(lambda: dict(office.run(query, office.integration)).get("paused"))
    assert "(403)" in reason


def test_settings_that_cannot_work_pause_with_the_name_of_the_setting(office: Office) -> None:
    [profile] = office.sandbox.profiles("Wi-Fi")
    [device] = office.enrol(1).values()
    change = "update device_integrations set settings = settings || %s::jsonb where id = %s"
    office.run(change, json.dumps({"base_url": "https://me:word@localhost"}), office.integration)
    office.install(profile, device)
    query = "select status, status_reason from device_integrations where id = %s"
    reason = wait_until(lambda: dict(office.run(query, office.integration)).get("paused"))
    assert reason == "settings.base_url must hold no credentials: set the secret instead"


def test_one_that_cannot_succeed_fails_at_once_with_the_words_of_the_provider(
    office: Office,
) -> None:
    [device] = office.enrol(1).values()
    office.install(424242, device)
    wait_until(lambda: statuses(office) == ["failed"])
    found = office.run(
        "select reason, error_message, attempt from device_commands where device_id = %s", device
    )
    assert found == [("refused", "the MDM answered 404: object not found", 1)]


def test_the_key_is_nowhere_but_among_the_secrets(office: Office) -> None:
    [profile] = office.sandbox.profiles("Wi-Fi")
    [device] = office.enrol(1).values()
    office.install(profile, device, "1 second")
    query = "select count(removed_at) from temporary_profiles where device_id = %s"
    wait_until(lambda: office.value(query, device))

    basic = base64.b64encode(f"{office.key}:".encode()).decode()
    tables = office.run(
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname) from pg_class as c"
        " join pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')"
    )
    found = set()
    with office.stack.connect("supabase_admin") as conn:
        for (table,) in tables:
            look = (
                f"select exists (select from {table} as t"
                " where strpos(t::text, %s) > 0 or strpos(t::text, %s) > 0)"
            )
            row = conn.execute(look, (office.key, basic)).fetchone()
            if row is not None and row[0]:
                found.add(table)
    assert found == {"public.pg_cron_secrets"}
    assert office.value("select count(*) from mdm_api_logs where command_id is not null") > 0
    for log in office.stack.settings.data_dir.glob("**/*.log"):
        text = log.read_text(errors="replace")
        assert office.key not in text and basic not in text, log
