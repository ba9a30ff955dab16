"""Calls to another system: within the rate, each recorded, failures put into classes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

import httpx

from pgfleet_functions.outgoing.answers import Answer
from pgfleet_functions.outgoing.errors import (
    AddressRefused,
    AnswerRefused,
    OutgoingError,
    TooSlow,
)
from pgfleet_functions.outgoing.retry_after import http_date, pause_of
from pgfleet_functions.outgoing.transport import Limits, Outgoing
from pgfleet_functions.tracing import span

# A page of a hundred devices has a fifth of it; what is not a list has next to nothing.
LISTS = Limits(seconds=30.0, body_bytes=2 * 1024 * 1024)
LIMITS = Limits(seconds=30.0, body_bytes=256 * 1024)
LONGEST_SHOWN = 4000
LONGEST_PAUSE_SECONDS = 60.0
CLOCKS_AGREE_SECONDS = 2.0
HIDDEN = "[hidden]"
HIDDEN_FIELDS = ("pin", "passcode", "password")

# What a field of a form holds as a file: its name, its bytes, its media type.
Files = Mapping[str, tuple[str, bytes, str]]


class FailureKind(StrEnum):
    """What a call that brought nothing means for the next one."""

    NETWORK = "network"  # no answer: the other side may or may not have acted
    SERVER = "server"  # 5xx
    RATE = "rate"  # 429
    KEY = "key"  # 401 or 403: no call with this key can succeed
    REFUSED = "refused"  # another 4xx: this call can never succeed


class CallFailed(Exception):
    """A call brought no success; the message is fit for people and holds no secret."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        reached: bool = True,
        is_slow: bool = False,
        is_unfit: bool = False,
        answer: Answer | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after = retry_after
        # Whether the request may have reached the other side.
        self.reached = reached
        # Whether the other side let us wait until the time was over.
        self.is_slow = is_slow
        # Whether it did answer, but with more than is read, or with JSON that nobody can take.
        self.is_unfit = is_unfit
        # What came back, where it was the other side that answered.
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it is logged, before it is made and after: no headers, no credentials."""

    integration_id: int
    command_id: int | None
    attempt: int | None
    method: str
    url: str
    request_body: str | None
    at: str
    id: int | None = None
    status: int | None = None
    duration_ms: int | None = None
    response_body: str | None = None
    error: str | None = None

    def row(self) -> dict[str, Any]:
        """Give the call as the database takes it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Connection:
    """The way to one integration's other system, for one piece of work."""

    integration_id: int
    base_url: str
    secret: str
    user: str | None
    outgoing: Outgoing
    allow_private: bool
    # Waits until the rate allows a call; raises `CallFailed` where that takes too long.
    enter: Callable[[str], Awaitable[None]]
    # Writes a call to the log before it is made; what became of it is told by `record`.
    begin: Callable[[Call], Awaitable[int]]
    record: Callable[[Call], None]
    slow_down: Callable[[float | None, str], Awaitable[None]]
    # The header that takes the secret as it is; else it is a basic authorization.
    key_header: str | None = None
    # What people read in messages.
    called: str = "the MDM"

    @property
    def credentials(self) -> dict[str, str]:
        """Give the header: the key is what a user name is in SimpleMDM; others have a name."""
        if self.key_header:
            return {self.key_header: self.secret}
        known = f"{self.user}:{self.secret}" if self.user else f"{self.secret}:"
        return {"Authorization": f"Basic {base64.b64encode(known.encode()).decode()}"}


