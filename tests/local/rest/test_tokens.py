from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from pgfleet_local.tokens import TokenError, TokenVerifier

SECRET = "a-shared-secret-that-is-long-enough-for-hs256"


def claims(**changes: Any) -> dict[str, Any]:
    return {"role": "authenticated", "sub": "d1", "exp": int(time.time()) + 86_400, **changes}


def public_jwk(private_key: Any, kid: str) -> dict[str, Any]:
    ecdsa = isinstance(private_key, ec.EllipticCurvePrivateKey)
    algorithm = ECAlgorithm if ecdsa else RSAAlgorithm
    data = json.loads(algorithm.to_jwk(private_key.public_key()))
    return {**data, "kid": kid, "alg": "ES256" if ecdsa else "RS256"}


def reason_of(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(TokenError) as caught:
        verifier.verify(token)
    return caught.value.reason


def test_a_signed_token_gives_its_claims_back() -> None:
    signed = claims(device_id=7, aud="authenticated")

    assert TokenVerifier(SECRET).verify(jwt.encode(signed, SECRET)) == signed


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "missing"),
        ("not-a-token", "malformed"),
        ("a.b.c", "malformed"),
        (jwt.encode(claims(), SECRET[::-1]), "bad_signature"),
        (jwt.encode(claims(exp=int(time.time()) - 1), SECRET), "expired"),
        (jwt.encode({"role": "anon"}, SECRET), "claims"),
        (jwt.encode(claims(exp="soon"), SECRET), "claims"),
        (jwt.encode(claims(role=None), SECRET), "claims"),
        (jwt.encode(claims(nbf=int(time.time()) + 43_200), SECRET), "claims"),
        (jwt.encode(claims(), None, algorithm="none"), "bad_signature"),
    ],
)
def test_a_token_that_is_not_right_is_refused_with_its_reason(token: str, reason: str) -> None:
    assert reason_of(TokenVerifier(SECRET), token) == reason


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_public_keys_are_found_by_their_id(algorithm: str) -> None:
    key: Any = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else rsa.generate_private_key(65537, 2048)
    )
    verifier = TokenVerifier(SECRET, {"keys": [public_jwk(key, "k1")]})

    signed = jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": "k1"})
    other = jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": "k2"})

    assert verifier.verify(signed)["sub"] == "d1"
    assert verifier.verify(jwt.encode(claims(), SECRET))["sub"] == "d1"
    assert reason_of(verifier, other) == "bad_signature"


def test_a_public_key_is_never_read_as_a_shared_secret() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    verifier = TokenVerifier(SECRET, {"keys": [public_jwk(key, "k1")]})
    forged = jwt.encode(claims(), SECRET, algorithm="HS256", headers={"kid": "k1"})

    assert reason_of(verifier, forged) == "bad_signature"


def test_a_token_that_is_known_ends_in_time_and_shares_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verifier = TokenVerifier(SECRET)
    token = jwt.encode({"role": "anon", "exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
    verifier.verify(token)["role"] = "service_role"
    assert verifier.verify(token)["role"] == "anon"

    later = time.time() + 61
    monkeypatch.setattr("pgfleet_local.tokens.time.time", lambda: later)

    with pytest.raises(TokenError, match="expired"):
        verifier.verify(token)


def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgfleet_local.tokens.MOST_KEPT", 3)
    verifier = TokenVerifier(SECRET)
    end = int(time.time()) + 60
    for number in range(10):
        claims = {"role": "anon", "exp": end, "jti": str(number)}
        assert verifier.verify(jwt.encode(claims, SECRET, algorithm="HS256"))["jti"] == str(number)

    assert len(verifier._known) == 3
