"""From what happens in the MDM to the row of the device, over the whole platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.helpers import mdm_account
from tests.helpers.sandbox import wait_until


@dataclass
class Account(mdm_account.Account):
    """An account that is read only when somebody asks, and its secret address."""

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
def account(stack: Any) -> Iterator[Account]:
    with mdm_account.simplemdm_account(stack, syncEnabled=False) as made:
        _, sandbox, _, integration, _ = made
        with stack.connect() as conn:
            query = "select create_integration_webhook(%s)"
            [(webhook,)] = conn.execute(query, (integration,)).fetchall()
        sandbox.control("POST", "settings", webhook_url=webhook["url"])
        yield Account(*made, webhook["url"], webhook["id"])
        sandbox.control("POST", "settings", webhook_url=None)


def test_a_device_that_enrols_is_here_without_any_sync(account: Account) -> None:
    external = account.enrol()

    query = "select hostname, platform from devices where owner_id = %s"
    assert account.run(query, account.owner) == [(f"Phone {external}", "ios")]
    assert account.activity() == [("webhook_received", "completed", "device.enrolled")]
    assert account.value("select count(*) from fleet.mdm_rereads") == 0


def test_a_device_that_is_removed_has_left(account: Account) -> None:
    external = account.enrol()
    answer = httpx.delete(
        f"{account.sandbox.api}/devices/{external}", auth=(account.key, ""), trust_env=False
    )
    assert answer.status_code == 204

    wait_until(lambda: account.left_at(external))
    assert account.activity()[-1] == ("webhook_received", "completed", "device.unenrolled")


def test_a_device_that_unenrols_has_left_and_comes_back_as_the_same(account: Account) -> None:
    external = account.enrol()
    account.sandbox.device(external, status="unenrolled")
    assert account.tell(account.hint(external, "device.unenrolled")).status_code == 202
    wait_until(lambda: account.left_at(external))

    account.sandbox.device(external, status="enrolled")
    account.tell(account.hint(external, "device.enrolled"))
    wait_until(lambda: account.left_at(external) is None)
    assert account.value("select count(*) from devices where owner_id = %s", account.owner) == 1


def test_a_body_that_lies_changes_nothing(account: Account) -> None:
    external = account.enrol()
    before = account.looks(external)
    for number in range(30):
        body = account.hint(external, "device.unenrolled", f"2026-02-11T08:00:{number:02}Z")
        assert account.tell(body).status_code == 202
    wait_until(lambda: account.looks(external) > before)
    wait_until(lambda: not account.value("select count(*) from fleet.mdm_rereads"))

    assert account.left_at(external) is None
    # One for the first of them, and one for all that came while it was looked at; on a slow machine
    # some more come after that.
    assert account.looks(external) - before <= 10


def test_the_same_webhook_again_is_stored_once(account: Account) -> None:
    external = account.enrol()
    answers = [account.tell(account.hint(external, "device.lock.enabled")) for _ in range(3)]

    assert [one.status_code for one in answers] == [202, 202, 202]
    assert [one.json()["is_new"] for one in answers] == [True, False, False]
    events = [event for _, _, event in account.activity()]
    assert events == ["device.enrolled", "device.lock.enabled"]


def test_webhooks_that_are_late_or_lost_do_no_harm(account: Account) -> None:
    account.sandbox.faults(lose_webhooks=True)
    [lost] = account.sandbox.devices(1)
    account.sandbox.faults(lose_webhooks=False, webhook_seconds=1)
    [late] = account.sandbox.devices(1)
    wait_until(lambda: account.link(late))
    assert account.link(lost) is None

    account.run("select sync_integration(%s)", account.integration)
    wait_until(lambda: account.link(lost))
    wait_until(lambda: account.activity()[-1][0] == "sync_import")
    query = "select counts from integration_activity_log where owner_id = %s order by id desc"
    counts = account.value(query, account.owner)
    found = {"devices": 2, "created": 1, "updated": 1, "left": 0, "errors": 0, "notes": 0}
    assert counts == found
    assert account.value("select count(*) from devices where owner_id = %s", account.owner) == 2


def test_a_sync_that_is_broken_off_takes_no_device_away(account: Account) -> None:
    external = account.enrol()
    account.sandbox.faults(down=True)
    account.run("select sync_integration(%s)", account.integration)
    wait_until(lambda: ("sync_import", "failed", None) in account.activity())
    account.sandbox.faults(down=False)

    query = "select error from integration_activity_log where owner_id = %s order by id desc"
    assert "503" in account.value(query, account.owner)
    assert account.left_at(external) is None


def test_one_without_an_id_brings_a_sync(account: Account) -> None:
    account.sandbox.faults(lose_webhooks=True)
    [external] = account.sandbox.devices(1)
    body = {"type": "abm.device.added", "at": "x", "data": {"device": {"serial_number": "S"}}}
    # What the content is called does not matter.
    assert account.tell(body, **{"Content-Type": "text/plain"}).status_code == 202

    wait_until(lambda: account.link(external))


def test_what_is_unknown_is_ignored_and_what_is_no_object_is_refused(account: Account) -> None:
    answer = account.tell({"type": "device.repainted", "at": "x"})
    assert (answer.status_code, answer.json()["status"]) == (202, "ignored")
    refusals = [account.tell(body) for body in (b"", b"[]", b"\xff{", b"{" + b" " * 300_000)]

    assert [one.status_code for one in refusals] == [400, 400, 400, 413]
    assert account.activity() == [("webhook_received", "ignored", "device.repainted")]
    assert httpx.get(account.url, trust_env=False).status_code == 405


def test_an_address_that_is_wrong_or_revoked_is_not_found(account: Account) -> None:
    wrong = account.tell({}, account.url[:-1] + ("a" if account.url[-1] != "a" else "b"))
    account.run("select revoke_integration_webhook(%s)", account.webhook)
    revoked = account.tell(account.hint(1, "device.enrolled"))

    for answer in (wrong, revoked):
        assert answer.status_code == 404
        assert answer.json()["details"] == "integration_webhook_not_found"
    assert account.activity() == []


def test_the_key_and_the_address_are_in_no_row_and_no_log(account: Account) -> None:
    account.enrol()
    account.run("select sync_integration(%s)", account.integration)
    wait_until(lambda: account.activity()[-1][0] == "sync_import")
    token = account.url.rsplit("/", 1)[1]
    tables = account.run(
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname) from pg_class as c"
        " join pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')"
    )
    found = set()
    with account.stack.connect("supabase_admin") as conn:
        for (table,) in tables:
            look = (
                f"select exists (select from {table} as t"
                " where strpos(t::text, %s) > 0 or strpos(t::text, %s) > 0)"
            )
            row = conn.execute(look, (account.key, token)).fetchone()
            if row is not None and row[0]:
                found.add(table)
    assert found == {"public.pg_cron_secrets"}
    for log in account.stack.settings.data_dir.glob("**/*.log"):
        text = log.read_text(errors="replace")
        assert account.key not in text and token not in text, log


def test_who_guesses_addresses_is_slowed_down(account: Account) -> None:
    guess = account.url.rsplit("/", 1)[0] + "/guess"
    codes = [account.tell({}, guess).status_code for _ in range(30)]

    assert set(codes) == {404, 429}
