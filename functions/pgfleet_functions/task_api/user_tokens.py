"""Verify the tokens of people: by the project's secret, or by its public keys."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import jwt
from starlette.requests import Request

from pgfleet_functions.devices.signing import SigningKey
from pgfleet_functions.errors import FunctionError, NotSignedIn, Unavailable
from pgfleet_functions.outgoing.errors import OutgoingError
from pgfleet_functions.outgoing.transport import Limits, Outgoing

PUBLIC_ALGORITHMS = ("ES256", "RS256")
# New keys are fetched when a token names one, but not at the pace of whoever makes names up.
FETCH_PAUSE_SECONDS = 30.0
FAILED_PAUSE_SECONDS = 2.0
# A key that was revoked is forgotten after this time.
KEYS_LAST_SECONDS = 600.0
KEYS_LIMITS = Limits(seconds=5.0, body_bytes=256 * 1024)
# What the database asks of a caller; the rest of a token is nobody's business.
CLAIMS = ("sub", "role", "email", "device_id")


class UserTokens:
    """Find out who calls. Each key serves its own algorithm only, whatever a token says."""

    def __init__(
        self, secret: str | None, jwks_url: str | None, own_key: SigningKey | None = None
    ) -> None:
        """Take what verifies tokens; a key of our own needs not be fetched."""
        self._secret = secret
        self._url = jwks_url
        self._own: dict[str, tuple[Any, str]] = {}
        if own_key and own_key.algorithm in PUBLIC_ALGORITHMS and own_key.key_id:
            self._own[own_key.key_id] = (own_key.public, own_key.algorithm)
        self._fetched: dict[str, tuple[Any, str]] = {}
        self._fetched_at = self._failed_at = float("-inf")
        self._lock = asyncio.Lock()

    async def verify(self, request: Request) -> dict[str, Any]:
        """Return what the database needs of the caller's claims, or raise `NotSignedIn`."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise _refused("the call carries no token", "token_missing")
        claims = await self.read(token, request.app.state.outgoing)
        return {name: claims[name] for name in CLAIMS if name in claims}

    async def read(self, token: str, outgoing: Outgoing) -> dict[str, Any]:
        """Return all claims of a token that is good, or raise `NotSignedIn`."""
        try:
            header = jwt.get_unverified_header(token)
            key, algorithm = await self._key_for(header.get("alg"), header.get("kid"), outgoing)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options={"require": ["exp", "sub"], "verify_aud": False, "verify_iat": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise _refused("the token has expired", "token_expired") from error
        except jwt.PyJWTError as error:
            raise _refused("the token is not good", "token_refused") from error
        return claims

    async def _key_for(self, algorithm: Any, key_id: Any, outgoing: Outgoing) -> tuple[Any, str]:
        if algorithm == "HS256" and self._secret:
            return self._secret, "HS256"
        if algorithm in PUBLIC_ALGORITHMS and isinstance(key_id, str):
            known = self._own.get(key_id) or await self._public_key(key_id, outgoing)
            if known is not None and known[1] == algorithm:
                return known
        raise jwt.InvalidKeyError("no key fits the token")

    async def _public_key(self, key_id: str, outgoing: Outgoing) -> tuple[Any, str] | None:
        if self._url is None:
            return None
        age = time.monotonic() - self._fetched_at
        if age > KEYS_LAST_SECONDS or (key_id not in self._fetched and age > FETCH_PAUSE_SECONDS):
            async with self._lock:
                # Whoever waited for the lock finds what the other one has fetched.
                if time.monotonic() - self._fetched_at >= age:
                    await self._fetch(self._url, outgoing)
        return self._fetched.get(key_id)

    async def _fetch(self, url: str, outgoing: Outgoing) -> None:
        if time.monotonic() - self._failed_at < FAILED_PAUSE_SECONDS:
            raise _unavailable()
        try:
            # The operator's own address, which may well be on this machine.
            request = httpx.Request("GET", url)
            answer = await outgoing.call(request, KEYS_LIMITS, allow_private=True)
            if not answer.is_success:
                raise ValueError(f"answered {answer.status}")
            self._fetched = _keys_of(answer.json()["keys"])
        except (OutgoingError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            self._failed_at = time.monotonic()
            raise _unavailable() from error
        self._fetched_at = time.monotonic()


def _keys_of(listed: list[dict[str, Any]]) -> dict[str, tuple[Any, str]]:
    keys: dict[str, tuple[Any, str]] = {}
    for data in listed:
        try:
            found = jwt.PyJWK(data)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            # A kind of key that we do not know serves others.
            continue
        if found.key_id and found.algorithm_name in PUBLIC_ALGORITHMS:
            keys[found.key_id] = (found.key, found.algorithm_name)
    return keys


def _unavailable() -> Unavailable:
    return Unavailable(
        "the public keys of the project cannot be read at the moment",
        details="jwks_unavailable",
        hint="Try again in a moment; the operator can check PGFLEET_JWKS_URL.",
    )


def _refused(message: str, reason: str) -> FunctionError:
    return NotSignedIn(
        message,
        details=reason,
        hint='Send "Authorization: Bearer <access token>" of a signed-in user.',
        headers={"WWW-Authenticate": "Bearer"},
    )
