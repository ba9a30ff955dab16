"""Endpoints: who may make them, what is refused, and what nobody else sees."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

ME, STRANGER, VIEWER = (UUID(int=number) for number in (101, 102, 103))
URL = "https://example.com/hooks"


@pytest.fixture
def me(db: Any, sign_in: Any) -> Any:
    """Give the module's database with me signed in; all is rolled back."""
    sign_in(db, ME)
    return db


def create(db: Any, **spec: Any) -> dict[str, Any]:
    made: dict[str, Any] = db.execute(
        "select create_webhook_endpoint(%s)", (Jsonb(spec),)
    ).fetchone()[0]
    return made


def refusal(db: Any, query: str, *args: Any) -> tuple[str | None, str | None, str]:
    with pytest.raises(psycopg.Error) as caught, db.transaction():
        db.execute(query, args)
    diag = caught.value.diag
    return caught.value.sqlstate, diag.message_detail, diag.message_primary or ""


def test_the_secret_is_shown_once_and_kept_where_no_role_of_the_api_reads_it(
    me: Any, sign_in: Any
) -> None:
    made = create(me, url=URL, name="ops")
    assert made["secret"].startswith("whsec_")
    assert (made["owner_id"], made["events"], made["channel"]) == (str(ME), ["*"], "webhook")
    row = me.execute("select to_jsonb(e) from webhook_endpoints as e").fetchone()[0]
    assert "secret" not in row
    for role in ("authenticated", "service_role"):
        sign_in(me, ME, role)
        assert refusal(me, "select * from fleet.webhook_secrets")[0] == "42501"
    me.execute("reset role")
    [(key,)] = me.execute("select fleet.webhook_secret_text(key) from fleet.webhook_secrets")
    assert key == made["secret"]


def test_secrets_are_random_and_long_enough(me: Any) -> None:
    secrets = {create(me, url=URL)["secret"] for _ in range(3)}
    assert len(secrets) == 3
    assert {len(secret) for secret in secrets} == {len("whsec_") + 44}


def test_a_mailbox_has_no_secret(me: Any) -> None:
    made = create(me, email="ops@example.com")
    assert (made["channel"], made["secret"]) == ("email", None)
    assert made["events"] == ["run.failed", "schedule.paused"]
    assert refusal(me, "select rotate_webhook_secret(%s)", made["id"])[:2] == (
        "PT409",
        "webhook_endpoint_without_secret",
    )


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({}, ["url"]),
        ({"url": 7}, ["url"]),
        ({"url": URL, "events": []}, ["events"]),
        ({"url": URL, "events": ["run.fialed"]}, ["events"]),
        ({"url": URL, "events": ["run.failed", 7]}, ["events"]),
        ({"url": URL, "events": "run.failed"}, ["events"]),
        ({"url": URL, "colour": "red"}, ["colour"]),
        ({"url": URL, "channel": "pigeon"}, ["channel"]),
        ({"url": URL, "email": "a@example.com"}, ["email"]),
        ({"email": "nobody"}, ["email"]),
        ({"email": "a@example.com\nBcc: b@example.com"}, ["email"]),
        ({"url": URL, "enabled": "yes"}, ["enabled"]),
        ({"url": "ftp://x.org", "events": ["x"], "name": 3}, ["url", "events", "name"]),
    ],
)
def test_every_wrong_field_is_named(me: Any, spec: dict[str, Any], fields: list[str]) -> None:
    state, reason, message = refusal(me, "select create_webhook_endpoint(%s)", Jsonb(spec))
    assert (state, reason) == ("PT422", "webhook_endpoint_invalid")
    for name in fields:
        assert f"{name}: " in message


@pytest.mark.parametrize("spec", ["[]", "null", '"https://example.com"'])
def test_a_specification_must_be_an_object(me: Any, spec: str) -> None:
    found = refusal(me, "select create_webhook_endpoint(%s)", spec)
    assert found[:2] == ("PT422", "webhook_endpoint_invalid")


