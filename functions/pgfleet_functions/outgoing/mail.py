"""The mail server of the operator: how it is named, and how a message leaves through it."""

from __future__ import annotations

import re
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import parseaddr
from urllib.parse import unquote, urlsplit

# For each step; whatever hangs ends by it, and the lease of a message is far longer.
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

    def send(self, message: EmailMessage) -> None:
        """Send a message; raises what smtplib raises, and OSError. It blocks."""
        context = ssl.create_default_context()
        if self.implicit_tls:
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=TIMEOUT_SECONDS, context=context
            )
        else:
            connection = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_SECONDS)
        with connection:
            connection.ehlo()
            if not self.implicit_tls and connection.has_extn("starttls"):
                connection.starttls(context=context)
                connection.ehlo()
            elif self.user and not self.implicit_tls:
                raise smtplib.SMTPNotSupportedError(
                    "the server offers no TLS, so the password is not sent"
                )
            if self.user:
                connection.login(self.user, self.password or "")
            connection.send_message(message)
