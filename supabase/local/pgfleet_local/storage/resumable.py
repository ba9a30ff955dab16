"""Resumable uploads by the protocol TUS 1.0.0, for what is too large for one request."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.storage.bodies import Upload
from pgfleet_local.storage.callers import Caller, authenticate
from pgfleet_local.storage.errors import StorageError, invalid
from pgfleet_local.storage.objects import Objects, Row, require_name
from pgfleet_local.tokens import TokenVerifier

Answer = Callable[[Request], Awaitable[Response]]
_MOST_BYTES = 50 * 1024**3
_HEADERS = {"Tus-Resumable": "1.0.0", "Cache-Control": "no-store"}


class Keep(Protocol):
    """Put an uploaded file in its place."""

    def __call__(
        self, caller: Caller, bucket: str, name: str, upload: Upload, *, upsert: bool
    ) -> Awaitable[Row]: ...


class Resumable:
    """Serve `/upload/resumable`; what is half there is kept in the folder."""

    def __init__(self, objects: Objects, verifier: TokenVerifier, folder: Path, keep: Keep) -> None:
        self._objects = objects
        self._verifier = verifier
        self._folder = folder
        self._keep = keep

    def routes(self, told: Callable[[Answer], Answer]) -> list[BaseRoute]:
        """Return the routes, each as `told` makes it."""
        return [
            Route("/upload/resumable", told(self._begin), methods=["POST"]),
            Route("/upload/resumable/{upload}", told(self._offset), methods=["HEAD"]),
            Route("/upload/resumable/{upload}", told(self._append), methods=["PATCH"]),
            Route("/upload/resumable/{upload}", told(self._forget), methods=["DELETE"]),
        ]

    async def _begin(self, request: Request) -> Response:
        caller = authenticate(request, self._verifier)
        said = _metadata(request.headers.get("upload-metadata", ""))
        bucket, name = said.get("bucketName", ""), require_name(said.get("objectName", ""))
        length = _whole(request.headers.get("upload-length"))
        limit = (await self._objects.bucket(bucket))["file_size_limit"] or _MOST_BYTES
        if length > limit:
            raise StorageError(413, "Payload too large", "Maximum size exceeded")
        upsert = request.headers.get("x-upsert") == "true"
        await self._objects.require_writable(caller, bucket, name, upsert=upsert)
        upload = str(uuid4())
        known = {
            "bucket": bucket,
            "name": name,
            "length": length,
            "upsert": upsert,
            "content_type": said.get("contentType", "application/octet-stream"),
            "cache": said.get("cacheControl", "3600"),
            "sub": caller.claims.get("sub"),
            "role": caller.role,
        }
        self._path(upload, "part").write_bytes(b"")
        self._path(upload, "json").write_text(json.dumps(known))
        where = str(request.url.replace(query="")).rstrip("/")
        return Response(status_code=201, headers={**_HEADERS, "Location": f"{where}/{upload}"})

    async def _offset(self, request: Request) -> Response:
        _, upload, known = self._known(request)
        size = self._path(upload, "part").stat().st_size
        headers = {"Upload-Offset": str(size), "Upload-Length": str(known["length"])}
        return Response(status_code=200, headers={**_HEADERS, **headers})

    async def _append(self, request: Request) -> Response:
        caller, upload, known = self._known(request)
        path = self._path(upload, "part")
        offset = _whole(request.headers.get("upload-offset"))
        if request.headers.get("content-type") != "application/offset+octet-stream":
            raise StorageError(415, "InvalidContentType", "Invalid Content-Type")
        if path.stat().st_size != offset:
            return Response("Upload-Offset conflict", status_code=409, headers=_HEADERS)
        with path.open("ab") as file:
            # What came before the connection was cut stays: that is the point of it.
            async for chunk in request.stream():
                offset += len(chunk)
                if offset > known["length"]:
                    raise StorageError(413, "Payload too large", "More than Upload-Length")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if offset == known["length"]:
            await self._end(caller, upload, known)
        return Response(status_code=204, headers={**_HEADERS, "Upload-Offset": str(offset)})

    async def _end(self, caller: Caller, upload: str, known: dict[str, Any]) -> None:
        whole = Upload(
            self._path(upload, "part"),
            known["length"],
            known["content_type"],
            {"cacheControl": known["cache"]},
        )
        await self._keep(caller, known["bucket"], known["name"], whole, upsert=known["upsert"])
        self._path(upload, "json").unlink(missing_ok=True)

    async def _forget(self, request: Request) -> Response:
        _, upload, _ = self._known(request)
        for kind in ("part", "json"):
            self._path(upload, kind).unlink(missing_ok=True)
        return Response(status_code=204, headers=_HEADERS)

    def _known(self, request: Request) -> tuple[Caller, str, dict[str, Any]]:
        """Give what was said at the beginning, to whoever said it."""
        caller = authenticate(request, self._verifier)
        try:
            upload = str(UUID(str(request.path_params["upload"])))
            known: dict[str, Any] = json.loads(self._path(upload, "json").read_text())
        except (ValueError, OSError) as error:
            raise StorageError(404, "not_found", "The upload was not found") from error
        if (known["role"], known["sub"]) != (caller.role, caller.claims.get("sub")):
            raise StorageError(404, "not_found", "The upload was not found")
        return caller, upload, known

    def _path(self, upload: str, kind: str) -> Path:
        return self._folder / f"tus-{upload}.{kind}"


def _metadata(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, (one.strip() for one in header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise invalid(f"Upload-Metadata: {key} is not base64") from error
    return found


def _whole(text: str | None) -> int:
    if text is None or not text.isdecimal():
        raise invalid("Upload-Length or Upload-Offset is not a number")
    return int(text)
