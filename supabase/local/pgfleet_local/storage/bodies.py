"""Bring the body of an upload to a file, as it comes in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from pgfleet_local.storage.errors import StorageError, invalid

_MOST_IN_A_FIELD = 64 * 1024
_NAME = re.compile(r'name="((?:[^"\\]|\\.)*)"')


@dataclass
class Upload:
    """What came in: the file, and what was said of it."""

    path: Path
    size: int = 0
    content_type: str = "application/octet-stream"
    fields: dict[str, str] = field(default_factory=dict)


async def save(request: Request, path: Path, limit: int | None) -> Upload:
    """Write the file of a request, sent as a form or as it is, to the path."""
    upload = Upload(path)
    kind = request.headers.get("content-type", "application/octet-stream")
    if kind.lower().startswith("multipart/form-data"):
        found = re.search(r'boundary="?([^";]+)"?', kind)
        if found is None:
            raise invalid("multipart without a boundary")
        await _save_form(_Stream(request.stream()), found.group(1).encode(), upload, limit)
    else:
        upload.content_type = kind
        with path.open("wb") as file:
            async for chunk in request.stream():
                upload.size += len(chunk)
                _require_room(upload.size, limit)
                file.write(chunk)
    return upload


class _Stream:
    """Read a body up to a mark, without keeping more of it than needed."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._kept = b""

    async def until(self, mark: bytes) -> AsyncIterator[bytes]:
        """Give what comes before the mark, and step over the mark."""
        while True:
            at = self._kept.find(mark)
            if at >= 0:
                piece, self._kept = self._kept[:at], self._kept[at + len(mark) :]
                yield piece
                return
            safe = len(self._kept) - len(mark) + 1
            if safe > 0:
                piece, self._kept = self._kept[:safe], self._kept[safe:]
                yield piece
            try:
                self._kept += await anext(self._chunks)
            except StopAsyncIteration as error:
                raise invalid("the form ends too early") from error

    async def exactly(self, count: int) -> bytes:
        """Give so many bytes."""
        while len(self._kept) < count:
            try:
                self._kept += await anext(self._chunks)
            except StopAsyncIteration as error:
                raise invalid("the form ends too early") from error
        piece, self._kept = self._kept[:count], self._kept[count:]
        return piece

    async def short(self, mark: bytes) -> bytes:
        """Give a short piece before the mark."""
        found = b""
        async for piece in self.until(mark):
            found += piece
            if len(found) > _MOST_IN_A_FIELD:
                raise invalid("a field of the form is too long")
        return found


async def _save_form(stream: _Stream, boundary: bytes, upload: Upload, limit: int | None) -> None:
    end = b"\r\n--" + boundary
    await stream.short(b"--" + boundary)
    seen = False
    # After a boundary comes a line end, or two strokes where it was the last one.
    while await stream.exactly(2) != b"--":
        head = (await stream.short(b"\r\n\r\n")).decode("utf-8", "replace")
        name = _NAME.search(head)
        if "filename=" in head and not seen:
            seen = True
            kind = re.search(r"(?im)^content-type:\s*(.+?)\s*$", head)
            upload.content_type = kind.group(1) if kind else upload.content_type
            with upload.path.open("wb") as file:
                async for piece in stream.until(end):
                    upload.size += len(piece)
                    _require_room(upload.size, limit)
                    file.write(piece)
        else:
            value = (await stream.short(end)).decode("utf-8", "replace")
            upload.fields[name.group(1) if name else ""] = value
    if not seen:
        raise invalid("the form has no file")


def _require_room(size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise StorageError(413, "Payload too large", "The object exceeded the maximum allowed size")