class Api:
    """Calls on behalf of one command, or of none."""

    def __init__(
        self, connection: Connection, command_id: int | None = None, attempt: int | None = None
    ) -> None:
        self._connection = connection
        self._command_id = command_id
        self._attempt = attempt

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | Sequence[str]] | None = None,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        content: bytes | None = None,
        files: Files | None = None,
        shown: str | None = None,
        endpoint: str = "",
        limits: Limits | None = None,
    ) -> Answer:
        """Make one call and return its success, also 409; raise `CallFailed` for all else.

        A page for people is no answer: a proxy or the door of a network has spoken.

        `body` is sent as JSON. `shown` is what the log shows of `content`, which may hold
        passwords; of `files`, which may as well, it shows size and hash. `endpoint` names one
        that has a limit of its own: a 429 of it says nothing about other calls.
        """
        connection = self._connection
        await connection.enter(endpoint)
        headers = {"Accept": "application/json", **connection.credentials}
        if body is not None:
            content = json.dumps(body).encode()
            shown = shown or content.decode()
            headers["Content-Type"] = "application/json"
        request = httpx.Request(
            method,
            connection.base_url.rstrip("/") + path,
            params=query,
            headers=headers,
            data=form,
            content=content,
            files=files,
        )
        call = Call(
            integration_id=connection.integration_id,
            command_id=self._command_id,
            attempt=self._attempt,
            method=method,
            url=self._clean(str(request.url.copy_with(userinfo=b""))) or "",
            request_body=self._clean(shown or _form_text(form, files)),
            at=datetime.now(UTC).isoformat(),
        )
        call = replace(call, id=await connection.begin(call))
        began = time.monotonic()
        try:
            with span(f"{method} {connection.called}", integration=connection.integration_id):
                answer = await connection.outgoing.call(
                    request,
                    limits or (LISTS if method == "GET" else LIMITS),
                    allow_private=connection.allow_private,
                )
        except OutgoingError as error:
            failure = _no_answer(error, connection.called)
            said = self._clean(failure.message)
            connection.record(replace(call, duration_ms=_milliseconds(began), error=said))
            raise failure from error
        connection.record(
            replace(
                call,
                status=answer.status,
                duration_ms=_milliseconds(began),
                response_body=self._clean(answer.text()),
            )
        )
        return await self._judge(answer, endpoint)

    async def _judge(self, answer: Answer, endpoint: str) -> Answer:
        status = answer.status
        if is_strange(answer):
            kind = answer.headers.get("content-type", "").partition(";")[0].strip()[:60]
            called = self._connection.called
            if is_unfit(answer):
                message = f"{called} answered {status} with JSON that cannot be read"
                raise CallFailed(FailureKind.NETWORK, message, status=status, is_unfit=True)
            message = f"{called} gave no answer: something else answered {status} {kind}".rstrip()
            raise CallFailed(FailureKind.NETWORK, message, status=status)
        if answer.is_success or status == 409:
            return answer
        said = self._clean(_message(answer))
        message = f"{self._connection.called} answered {status}" + (f": {said}" if said else "")
        pause = pause_of(answer.headers)
        pause = None if pause is None else min(pause, LONGEST_PAUSE_SECONDS)
        if status == 429:
            await self._connection.slow_down(pause, endpoint)
            raise CallFailed(FailureKind.RATE, message, status=status, retry_after=pause)
        if status in (401, 403):
            raise CallFailed(FailureKind.KEY, message, status=status)
        if status >= 500:
            raise CallFailed(
                FailureKind.SERVER, message, status=status, retry_after=pause, answer=answer
            )
        raise CallFailed(FailureKind.REFUSED, message, status=status)

    def _clean(self, text: str | None) -> str | None:
        """Cut a text for the log, and take out of it what nobody may read there."""
        if not text:
            return None
        text = text.replace("\x00", "")
        if len(self._connection.secret) > 3:
            text = text.replace(self._connection.secret, HIDDEN)
        return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def is_strange(answer: Answer) -> bool:
    """Tell whether an answer is not of an API, but of a proxy or a network's door before it.

    Neither redirects nor pages mean anything to an API. What says "too many" or "not now" means
    it, whoever says it.
    """
    if answer.status == 429 or answer.status in range(500, 511):
        return False
    if not (answer.is_success or answer.status >= 400) or answer.status in (407, 511):
        return True
    if _is_page(answer):
        return True
    return answer.is_success and bool(answer.body.strip()) and not _is_json(answer)


def is_unfit(answer: Answer) -> bool:
    """Tell whether it calls itself JSON, and is too deep or has numbers too long to be read."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return answer.is_success and kind == "application/json" and not _is_page(answer)


def _is_page(answer: Answer) -> bool:
    kind = answer.headers.get("content-type", "").lower()
    looks_like_one = answer.text(64).lstrip("\ufeff\ufffd \t\r\n").startswith("<")
    return "html" in kind or (looks_like_one and "xml" not in kind)


def _is_json(answer: Answer) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


def answered_at(answer: Answer) -> datetime:
    """Give the moment of a request, by the other side's clock: devices' times are from there.

    Its header knows seconds only, so it is used where the clocks differ by more than these.
    """
    told = http_date(answer.headers.get("date"))
    if told is None or abs((told - answer.asked_at).total_seconds()) <= CLOCKS_AGREE_SECONDS:
        return answer.asked_at
    return told


def _milliseconds(since: float) -> int:
    return round((time.monotonic() - since) * 1000)


def _no_answer(error: OutgoingError, called: str) -> CallFailed:
    if isinstance(error, AddressRefused):
        return CallFailed(FailureKind.REFUSED, error.message, reached=False)
    message = f"{called} gave no answer ({error.message})"
    return CallFailed(
        FailureKind.NETWORK,
        message,
        reached=error.reached,
        is_slow=isinstance(error, TooSlow),
        is_unfit=isinstance(error, AnswerRefused),
    )


def _form_text(form: Mapping[str, str] | None, files: Files | None) -> str | None:
    if not form and not files:
        return None
    shown = {name: HIDDEN if name in HIDDEN_FIELDS else text for name, text in (form or {}).items()}
    for name, (_, data, _) in (files or {}).items():
        shown[name] = f"[{len(data)} bytes, sha256 {sha256(data).hexdigest()}]"
    return "&".join(f"{name}={text}" for name, text in shown.items())


def _message(answer: Answer) -> str:
    """Give what the other side says is wrong; a body without JSON is shown as it is."""
    try:
        said = answer.json()
        if isinstance(said.get("message"), str):
            return str(said["message"])[:300]
        titles = [str(error["title"]) for error in said["errors"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer.text(1200)[:300].strip()
    return "; ".join(titles)
