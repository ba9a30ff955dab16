"""Who asks, and the tokens that stand for one object for a while."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import jwt
from starlette.requests import Request

from pgfleet_local.storage.errors import StorageError
from pgfleet_local.tokens import TokenError, TokenVerifier

LONGEST_SECONDS = 10 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the request: a role of the database and the claims."""

    role: str
    claims: dict[str, Any]

    @property
    def claims_text(self) -> str:
        """Give the claims as the database reads them."""
        return json.dumps(self.claims)

    @property
    def owner_id(self) -> str | None:
        """Give the subject of the token."""
        sub = self.claims.get("sub")
        return sub if isinstance(sub, str) else None


def authenticate(request: Request, verifier: TokenVerifier) -> Caller:
    """Check the token; without one the project key decides."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        token = request.headers.get("apikey", "")
    try:
        claims = verifier.verify(token.strip())
    except TokenError as error:
        raise StorageError(403, "Unauthorized", error.message) from error
    return Caller(claims["role"], claims)


class Signer:
    """Sign addresses of objects, and check them."""

    def __init__(self, secret: str) -> None:
        # Of its own: an address for a file must not open anything else.
        self._secret = f"storage:{secret}"

    def sign(self, url: str, seconds: int, **more: Any) -> str:
        """Give a token for one object that ends by itself."""
        now = int(time.time())
        claims = {"url": url, "iat": now, "exp": now + min(seconds, LONGEST_SECONDS), **more}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def check(self, token: str, url: str) -> dict[str, Any]:
        """Give the claims of a token that stands for this object."""
        try:
            claims: dict[str, Any] = jwt.decode(token, self._secret, algorithms=["HS256"])
        except jwt.PyJWTError as error:
            raise StorageError(400, "InvalidJWT", str(error)) from error
        if claims.get("url") != url:
            raise StorageError(400, "InvalidSignature", "The signature is of another object")
        return claims
