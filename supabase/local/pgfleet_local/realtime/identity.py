"""Turn a token into who is listening, and a bad token into the reason that clients know."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from pgfleet_local.realtime.protocol import to_json
from pgfleet_local.tokens import TokenError, TokenVerifier

# Keys of the newer style are no tokens: the hosted gateway swaps them for one.
OPAQUE_KEY_PREFIX = "sb_"


class IdentityError(Exception):
    """Raised when a token is refused; `code` leads the text in an answer to a join."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Access:
    """The role and the claims that row security decides on."""

    role: str
    claims: str
    subject: str


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified token: what it may see and until when."""

    token: str
    access: Access
    expires_at: float

    @property
    def expiry_text(self) -> str:
        """Say how long ago the token expired."""
        return f"Token has expired {max(0, int(time.time() - self.expires_at))} seconds ago"


def identify(verifier: TokenVerifier, token: str) -> Identity:
    """Verify the token, or raise `IdentityError`."""
    try:
        claims = verifier.verify(token)
    except TokenError as error:
        raise _refusal(error, token) from error
    access = Access(claims["role"], to_json(claims), str(claims.get("sub") or ""))
    return Identity(token, access, float(claims["exp"]))


def token_of_join(payload: Mapping[str, Any], apikey: str) -> str:
    """Return the token of a join; clients of years ago call it `user_token`."""
    user_token, access_token = payload.get("user_token"), payload.get("access_token")
    sent = user_token if isinstance(user_token, str) and user_token else access_token
    if isinstance(access_token, str) and access_token.startswith(OPAQUE_KEY_PREFIX):
        return apikey
    return choose_token(sent, apikey)


def choose_token(access_token: Any, apikey: str) -> str:
    """Return the token of a refresh, which is the API key unless a real one was sent."""
    if not isinstance(access_token, str) or not access_token:
        return apikey
    return apikey if access_token.startswith(OPAQUE_KEY_PREFIX) else access_token


def _refusal(error: TokenError, token: str) -> IdentityError:
    """Translate the reason into the hosted server's words."""
    if error.reason == "expired":
        return IdentityError("InvalidJWTToken", _expired(token))
    if error.reason == "claims":
        return IdentityError("InvalidJWTToken", "Fields `role` and `exp` are required in JWT")
    if error.reason == "bad_signature":
        return IdentityError("JwtSignatureError", "Failed to validate JWT signature")
    return IdentityError("MalformedJWT", "The token provided is not a valid JWT")


def _expired(token: str) -> str:
    """Read the expiry that the verifier has just refused."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return f"Token has expired {max(0, int(time.time() - claims['exp']))} seconds ago"
