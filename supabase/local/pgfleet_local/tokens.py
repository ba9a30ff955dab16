"""Verify the JSON web tokens that decide who is calling."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import jwt

Reason = Literal["missing", "malformed", "bad_signature", "expired", "claims"]

SHARED_SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = ("ES256", "RS256")

# How many tokens are remembered, of those that are not unusually long.
MOST_KEPT = 10_000
LONGEST_KEPT = 4_000

# The claims are checked here: PyJWT's exceptions for them differ between its versions.
SIGNATURE_ONLY: Any = {
    f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")
}


class TokenError(Exception):
    """Raised when a token is absent, unreadable, forged, too old or lacks a claim."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message


class TokenVerifier:
    """Check tokens against the shared secret and the public keys of a JWKS.

    A public key is found by the `kid` in the token's header and serves its own algorithm only,
    so a token can never choose to have a public key read as a shared secret.
    """

    def __init__(self, secret: str, jwks: Mapping[str, Any] | None = None) -> None:
        self._secret = secret
        self._keys = _keys_by_id(jwks)
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a valid token, or raise `TokenError`."""
        if not token:
            raise TokenError("missing", "no token was sent")
        claims = self._signed_claims(token)
        _check_claims(claims)
        return dict(claims)

    def _signed_claims(self, token: str) -> dict[str, Any]:
        """Read the claims of a token that we or the project signed.

        The same ones come again and again, and a signature that was good once stays so; whether
        they have expired is looked at each time.
        """
        claims = self._known.get(token)
        if claims is None:
            claims = self._decoded(token)
            if len(token) <= LONGEST_KEPT:
                self._known[token] = claims
            if len(self._known) > MOST_KEPT:
                self._known.popitem(last=False)
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        key, algorithms = self._key_for(token)
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=algorithms, options=SIGNATURE_ONLY
            )
        except jwt.InvalidSignatureError as error:
            raise TokenError("bad_signature", "JWSError JWSInvalidSignature") from error
        except jwt.PyJWTError as error:
            raise TokenError("malformed", str(error)) from error
        return claims

    def _key_for(self, token: str) -> tuple[Any, list[str]]:
        """Choose the key and the algorithms that this token may use."""
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise TokenError("malformed", str(error)) from error
        algorithm, key_id = header.get("alg"), header.get("kid")
        known = self._keys.get(key_id) if isinstance(key_id, str) else None
        if known is not None and known.algorithm_name == algorithm:
            return known.key, [known.algorithm_name]
        if algorithm in SHARED_SECRET_ALGORITHMS and known is None:
            return self._secret, list(SHARED_SECRET_ALGORITHMS)
        raise TokenError("bad_signature", "no suitable key or wrong key type")


def _check_claims(claims: Mapping[str, Any]) -> None:
    """Require a role and an expiry that lies ahead."""
    now = time.time()
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
            raise TokenError("claims", f"the {name} claim must be a number")
    if claims.get("exp") is None:
        raise TokenError("claims", "the token has no exp claim")
    if claims["exp"] <= now:
        raise TokenError("expired", "JWT expired")
    if (claims.get("nbf") or 0) > now:
        raise TokenError("claims", "JWT not yet valid")
    if not isinstance(claims.get("role"), str) or not claims["role"]:
        raise TokenError("claims", "the token has no role claim")


def _keys_by_id(jwks: Mapping[str, Any] | None) -> dict[str, jwt.PyJWK]:
    keys: dict[str, jwt.PyJWK] = {}
    for data in (jwks or {}).get("keys", ()):
        key = jwt.PyJWK(data)
        allowed = key.algorithm_name in (*SHARED_SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS)
        if key.key_id and allowed:
            keys[key.key_id] = key
    return keys
