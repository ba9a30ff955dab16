"""Keep passwords as what they cannot be read from."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import secrets

# 32 MB and some 60 ms for each try.
_COST, _BLOCK, _LANES = 2**15, 8, 1
_MEMORY = 64 * 1024 * 1024
MOST_CHARACTERS = 72


def hashed(password: str) -> str:
    """Give what is stored of a password."""
    salt = secrets.token_bytes(16)
    return f"$scrypt${_text(salt)}${_text(_key(password, salt))}"


def is_right(password: str, stored: str | None) -> bool:
    """Tell whether this is the password; it takes its time also where there is none."""
    parts = (stored or _of_nobody()).split("$")
    if len(parts) != 4 or parts[1] != "scrypt":
        return False
    key = _key(password, base64.b64decode(parts[2]))
    return hmac.compare_digest(_text(key), parts[3]) and stored is not None


def _key(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=_COST, r=_BLOCK, p=_LANES, maxmem=_MEMORY, dklen=32
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@functools.cache
def _of_nobody() -> str:
    return hashed(secrets.token_hex(16))
