"""The file in which an owner travels: sealed to the key of the database that it goes to.

The first line says, readable by all, whose file it is. Each line after it is a part of the whole,
encrypted and numbered, so that none can be read, changed, left out or moved; the last one says
that it is the last.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import IO, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pgfleet.errors import InvalidInput

FORMAT = "pgfleet-owner/1"
_MARK = "pgfleet-move-"


def new_private_key() -> str:
    """Make the private key of a database, as it keeps it."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private_key: str) -> str:
    """Give the key that a database hands to those who send owners to it."""
    known = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key))
    text = base64.urlsafe_b64encode(known.public_key().public_bytes_raw()).decode()
    return _MARK + text.rstrip("=")


class Sealer:
    """Write a sealed file."""

    def __init__(self, file: IO[str], receiver: str, head: dict[str, Any]) -> None:
        ours = X25519PrivateKey.generate()
        self._file = file
        self._count = 0
        sender = base64.b64encode(ours.public_key().public_bytes_raw()).decode()
        self._line = json.dumps({"format": FORMAT, **head, "sender": sender}, sort_keys=True)
        self._key = _key(ours.exchange(_public(receiver)), self._line)
        file.write(self._line + "\n")

    def add(self, part: str) -> None:
        """Add a part, which is JSON."""
        sealed = self._key.encrypt(_nonce(self._count), part.encode(), self._line.encode())
        self._file.write(base64.b64encode(sealed).decode() + "\n")
        self._count += 1


class Opener:
    """Read a sealed file: its head, then its parts, of which the last must say so."""

    def __init__(self, file: IO[str], private_key: str) -> None:
        self._file = file
        self._line = file.readline().rstrip("\n")
        try:
            head = json.loads(self._line)
            if head["format"] != FORMAT:
                raise ValueError("format")
            sender = X25519PublicKey.from_public_bytes(base64.b64decode(head["sender"]))
        except (ValueError, TypeError, KeyError) as error:
            raise _unfit("it is no export of an owner") from error
        known = X25519PrivateKey.from_private_bytes(base64.b64decode(private_key))
        self._key = _key(known.exchange(sender), self._line)
        self.head: dict[str, Any] = head

    def parts(self) -> Iterator[str]:
        """Give each part. Raises InvalidInput where one is not what was written."""
        for count, line in enumerate(self._file):
            try:
                sealed = base64.b64decode(line, validate=False)
                yield self._key.decrypt(_nonce(count), sealed, self._line.encode()).decode()
            except (InvalidTag, ValueError) as error:
                raise _unfit("it is damaged, or was sealed to another database's key") from error


def _key(shared: bytes, line: str) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(SHA256(), 32, None, line.encode()).derive(shared))


def _nonce(count: int) -> bytes:
    # Each file has a key of its own, so that a number is used once.
    return count.to_bytes(12, "big")


def _public(text: str) -> X25519PublicKey:
    try:
        found = text.strip().removeprefix(_MARK)
        return X25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(found + "=="))
    except ValueError as error:
        raise InvalidInput(
            "this is no key of a database that owners go to",
            reason="move_key_invalid",
            hint="Ask there for it: pgfleet owner arrival-key",
        ) from error


def _unfit(why: str) -> InvalidInput:
    return InvalidInput(
        f"the file cannot be taken: {why}",
        reason="owner_file_unfit",
        hint="Export it again, to the key of this database: pgfleet owner arrival-key",
    )
