"""From what happens in the MDM to the row of the device, over the whole platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.helpers import mdm_journey
from tests.helpers.sandbox import wait_until


@dataclass
class Office(mdm_journey.Office):
    """An office whose account is read only when somebody asks, and its secret address."""

    url: str
    webhook: int

    def tell(self, body: Any, url: str | None = None, **headers: str) -> httpx.Response:
        """Call the address as the MDM does, or as somebody else might."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(url or self.url, content=content, headers=headers, trust_env=False)

    def hint(self, external: int, event: str, at: str = "2026-02-11T08:12:45.000+02:00") -> Any:
        """Give the body of a webhook."""
        return {"type": event, "at": at, "data": {"device": {"id": external}}}

    def left_at(self, external: int) -> Any:
        """Tell when a device left the MDM."""
        query = "select left_at from device_links where integration_id = %s and external_id = %s"
        return self.value(query, self.integration, str(external))

    def link(self, external: int) -> Any:
        """Tell since when we know a device."""
        query = "select created_at from device_links where integration_id = %s and external_id = %s"
        return self.value(query, self.integration, str(external))

    def enrol(self) -> int:
        """Enrol a device in the MDM and wait until it is here, as if that was a minute ago."""
        [external] = self.sandbox.devices(1)
        wait_until(lambda: self.link(external))
        past = "update device_links set seen_at = seen_at - interval '1 minute' where owner_id = %s"
        self.run(past, self.owner)
        return external

    def activity(self) -> list[tuple[str, str, str | None]]:
        """Give what was logged."""
        query = (
            "select activity_type, status, detail ->> 'event' from integration_activity_log"
            " where owner_id = %s order by id"
        )
        return self.run(query, self.owner)

    def looks(self, external: int) -> int:
        """Tell how often a device was asked for."""
        query = "select count(*) from mdm_api_logs where owner_id = %s and url like %s"
        count: int = self.value(query, self.owner, f"%/devices/{external}")
        return count


@pytest.fixture
def office(stack: Any) -> Iterator[Office]:
    with mdm_journey.account(stack, syncEnabled=False) as made:
        _, sandbox, _, integration, _ = made
        with stack.connect() as conn:
            query = "select create_integration_webhook(%s)"
            [(webhook,)] = conn.execute(query, (integration,)).fetchall()
        sandbox.control("POST", "settings", webhook_url=webhook["url"])
        yield Office(*made, webhook["url"], webhook["id"])
        sandbox.control("POST", "settings", webhook_url=None)


def test_a_device_that_enrols_is_here_without_any_sync(office: Office) -> None:
    external = office.enrol()

    query = "select hostname, platform from devices where owner_id = %s"
    assert office.run(query, office.owner) == [(f"Phone {external}", "ios")]
    assert office.activity() == [("webhook_received", "completed", "device.enrolled")]
    assert office.value("select count(*) from fleet.mdm_rereads") == 0


def test_a_device_that_is_removed_has_left(office: Office) -> None:
    external = office.enrol()
    answer = httpx.delete(
        f"{office.sandbox.api}/devices/{external}", auth=(office.key, ""), trust_env=False
    )
    assert answer.status_code == 204

    wait_until(lambda: office.left_at(external))
    assert office.activity()[-1] == ("webhook_received", "completed", "device.unenrolled")


def test_a_device_that_unenrols_has_left_and_comes_back_as_the_same(office: Office) -> None:
    external = office.enrol()
    office.sandbox.device(external, status="unenrolled")
    assert office.tell(office.hint(external, "device.unenrolled")).status_code == 202
    wait_until(lambda: office.left_at(external))

    office.sandbox.device(external, status="enrolled")
    office.tell(office.hint(external, "device.enrolled"))
    wait_until(lambda: office.left_at(external) is None)
    assert office.value("select count(*) from devices where owner_id = %s", office.owner) == 1


def test_a_body_that_lies_changes_nothing(office: Office) -> None:
    external = office.enrol()
    before = office.looks(external)
    for number in range(30):
        body = office.hint(external, "device.unenrolled", f"2026-02-11T08:00:{number:02}Z")
        assert office.tell(body).status_code == 202
    wait_until(lambda: office.looks(external) > before)
    wait_until(lambda: not office.value("select count(*) from fleet.mdm_rereads"))

    assert office.left_at(external) is None
    # One for the first of them, and one for those that came while it was looked at.
    assert office.looks(external) - before <= 2


