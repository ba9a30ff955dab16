"""Find out who sends a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from pgfleet_local.rest.errors import RestError, from_token
from pgfleet_local.tokens import TokenError, TokenVerifier

KEY_ROLES = ("anon", "service_role")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the request."""

    role: str
    claims: dict[str, Any]

    @property
    def is_anonymous(self) -> bool:
        """Tell whether nobody is signed in."""
        return self.role == "anon"


def authenticate(request: Request, verifier: TokenVerifier) -> Caller:
    """Check the project key, then the token; the key alone makes nobody but anon."""
    key = request.headers.get("apikey") or request.query_params.get("apikey")
    if not key:
        raise RestError(
            401,
            "PGRST302",
            "No API key found in request",
            hint="Send the anon key of the project in the header apikey.",
        )
    try:
        if verifier.verify(key)["role"] not in KEY_ROLES:
            raise TokenError("claims", "not a project key")
    except TokenError as error:
        hint = "Double check your `anon` or `service_role` API key."
        raise RestError(401, "PGRST301", "Invalid API key", error.message, hint) from error
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Caller("anon", {"role": "anon"})
    try:
        claims = verifier.verify(token.strip())
    except TokenError as error:
        raise from_token(error) from error
    return Caller(claims["role"], claims)
