"""Messages by e-mail: one short text for each event, through the SMTP server of the settings."""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from typing import Any
from urllib.parse import unquote, urlsplit

from pgfleet_functions.notify.webhook import Delivery, Outcome

TIMEOUT_SECONDS = 15.0


class SmtpUrlError(ValueError):
    """The address of the mail server or of the sender cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """How mail leaves: smtp:// takes TLS where the server offers it, smtps:// begins with it."""

    host: str
    port: int
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    implicit_tls: bool = False

    @classmethod
    def from_url(cls, url: str, sender: str | None) -> MailServer:
        """Read smtp://user:password@host:port, or raise `SmtpUrlError`."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise SmtpUrlError("the port is no number from 1 to 65535") from error
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise SmtpUrlError("it must look like smtp://user:password@mail.example.com:587")
        if not sender or "@" not in parseaddr(sender)[1] or re.search(r"[\r\n]", sender):
            raise SmtpUrlError("a sender such as pgfleet@example.com is needed with it")
        implicit = parts.scheme == "smtps"
        return cls(
            host=parts.hostname,
            port=port or (465 if implicit else 587),
            sender=sender,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            implicit_tls=implicit,
        )


async def deliver_email(server: MailServer | None, delivery: Delivery) -> Outcome:
    """Send the message and tell how it went."""
    if server is None:
        return Outcome("retry", error="the functions have no mail server: set PGFLEET_SMTP_URL")
    try:
        # Whatever hangs ends by the timeout of the socket; the lease is far longer.
        await asyncio.to_thread(_send, server, make_message(server, delivery))
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        return _refusal(code, _words(text))
    except smtplib.SMTPResponseException as error:
        return _refusal(error.smtp_code, _words(error.smtp_error))
    except (OSError, smtplib.SMTPException) as error:
        return Outcome("retry", error=f"{type(error).__name__}: {error}")
    return Outcome("delivered", 250)


def make_message(server: MailServer, delivery: Delivery) -> EmailMessage:
    """Write the e-mail of an event."""
    body = json.loads(delivery.body)
    data = body.get("data")
    facts = data if isinstance(data, dict) else {}
    name = facts.get("schedule_name") or facts.get("name") or ""
    domain = parseaddr(server.sender)[1].rpartition("@")[2]
    message = EmailMessage()
    message["From"] = server.sender
    message["To"] = delivery.email
    message["Subject"] = _one_line(f"pgfleet: {delivery.event} {name}")
    message["Date"] = formatdate()
    # The same at every attempt, as the id of a webhook is.
    message["Message-ID"] = f"<{delivery.event_id}.{delivery.delivery_id}@{domain}>"
    # Nobody's holiday notice is to answer.
    message["Auto-Submitted"] = "auto-generated"
    lines = [f"{delivery.event} at {body.get('timestamp')}", ""]
    lines += [f"{key}: {_as_text(value)}" for key, value in facts.items()]
    lines += ["", f"Event {delivery.event_id}"]
    message.set_content("\n".join(lines) + "\n")
    return message


def _send(server: MailServer, message: EmailMessage) -> None:
    context = ssl.create_default_context()
    if server.implicit_tls:
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
    with connection:
        connection.ehlo()
        if not server.implicit_tls and connection.has_extn("starttls"):
            connection.starttls(context=context)
            connection.ehlo()
        elif server.user and not server.implicit_tls:
            raise smtplib.SMTPNotSupportedError(
                "the server offers no TLS, so the password is not sent"
            )
        if server.user:
            connection.login(server.user, server.password or "")
        connection.send_message(message)


def _refusal(code: int, text: str) -> Outcome:
    """Judge a reply: 4xx may pass, and so may a login that an operator can put right."""
    lasting = 500 <= code < 600 and code not in (530, 534, 535, 538)
    return Outcome("refused" if lasting else "retry", code, f"the mail server said: {code} {text}")


def _words(text: bytes | str) -> str:
    return _one_line(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


def _one_line(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()[:200]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
