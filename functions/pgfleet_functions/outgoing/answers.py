"""Answers of other systems, read up to a bound: neither a long nor a packed one takes memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from pgfleet_functions.outgoing.errors import AnswerRefused

# gzip and zlib, whichever the first bytes say.
_ANY_HEADER = zlib.MAX_WBITS | 32
# What packing may add where there is next to nothing to pack.
_SLACK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is unpacked, and empty where it was not asked for."""

    status: int
    headers: httpx.Headers
    body: bytes
    # When the call began, by our clock.
    asked_at: datetime

    @property
    def is_success(self) -> bool:
        """Tell whether the status is one of 2xx."""
        return 200 <= self.status < 300

    def text(self, most: int | None = None) -> str:
        """Give the body as text, or its first bytes."""
        return self.body[:most].decode("utf-8", "replace")

    def json(self) -> Any:
        """Read the body as JSON. Raises `ValueError` for what is none, or is too deeply nested."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("the JSON is too deeply nested") from error


async def read_body(chunks: AsyncIterable[bytes], encoding: str, most: int) -> bytes:
    """Read and unpack a body of at most so many bytes, or raise `AnswerRefused`."""
    body, received = bytearray(), 0
    unpacker = _unpacker(encoding)
    async for chunk in chunks:
        received += len(chunk)
        # Also what unpacks to nothing ends.
        if received > most + _SLACK_BYTES:
            raise _too_large(most)
        _unpack(unpacker, chunk, body, most)
    return bytes(body)


def _unpacker(encoding: str) -> Any:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return zlib.decompressobj(_ANY_HEADER)
    raise AnswerRefused(f"the answer is packed as {encoding[:60]!r}", reached=True)


def _unpack(unpacker: Any, chunk: bytes, body: bytearray, most: int) -> None:
    """Add a chunk to the body; never more than one byte too many of it."""
    if unpacker is None:
        body += chunk[: most + 1 - len(body)]
    while unpacker is not None and chunk and not unpacker.eof and len(body) <= most:
        try:
            body += unpacker.decompress(chunk, most + 1 - len(body))
        except zlib.error as error:
            raise AnswerRefused("the answer cannot be unpacked", reached=True) from error
        chunk = unpacker.unconsumed_tail
    if len(body) > most:
        raise _too_large(most)


def _too_large(most: int) -> AnswerRefused:
    return AnswerRefused(f"the answer is larger than {most} bytes", reached=True)