def test_the_same_webhook_again_is_stored_once(office: Office) -> None:
    external = office.enrol()
    answers = [office.tell(office.hint(external, "device.lock.enabled")) for _ in range(3)]

    assert [one.status_code for one in answers] == [202, 202, 202]
    assert [one.json()["is_new"] for one in answers] == [True, False, False]
    events = [event for _, _, event in office.activity()]
    assert events == ["device.enrolled", "device.lock.enabled"]


def test_webhooks_that_are_late_or_lost_do_no_harm(office: Office) -> None:
    office.sandbox.faults(lose_webhooks=True)
    [lost] = office.sandbox.devices(1)
    office.sandbox.faults(lose_webhooks=False, webhook_seconds=1)
    [late] = office.sandbox.devices(1)
    wait_until(lambda: office.link(late))
    assert office.link(lost) is None

    office.run("select sync_integration(%s)", office.integration)
    wait_until(lambda: office.link(lost))
    wait_until(lambda: office.activity()[-1][0] == "sync_import")
    query = "select counts from integration_activity_log where owner_id = %s order by id desc"
    counts = office.value(query, office.owner)
    assert counts == {"devices": 2, "created": 1, "updated": 1, "left": 0, "errors": 0}
    assert office.value("select count(*) from devices where owner_id = %s", office.owner) == 2


def test_a_sync_that_is_broken_off_takes_no_device_away(office: Office) -> None:
    external = office.enrol()
    office.sandbox.faults(down=True)
    office.run("select sync_integration(%s)", office.integration)
    wait_until(lambda: ("sync_import", "failed", None) in office.activity())
    office.sandbox.faults(down=False)

    query = "select error from integration_activity_log where owner_id = %s order by id desc"
    assert "503" in office.value(query, office.owner)
    assert office.left_at(external) is None


def test_one_without_an_id_brings_a_sync(office: Office) -> None:
    office.sandbox.faults(lose_webhooks=True)
    [external] = office.sandbox.devices(1)
    body = {"type": "abm.device.added", "at": "x", "data": {"device": {"serial_number": "S"}}}
    # What the content is called does not matter.
    assert office.tell(body, **{"Content-Type": "text/plain"}).status_code == 202

    wait_until(lambda: office.link(external))


def test_what_is_unknown_is_ignored_and_what_is_no_object_is_refused(office: Office) -> None:
    answer = office.tell({"type": "device.repainted", "at": "x"})
    assert (answer.status_code, answer.json()["status"]) == (202, "ignored")
    refusals = [office.tell(body) for body in (b"", b"[]", b"\xff{", b"{" + b" " * 300_000)]

    assert [one.status_code for one in refusals] == [400, 400, 400, 413]
    assert office.activity() == [("webhook_received", "ignored", "device.repainted")]
    assert httpx.get(office.url, trust_env=False).status_code == 405


def test_an_address_that_is_wrong_or_revoked_is_not_found(office: Office) -> None:
    wrong = office.tell({}, office.url[:-1] + ("a" if office.url[-1] != "a" else "b"))
    office.run("select revoke_integration_webhook(%s)", office.webhook)
    revoked = office.tell(office.hint(1, "device.enrolled"))

    for answer in (wrong, revoked):
        assert answer.status_code == 404
        assert answer.json()["details"] == "integration_webhook_not_found"
    assert office.activity() == []


def test_the_key_and_the_address_are_in_no_row_and_no_log(office: Office) -> None:
    office.enrol()
    office.run("select sync_integration(%s)", office.integration)
    wait_until(lambda: office.activity()[-1][0] == "sync_import")
    token = office.url.rsplit("/", 1)[1]
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
            row = conn.execute(look, (office.key, token)).fetchone()
            if row is not None and row[0]:
                found.add(table)
    assert found == {"public.pg_cron_secrets"}
    for log in office.stack.settings.data_dir.glob("**/*.log"):
        text = log.read_text(errors="replace")
        assert office.key not in text and token not in text, log


def test_who_guesses_addresses_is_slowed_down(office: Office) -> None:
    guess = office.url.rsplit("/", 1)[0] + "/guess"
    codes = [office.tell({}, guess).status_code for _ in range(30)]

    assert set(codes) == {404, 429}
