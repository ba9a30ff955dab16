"""Sign the tokens of devices, and recognise the project's service key."""

from __future__ import annotations

import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pgfleet_functions.settings import FunctionSettings, SettingsError

AUDIENCE = "authenticated"
ROLE = "authenticated"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key, the algorithm that it serves, and the id by which the verifier finds it."""

    key: Any
    algorithm: str
    key_id: str | None

    @property
    def public(self) -> Any:
        """Return what verifies a signature of this key."""
        if isinstance(self.key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            return self.key.public_key()
        return self.key


class TokenSigner:
    """Sign with the imported private key if there is one, else with the shared secret."""

    def __init__(self, settings: FunctionSettings) -> None:
        self._settings = settings
        self._key = _signing_key(settings)

    @property
    def key(self) -> SigningKey:
        """Return the key that signs."""
        return self._key

    def sign_device(self, identity: dict[str, Any], now: float | None = None) -> dict[str, Any]:
        """Return the token of a device with its lifetime, as it is answered."""
        issued = int(time.time() if now is None else now)
        ttl = self._settings.token_ttl_seconds
        claims = {
            "iss": self._settings.issuer,
            "aud": AUDIENCE,
            "role": ROLE,
            "sub": str(identity["auth_id"]),
            "iat": issued,
            "exp": issued + ttl,
            "device_id": identity["device_id"],
        }
        headers = {"kid": self._key.key_id} if self._key.key_id else None
        return {
            "access_token": jwt.encode(
                claims, self._key.key, algorithm=self._key.algorithm, headers=headers
            ),
            "token_type": "bearer",
            "expires_in": ttl,
            "expires_at": issued + ttl,
        }

    def is_service_key(self, token: str) -> bool:
        """Tell whether this is the service key, or a valid token of the role service_role."""
        known = self._settings.service_role_key
        if known and hmac.compare_digest(known.encode(), token.encode()):
            return True
        keys = [(self._key.public, self._key.algorithm)]
        if self._settings.jwt_secret:
            keys.append((self._settings.jwt_secret, "HS256"))
        for key, algorithm in keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    options={"require": ["exp"], "verify_aud": False},
                )
            except jwt.PyJWTError:
                continue
            if claims.get("role") == "service_role":
                return True
        return False


def _signing_key(settings: FunctionSettings) -> SigningKey:
    text = settings.jwt_private_key
    if text is None:
        # The secret is known to the project without an id; a project that lists it has one.
        return SigningKey(settings.jwt_secret, "HS256", settings.jwt_key_id)
    try:
        if text.lstrip().startswith("{"):
            return _from_jwk(text, settings.jwt_key_id)
        key: Any = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, jwt.PyJWTError) as error:
        raise SettingsError(
            "PGFLEET_JWT_PRIVATE_KEY holds no private key that can be read (PEM or JWK, "
            "without a passphrase)"
        ) from error
    return _asymmetric(key, settings.jwt_key_id)


def _from_jwk(text: str, key_id: str | None) -> SigningKey:
    data = json.loads(text)
    if data.get("kty") == "oct":
        return SigningKey(jwt.PyJWK(data, "HS256").key, "HS256", key_id or data.get("kid"))
    return _asymmetric(jwt.PyJWK(data).key, key_id or data.get("kid"))


def _asymmetric(key: Any, key_id: str | None) -> SigningKey:
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = "ES256"
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "RS256"
    else:
        raise SettingsError(
            "PGFLEET_JWT_PRIVATE_KEY must be a private key for ES256 (curve P-256) or RS256"
        )
    if not key_id:
        raise SettingsError(
            "PGFLEET_JWT_KEY_ID is not set: a verifier finds the public key by its id (kid)"
        )
    return SigningKey(key, algorithm, key_id)
