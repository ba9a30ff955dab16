"""Messages by e-mail: one short text for each event, through the SMTP server of the settings."""

from __future__ import annotations

import asyncio
import json
import re
import smtplib
from concurrent.futures import Executor
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from typing import Any

from pgfleet_functions.notify.messages import Delivery, Outcome
from pgfleet_functions.outgoing.mail import MailServer


async def deliver_email(
    server: MailServer | None, delivery: Delivery, threads: Executor | None = None
) -> Outcome:
    """Send the message in one of these threads and tell how it went."""
    if server is None:
        return Outcome("retry", error="the functions have no mail server: set PGFLEET_SMTP_URL")
    try:
        # Whatever hangs ends by the timeout of the socket; the lease is far longer.
        message = make_message(server, delivery)
        await asyncio.get_running_loop().run_in_executor(threads, server.send, message)
    except smtplib.SMTPRecipientsRefused as error:
        code, text = next(iter(error.recipients.values()))
        return _refusal(code, _words(text))
    except smtplib.SMTPResponseException as error:
        return _refusal(error.smtp_code, _words(error.smtp_error))
    except (OSError, smtplib.SMTPException) as error:
        is_slow = isinstance(error, TimeoutError)
        return Outcome("retry", error=f"{type(error).__name__}: {error}", is_slow=is_slow)
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