REFUSED = """
    http://example.com/ https://127.0.0.1/ https://10.1.2.3 https://172.31.0.9/ https://192.168.1.1
    https://169.254.169.254/latest/meta-data https://100.64.0.1/ https://0.0.0.0/
    https://224.0.0.1/ https://255.255.255.255/ https://[::1]/ https://[::]/ https://[fe80::1]/
    https://[fd00::1]/ https://[ff02::1]/ https://[::ffff:127.0.0.1]/ https://[2002:7f00:1::]/
    https://[64:ff9b::7f00:1]/ https://2130706433/ https://0x7f000001/ https://0x7f.1/
    https://0177.0.0.1/ https://127.1/ https://localhost/ https://LOCALHOST./ https://a.localhost/
    https://printer.local/ https://db.internal/ https://intranet/ https://user:pw@example.com/
    https://example.com@127.0.0.1/ https://example.com/#x https://exa$mple.com/
    https://example.com:0/ https://example.com:70000/ https:/example.com javascript:alert(1)
    file:///etc/passwd gopher://example.com https:// https://. https://example.com\\@127.0.0.1/
"""
ACCEPTED = """
    https://example.com https://example.com/ https://EXAMPLE.com:8443/a/b?c=d https://8.8.8.8/
    https://[2606:4700:4700::1111]/hook https://hooks.example.co.uk/services/T0/B0?x=%20
    https://xn--bcher-kva.example.com/ https://example.com?x=1
"""


@pytest.mark.parametrize("url", REFUSED.split())
def test_addresses_that_are_not_of_the_internet_are_refused(me: Any, url: str) -> None:
    found = refusal(me, "select create_webhook_endpoint(%s)", Jsonb({"url": url}))
    assert found[:2] == ("PT422", "webhook_endpoint_invalid")


@pytest.mark.parametrize("url", ACCEPTED.split())
def test_addresses_of_the_internet_are_accepted(me: Any, url: str) -> None:
    assert create(me, url=url)["url"] == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/x", "http://localhost/", "https://[::1]:8/", "http://nas/hook"]
)
def test_an_administrator_may_allow_private_addresses(db: Any, sign_in: Any, url: str) -> None:
    db.execute("select fleet.set_setting('webhook_allow_private', 'true')")
    sign_in(db, ME)
    assert create(db, url=url)["url"] == url


def test_a_row_that_is_inserted_directly_is_checked_and_gets_a_secret(
    db: Any, sign_in: Any
) -> None:
    db.execute("insert into owners (id, name) values (%s, 'me')", (ME,))
    sign_in(db, None, "service_role")
    insert = "insert into webhook_endpoints (owner_id, url) values (%s, %s)"
    assert refusal(db, insert, ME, "https://127.0.0.1/")[:2] == (
        "PT422",
        "webhook_endpoint_invalid",
    )
    db.execute(insert, (ME, URL))
    db.execute("reset role")
    assert db.execute("select count(*) from fleet.webhook_secrets").fetchone() == (1,)


def test_changes_are_checked_and_a_disabled_endpoint_ends_what_waits(me: Any) -> None:
    made = create(me, url=URL)
    me.execute("select test_webhook_endpoint(%s)", (made["id"],))
    update = "select to_jsonb(e) from update_webhook_endpoint(%s, %s) as e"

    changed = me.execute(
        update, (made["id"], Jsonb({"events": ["run.*"], "enabled": False}))
    ).fetchone()[0]
    assert (changed["events"], changed["disabled_reason"]) == (["run.*"], "it was disabled by hand")
    [(status, error)] = me.execute("select status, last_error from webhook_deliveries").fetchall()
    assert (status, error) == ("failed", "the endpoint is disabled")
    found = refusal(me, "select test_webhook_endpoint(%s)", made["id"])
    assert found[:2] == ("PT409", "webhook_endpoint_disabled")

    woken = me.execute(update, (made["id"], Jsonb({"enabled": True}))).fetchone()[0]
    assert (woken["enabled"], woken["disabled_reason"]) == (True, None)
    assert refusal(me, update, made["id"], Jsonb({"url": "https://10.0.0.1/"}))[0] == "PT422"
    assert refusal(me, update, made["id"], Jsonb({"channel": "email"}))[0] == "PT422"
    assert refusal(me, update, made["id"], Jsonb({"email": "a@example.com"}))[0] == "PT422"


