from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pgfleet_functions.app import create_app
from pgfleet_functions.devices.signing import TokenSigner
from pgfleet_functions.settings import FunctionSettings, SettingsError

SECRET = "a-shared-secret-that-is-long-enough-for-hs256"
URL = "postgresql://fleet_worker:pw@db/postgres"
GOOD = {"PGFLEET_FUNCTIONS_DATABASE_URL": URL, "SUPABASE_JWT_SECRET": SECRET}
IDENTITY = {"device_id": 7, "auth_id": "1c9f4a3e-0000-4000-8000-000000000000"}


def pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def signer(**variables: str) -> TokenSigner:
    return TokenSigner(FunctionSettings.from_environment({**GOOD, **variables}))


def test_settings_come_from_the_environment() -> None:
    settings = FunctionSettings.from_environment(
        {**GOOD, "PGFLEET_TOKEN_TTL_SECONDS": "60", "PGFLEET_JWT_ISSUER": "https://x/auth/v1"}
    )

    assert (settings.database_url, settings.jwt_secret) == (URL, SECRET)
    assert (settings.token_ttl_seconds, settings.issuer) == (60, "https://x/auth/v1")


def test_our_own_variable_wins_over_that_of_the_project() -> None:
    settings = FunctionSettings.from_environment({**GOOD, "PGFLEET_JWT_SECRET": SECRET[::-1]})

    assert settings.jwt_secret == SECRET[::-1]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"PGFLEET_FUNCTIONS_DATABASE_URL": ""}, "PGFLEET_FUNCTIONS_DATABASE_URL"),
        ({"SUPABASE_JWT_SECRET": ""}, "SUPABASE_JWT_SECRET"),
        ({"PGFLEET_TOKEN_TTL_SECONDS": "1h"}, "PGFLEET_TOKEN_TTL_SECONDS"),
        ({"PGFLEET_TOKEN_TTL_SECONDS": "0"}, "PGFLEET_TOKEN_TTL_SECONDS"),
        ({"PGFLEET_JWT_PRIVATE_KEY": "/no/such/file"}, "PGFLEET_JWT_PRIVATE_KEY"),
        ({"PGFLEET_JWT_PRIVATE_KEY": "{}", "PGFLEET_JWT_KEY_ID": "k"}, "PGFLEET_JWT_PRIVATE_KEY"),
        ({"PGFLEET_JWT_PRIVATE_KEY": "-----BEGIN nothing"}, "PGFLEET_JWT_PRIVATE_KEY"),
        (
            {"PGFLEET_JWT_PRIVATE_KEY": pem(ec.generate_private_key(ec.SECP256R1()))},
            "PGFLEET_JWT_KEY_ID",
        ),
        (
            {"PGFLEET_JWT_PRIVATE_KEY": pem(ed25519.Ed25519PrivateKey.generate())},
            "PGFLEET_JWT_PRIVATE_KEY",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(variables: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        create_app(FunctionSettings.from_environment({**GOOD, **variables}))


def test_no_secret_is_shown_when_settings_are_printed() -> None:
    settings = FunctionSettings.from_environment(
        {**GOOD, "PGFLEET_JWT_PRIVATE_KEY": '{"d":"private"}', "SUPABASE_SERVICE_ROLE_KEY": "sb_1"}
    )

    shown = repr(settings)
    assert not any(word in shown for word in (SECRET, ":pw@", 'private"', "sb_1"))


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
@pytest.mark.parametrize("form", ["pem", "jwk", "file"])
def test_an_imported_key_signs_with_its_id(algorithm: str, form: str, tmp_path: Path) -> None:
    key: Any = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else rsa.generate_private_key(65537, 2048)
    )
    maker = jwt.algorithms.ECAlgorithm if algorithm == "ES256" else jwt.algorithms.RSAAlgorithm
    text = {**json.loads(maker.to_jwk(key)), "kid": "k1"}
    (tmp_path / "key.pem").write_text(pem(key))
    given = {"pem": pem(key), "jwk": json.dumps(text), "file": str(tmp_path / "key.pem")}[form]
    more = {} if form == "jwk" else {"PGFLEET_JWT_KEY_ID": "k1"}

    answer = signer(PGFLEET_JWT_PRIVATE_KEY=given, **more).sign_device(IDENTITY)

    token = answer["access_token"]
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": "k1", "typ": "JWT"}
    claims = jwt.decode(token, key.public_key(), [algorithm], audience="authenticated")
    assert (claims["sub"], claims["role"]) == (IDENTITY["auth_id"], "authenticated")


def test_a_service_key_that_is_no_token_is_compared_as_it_is() -> None:
    known = signer(SUPABASE_SERVICE_ROLE_KEY="sb_secret_abc")

    assert known.is_service_key("sb_secret_abc")
    assert not known.is_service_key("sb_secret_abd")
    assert not signer().is_service_key("sb_secret_abc")


def test_a_token_lasts_as_long_as_the_setting_says() -> None:
    answer = signer(PGFLEET_TOKEN_TTL_SECONDS="90").sign_device(IDENTITY, now=1_000)

    assert (answer["expires_in"], answer["expires_at"]) == (90, 1_090)
