"""E-mail: a real mail server takes what the function sends."""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgfleet_functions.notify.email import deliver_email
from pgfleet_functions.notify.messages import Delivery
from pgfleet_functions.outgoing.mail import MailServer, SmtpUrlError
from pgfleet_functions.settings import FunctionSettings, SettingsError
from pgfleet_local.settings import HOST

with warnings.catch_warnings():
    # The mail server of the tests is older than the Python that runs it.
    warnings.simplefilter("ignore")
    from aiosmtpd.controller import Controller


@dataclass
class Mailbox:
    """What a mail server keeps of the messages that it took, and what it replies."""

    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    reply: str = "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message, or refuse it."""
        if self.reply.startswith("250"):
            found = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(found, EmailMessage)
            self.messages.append(found)
            self.recipients += envelope.rcpt_tos
        return self.reply


@pytest.fixture
def mailbox(mail_port: int) -> Iterator[Mailbox]:
    box = Mailbox()
    controller = Controller(box, hostname=HOST, port=mail_port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


def test_an_e_mail_arrives_and_says_what_happened(site: Any, owner: UUID, mailbox: Mailbox) -> None:
    endpoint = site.endpoint(owner, email="ops@example.com", events=["run.failed"])
    site.emit(owner, schedule_name="Nächtlich\r\nBcc: x@example.com", run_id=7)

    assert site.poke() == {"delivered": 1}

    [message] = mailbox.messages
    delivery = site.delivery(endpoint)
    text = message.get_content()
    assert endpoint["secret"] is None
    assert mailbox.recipients == ["ops@example.com"]
    assert message["from"] == "pgfleet <pgfleet@example.com>"
    assert message["subject"] == "pgfleet: run.failed Nächtlich Bcc: x@example.com"
    assert message["bcc"] is None
    assert message["auto-submitted"] == "auto-generated"
    assert delivery["event_id"] in message["message-id"]
    assert "run_id: 7" in text
    assert delivery["payload"]["timestamp"] in text


def test_a_server_that_cannot_take_it_now_is_asked_again(
    site: Any, owner: UUID, mailbox: Mailbox
) -> None:
    mailbox.reply = "451 come back later"
    endpoint = site.endpoint(owner, email="ops@example.com")
    site.emit(owner)
    assert site.poke() == {"pending": 1}
    assert site.delivery(endpoint)["last_error"] == "the mail server said: 451 come back later"

    mailbox.reply = "250 OK"
    site.hurry()
    assert site.poke() == {"delivered": 1}


def test_a_refusal_for_good_is_not_tried_again(site: Any, owner: UUID, mailbox: Mailbox) -> None:
    mailbox.reply = "550 no such mailbox"
    endpoint = site.endpoint(owner, email="ops@example.com")
    site.emit(owner)
    assert site.poke() == {"failed": 1}
    assert site.delivery(endpoint)["last_status"] == 550


def test_a_mail_server_that_is_away_is_tried_again(site: Any, owner: UUID) -> None:
    endpoint = site.endpoint(owner, email="ops@example.com")
    site.emit(owner)
    assert site.poke() == {"pending": 1}
    assert site.delivery(endpoint)["last_error"].startswith("ConnectionRefusedError")


def test_a_password_is_not_sent_in_the_clear(mailbox: Mailbox, mail_port: int) -> None:
    delivery = Delivery(
        delivery_id=1,
        attempt=1,
        event="run.failed",
        event_id="evt_1",
        channel="email",
        url=None,
        email="ops@example.com",
        headers=None,
        body="{}",
        allow_private=False,
    )
    server = MailServer(HOST, mail_port, "a@example.com", "user", "password")
    outcome = asyncio.run(deliver_email(server, delivery))
    assert (outcome.kind, mailbox.messages) == ("retry", [])
    assert "offers no TLS" in str(outcome.error)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.com", ("mail.example.com", 587, None, None, False)),
        ("smtps://mail.example.com", ("mail.example.com", 465, None, None, True)),
        ("smtp://u%40x:p%2F@mail.example.com:25", ("mail.example.com", 25, "u@x", "p/", False)),
    ],
)
def test_the_address_of_a_mail_server(url: str, expected: Any) -> None:
    found = MailServer.from_url(url, "pgfleet@example.com")
    assert (found.host, found.port, found.user, found.password, found.implicit_tls) == expected
    assert "p/" not in repr(found)


@pytest.mark.parametrize(
    ("url", "sender"),
    [
        ("mail.example.com", "a@example.com"),
        ("http://mail.example.com", "a@example.com"),
        ("smtp://", "a@example.com"),
        ("smtp://mail.example.com:x", "a@example.com"),
        ("smtp://mail.example.com", None),
        ("smtp://mail.example.com", "nobody"),
        ("smtp://mail.example.com", "a@example.com\nBcc: b@example.com"),
    ],
)
def test_settings_of_mail_that_cannot_be_used_are_named(url: str, sender: str | None) -> None:
    with pytest.raises(SmtpUrlError):
        MailServer.from_url(url, sender)
    environment = {
        "PGFLEET_FUNCTIONS_DATABASE_URL": "postgresql://",
        "SUPABASE_JWT_SECRET": "s" * 32,
        "PGFLEET_SMTP_URL": url,
        **({"PGFLEET_SMTP_FROM": sender} if sender else {}),
    }
    with pytest.raises(SettingsError, match="PGFLEET_SMTP_URL"):
        FunctionSettings.from_environment(environment)


def test_a_mailbox_is_sent_a_code_and_nothing_else_until_somebody_enters_it(
    site: Any, owner: UUID, mailbox: Mailbox
) -> None:
    endpoint = site.endpoint(
        owner, verified=False, email="victim@example.com", events=["run.failed"]
    )
    site.emit(owner, schedule_name="Morning")
    site.poke()
    (asked,) = mailbox.messages
    assert "webhook.verify" in asked["Subject"]
    (code,) = re.findall(r"^code: ([0-9A-F]{16})\r?$", asked.get_content(), re.M)
    # Whoever made it reads no code anywhere else.
    seen = site.value(
        "select jsonb_agg(to_jsonb(d)) from webhook_deliveries as d where endpoint_id = %s",
        endpoint["id"],
    )
    assert code not in str(seen)
    with pytest.raises(psycopg.Error) as refused:
        site.value("select verify_webhook_endpoint(%s, 'GUESS')", endpoint["id"])
    assert refused.value.diag.message_detail == "mailbox_code_invalid"
    site.value("select verify_webhook_endpoint(%s, %s)", endpoint["id"], code.lower())
    site.emit(owner, schedule_name="Evening")
    site.poke()
    assert [str(one["Subject"]) for one in mailbox.messages[1:]] == ["pgfleet: run.failed Evening"]
    # Another address is another reader.
    site.value("select update_webhook_endpoint(%s, %s)", endpoint["id"],
               Jsonb({"email": "other@example.com"}))  # fmt: skip
    site.emit(owner, schedule_name="Night")
    site.poke()
    assert ["webhook.verify" in str(one["Subject"]) for one in mailbox.messages[2:]] == [True]
