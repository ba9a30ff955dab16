"""Calls to an MDM over HTTP: within the rate, each of them recorded, failures put into classes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

import httpx

from pgfleet_functions.notify.webhook import seconds_of
from pgfleet_functions.outgoing.addresses import AddressRefused, AddressUnknown

LONGEST_BODY = 4000
LONGEST_PAUSE_SECONDS = 60.0
# Larger numbers in X-RateLimit-Reset are moments, smaller ones are seconds to wait.
EPOCH_FROM = 1e9
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
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status
        self.retry_after = retry_after
        # Whether the request may have reached the other side.
        self.reached = reached


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
class Line:
    """The way to one integration's MDM, shared by all that use it at the moment."""

    integration_id: int
    base_url: str
    secret: str
    user: str | None
    client: httpx.AsyncClient
    # Waits until the rate allows a call; raises `CallFailed` where that takes too long.
    enter: Callable[[], Awaitable[None]]
    # Writes a call to the log before it is made; what became of it is told by `record`.
    begin: Callable[[Call], Awaitable[int]]
    record: Callable[[Call], None]
    slow_down: Callable[[float | None], Awaitable[None]]


class Api:
    """Calls on behalf of one command, or of none."""

    def __init__(
        self, line: Line, command_id: int | None = None, attempt: int | None = None
    ) -> None:
        self._line = line
        self._command_id = command_id
        self._attempt = attempt

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        files: Files | None = None,
        shown: str | None = None,
        shares_rate: bool = True,
    ) -> httpx.Response:
        """Make one call and return its success, also 409; raise `CallFailed` for all else.

        `shown` is what the log shows of `content`, which may hold passwords; of `files`, which
        may as well, it shows size and hash. Where the path has a limit of its own, not
        `shares_rate`, a 429 says nothing about other calls.
        """
        line = self._line
        await line.enter()
        request = line.client.build_request(
            method,
            line.base_url.rstrip("/") + path,
            params=query,
            data=form,
            content=content,
            files=files,
        )
        # The key is what a user name is in SimpleMDM; others have a name and use it as password.
        auth = httpx.BasicAuth(*((line.user, line.secret) if line.user else (line.secret, "")))
        call = Call(
            integration_id=line.integration_id,
            command_id=self._command_id,
            attempt=self._attempt,
            method=method,
            url=self._clean(str(request.url.copy_with(userinfo=b""))) or "",
            request_body=self._clean(shown or _form_text(form, files)),
            at=datetime.now(UTC).isoformat(),
        )
        call = replace(call, id=await line.begin(call))
        started = time.monotonic()
        response, failure = None, None
        try:
            response = await line.client.send(request, auth=auth)
        except (httpx.HTTPError, AddressUnknown, AddressRefused) as error:
            failure = _network_failure(error)
        line.record(
            replace(
                call,
                status=response.status_code if response is not None else None,
                duration_ms=round((time.monotonic() - started) * 1000),
                response_body=self._clean(response.text if response is not None else None),
                error=self._clean(failure.message) if failure else None,
            )
        )
        if failure or response is None:
            raise failure or AssertionError("no response and no failure")
        return await self._judge(response, shares_rate=shares_rate)

    async def _judge(self, response: httpx.Response, *, shares_rate: bool) -> httpx.Response:
        status = response.status_code
        if response.is_success or status == 409:
            return response
        said = self._clean(_message(response))
        message = f"the MDM answered {status}" + (f": {said}" if said else "")
        if status == 429:
            pause = pause_of(response.headers)
            if shares_rate:
                await self._line.slow_down(pause)
            raise CallFailed(FailureKind.RATE, message, status=status, retry_after=pause)
        if status in (401, 403):
            raise CallFailed(FailureKind.KEY, message, status=status)
        if status >= 500:
            pause = pause_of(response.headers)
            raise CallFailed(FailureKind.SERVER, message, status=status, retry_after=pause)
        raise CallFailed(FailureKind.REFUSED, message, status=status)

    def _clean(self, text: str | None) -> str | None:
        """Cut a text for the log, and take out of it what nobody may read there."""
        if not text:
            return None
        text = text.replace("\x00", "")
        if len(self._line.secret) > 3:
            text = text.replace(self._line.secret, HIDDEN)
        return text if len(text) <= LONGEST_BODY else text[:LONGEST_BODY] + "…"


def pause_of(headers: Mapping[str, str]) -> float | None:
    """Read how long to wait: Retry-After, then X-RateLimit-Reset; never more than a minute."""
    seconds: float | None = seconds_of(headers.get("retry-after"))
    if seconds is None:
        try:
            reset = float(headers.get("x-ratelimit-reset", ""))
        except ValueError:
            return None
        seconds = reset - time.time() if reset > EPOCH_FROM else reset
    return max(0.0, min(seconds, LONGEST_PAUSE_SECONDS))


def answered_at(response: httpx.Response) -> datetime:
    """Give the moment of a request, by the other side's clock: devices' times are from there.

    Its header knows seconds only, so it is used where the clocks differ by more than these.
    """
    began = datetime.now(UTC) - response.elapsed
    try:
        told = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return began
    agrees = abs((told - began).total_seconds()) <= CLOCKS_AGREE_SECONDS
    return began if agrees else told


def _network_failure(error: Exception) -> CallFailed:
    if isinstance(error, AddressRefused):
        return CallFailed(FailureKind.REFUSED, str(error), reached=False)
    # Only these are sure to come before the first byte was sent.
    reached = not isinstance(
        error, (AddressUnknown, httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    )
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return CallFailed(FailureKind.NETWORK, f"the MDM gave no answer ({text})", reached=reached)


def _form_text(form: Mapping[str, str] | None, files: Files | None) -> str | None:
    if not form and not files:
        return None
    shown = {name: HIDDEN if name in HIDDEN_FIELDS else text for name, text in (form or {}).items()}
    for name, (_, data, _) in (files or {}).items():
        shown[name] = f"[{len(data)} bytes, sha256 {sha256(data).hexdigest()}]"
    return "&".join(f"{name}={text}" for name, text in shown.items())


def _message(response: httpx.Response) -> str:
    """Give what the other side says is wrong; a body without JSON is shown as it is."""
    try:
        body = response.json()
        titles = [str(error["title"]) for error in body["errors"]]
    except (ValueError, KeyError, TypeError):
        return response.text[:300].strip()
    return "; ".join(titles)