def test_rotating_to_nothing_ends_the_former_secret_at_once(me: Any) -> None:
    made = create(me, url=URL)
    new = me.execute("select rotate_webhook_secret(%s, '0')", (made["id"],)).fetchone()[0]
    me.execute("reset role")
    kept = me.execute("select fleet.webhook_secret_text(key) from fleet.webhook_secrets").fetchall()
    assert kept == [(new["secret"],)]
    assert new["secret"] != made["secret"]


def test_deleting_takes_secret_and_messages_along(me: Any) -> None:
    made = create(me, url=URL)
    me.execute("select test_webhook_endpoint(%s)", (made["id"],))
    me.execute("select delete_webhook_endpoint(%s)", (made["id"],))
    me.execute("reset role")
    for table in ("webhook_endpoints", "webhook_deliveries", "fleet.webhook_secrets"):
        assert me.execute(f"select count(*) from {table}").fetchone() == (0,)


BY_ID = [
    "select update_webhook_endpoint(%s, '{}')",
    "select rotate_webhook_secret(%s)",
    "select delete_webhook_endpoint(%s)",
    "select test_webhook_endpoint(%s)",
]


@pytest.mark.parametrize("query", BY_ID)
def test_another_owners_endpoint_is_as_good_as_not_there(me: Any, sign_in: Any, query: str) -> None:
    made = create(me, url=URL)
    sign_in(me, STRANGER)
    foreign = refusal(me, query, made["id"])
    missing = refusal(me, query, 999_999)
    assert foreign[:2] == missing[:2] == ("PT404", "webhook_endpoint_not_found")
    assert foreign[2].replace(str(made["id"]), "999999") == missing[2]


def test_a_stranger_sees_neither_endpoints_nor_messages_and_resends_none(
    me: Any, sign_in: Any
) -> None:
    made = create(me, url=URL)
    [delivery] = me.execute("select id from test_webhook_endpoint(%s)", (made["id"],)).fetchone()
    sign_in(me, STRANGER)
    for table in ("webhook_endpoints", "webhook_deliveries"):
        assert me.execute(f"select count(*) from {table}").fetchone() == (0,)
    found = refusal(me, "select redeliver(%s)", delivery)
    assert found[:2] == ("PT404", "webhook_delivery_not_found")


def test_who_only_views_sees_messages_but_manages_nothing(me: Any, sign_in: Any) -> None:
    made = create(me, url=URL)
    me.execute("select test_webhook_endpoint(%s)", (made["id"],))
    me.execute("reset role")
    me.execute(
        "insert into owner_members (owner_id, user_id, permissions) values (%s, %s, '{view}')",
        (ME, VIEWER),
    )
    sign_in(me, VIEWER)
    assert me.execute("select count(*) from webhook_deliveries").fetchone() == (1,)
    assert me.execute("select count(*) from webhook_endpoints").fetchone() == (0,)
    for query in BY_ID:
        assert refusal(me, query, made["id"])[:2] == ("PT403", "permission_missing")
    spec = Jsonb({"url": URL, "owner_id": str(ME)})
    assert refusal(me, "select create_webhook_endpoint(%s)", spec)[0] == "PT403"


def test_nobody_makes_an_endpoint_for_another_owner(me: Any, sign_in: Any) -> None:
    create(me, url=URL)
    sign_in(me, STRANGER)
    for owner in (ME, uuid4()):
        spec = Jsonb({"url": URL, "owner_id": str(owner)})
        found = refusal(me, "select create_webhook_endpoint(%s)", spec)
        assert found[:2] == ("PT404", "owner_not_found")
