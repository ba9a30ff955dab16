"""What a request passes before it is answered: faults, the rate limit and the key."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import math
import random
from collections import deque
from collections.abc import MutableMapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgfleet_local.sandboxes.simplemdm.account import Account

FORBIDDEN = "This API Key does not have access to this resource."


def error(status: int, title: str, headers: dict[str, str] | None = None) -> Response:
    """Answer a refusal in the shape of the API."""
    return JSONResponse({"errors": [{"title": title}]}, status_code=status, headers=headers)


class Gate:
    """ASGI middleware around the API; it also keeps a record of all requests."""

    def __init__(self, app: ASGIApp, account: Account) -> None:
        self._app = app
        self._account = account
        self._passed: deque[float] = deque()
        self._random = random.Random(7)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record: dict[str, Any] = {
            "at": self._account.now(),
            "method": scope["method"],
            "path": scope["path"],
            "status": None,
        }
        self._account.requests.append(record)
        faults = self._account.faults
        if faults.slow_seconds:
            await asyncio.sleep(faults.slow_seconds)
        self._account.deliver()
        breaks_off = self._hits(faults.reset_share)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                record["status"] = message["status"]
            if not breaks_off:
                await send(message)
                return
            if message["type"] == "http.response.start":
                record["reset"] = True
                # More is promised than is ever sent: the server then cuts the connection.
                await send({**message, "status": 200, "headers": [(b"content-length", b"1")]})

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, answer)

    def _hits(self, share: float) -> bool:
        return share > 0 and self._random.random() < share

    def _refusal(self, scope: MutableMapping[str, Any]) -> Response | None:
        faults = self._account.faults
        if faults.down:
            return error(503, "service unavailable")
        if (limited := self._limit()) is not None:
            return limited
        if faults.error_burst > 0:
            faults.error_burst -= 1
            return error(500, "internal server error")
        if self._hits(faults.error_share):
            return error(500, "internal server error")
        if self._hits(faults.limit_share):
            return too_many(self._account, 1.0)
        return self._check_key(scope)

    def _limit(self) -> Response | None:
        """Let through as many as the limit allows in any second."""
        limit, now = self._account.faults.rate_limit, self._account.now()
        if limit <= 0:
            return None
        # A whole window of ten seconds, so that a short burst is not yet too many.
        window = 10.0
        while self._passed and self._passed[0] <= now - window:
            self._passed.popleft()
        if len(self._passed) >= limit * window * 1.05:
            return too_many(self._account, self._passed[0] + window - now)
        self._passed.append(now)
        return None

    def _check_key(self, scope: MutableMapping[str, Any]) -> Response | None:
        given = _user_name(dict(scope["headers"]).get(b"authorization", b""))
        rights = {
            name
            for name, key in self._account.keys.items()
            if hmac.compare_digest(key.encode(), given.encode())
        }
        if not rights:
            return error(401, "unauthorized")
        if rights == {"read_only"} and scope["method"] != "GET":
            return error(403, FORBIDDEN)
        return None


def too_many(account: Account, seconds: float) -> Response:
    """Answer 429, with the headers that the account is set to send."""
    seconds = max(1.0, seconds)
    told = {
        "reset": {"X-RateLimit-Reset": str(math.ceil(account.now() + seconds))},
        "retry_after": {"Retry-After": str(math.ceil(seconds))},
        "none": {},
    }
    wanted = account.faults.limit_headers
    headers = told.get(wanted, told["reset"] | told["retry_after"])
    return error(429, "too many requests", headers)


def _user_name(header: bytes) -> str:
    """Take the key out of a basic authorization, whose password is empty."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return ""
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return ""
    return "" if password else name.decode("utf-8", "replace")
