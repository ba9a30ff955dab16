"""Sign the access tokens of people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

ACCESS_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Signer:
    """Sign tokens with the secret of the project."""

    secret: str
    issuer: str

    def access_token(self, user: Mapping[str, Any], session_id: str | None = None) -> str:
        """Give a token of one hour, with the claims that Supabase Auth signs."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": str(user["id"]),
            "aud": "authenticated",
            "exp": now + ACCESS_SECONDS,
            "iat": now,
            "email": user["email"],
            "phone": "",
            "app_metadata": user.get("raw_app_meta_data") or {},
            "user_metadata": user.get("raw_user_meta_data") or {},
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "is_anonymous": False,
        }
        if session_id is not None:
            claims["session_id"] = session_id
        return jwt.encode(claims, self.secret, algorithm="HS256")
