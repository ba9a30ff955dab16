"""The routes of `/storage/v1`: buckets, objects, and addresses that stand for one object."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.storage.bodies import Upload, save
from pgfleet_local.storage.buckets import Buckets
from pgfleet_local.storage.callers import Caller, Signer, authenticate
from pgfleet_local.storage.errors import StorageError, invalid, missing_object
from pgfleet_local.storage.listing import listed
from pgfleet_local.storage.objects import Objects, Row, require_name
from pgfleet_local.storage.resumable import Resumable
from pgfleet_local.tokens import TokenVerifier

_UPLOAD_SECONDS = 2 * 3600
Answer = Callable[[Request], Awaitable[Response]]


class Storage:
    """Answer what the hosted storage would answer, out of one folder."""

    def __init__(
        self, authenticator_url: str, folder: Path, verifier: TokenVerifier, secret: str
    ) -> None:
        self._folder = folder
        self._verifier = verifier
        self._signer = Signer(secret)
        self._objects = Objects(authenticator_url)
        self._buckets = Buckets(self._objects, verifier, folder)
        self._resumable = Resumable(self._objects, verifier, folder, self._keep)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the folder and the connections."""
        self._folder.mkdir(parents=True, exist_ok=True)
        async with self._objects.running():
            yield

    @property
    def routes(self) -> list[BaseRoute]:
        """Return the routes, relative to `/storage/v1`."""
        one = "{bucket}/{name:path}"
        return [
            *self._buckets.routes(_told),
            *self._resumable.routes(_told),
            Route("/object/list/{bucket}", _told(self._list), methods=["POST"]),
            Route("/object/move", _told(self._move), methods=["POST"]),
            Route("/object/copy", _told(self._copy), methods=["POST"]),
            Route(f"/object/upload/sign/{one}", _told(self._sign_upload), methods=["POST"]),
            Route(f"/object/upload/sign/{one}", _told(self._signed_upload), methods=["PUT"]),
            Route("/object/sign/{bucket}", _told(self._sign_many), methods=["POST"]),
            Route(f"/object/sign/{one}", _told(self._sign), methods=["POST"]),
            Route(f"/object/sign/{one}", _told(self._signed), methods=["GET"]),
            Route(f"/object/info/{one}", _told(self._info), methods=["GET"]),
            Route(f"/object/public/{one}", _told(self._public), methods=["GET"]),
            Route(f"/object/authenticated/{one}", _told(self._download), methods=["GET"]),
            Route("/object/{bucket}", _told(self._remove), methods=["DELETE"]),
            Route(f"/object/{one}", _told(self._download), methods=["GET"]),
            Route(f"/object/{one}", _told(self._upload), methods=["POST", "PUT"]),
            Route(f"/object/{one}", _told(self._remove_one), methods=["DELETE"]),
        ]

    def _caller(self, request: Request) -> Caller:
        return authenticate(request, self._verifier)

    async def _upload(self, request: Request) -> Response:
        caller, (bucket, name) = self._caller(request), _named(request)
        upsert = request.method == "PUT" or request.headers.get("x-upsert") == "true"
        if request.method == "PUT":
            await self._objects.find(caller, bucket, name)
        return await self._take(request, caller, bucket, name, upsert=upsert)

    async def _take(
        self, request: Request, caller: Caller, bucket: str, name: str, *, upsert: bool
    ) -> Response:
        limit = (await self._objects.bucket(bucket))["file_size_limit"]
        await self._objects.require_writable(caller, bucket, name, upsert=upsert)
        part = self._folder / f"{uuid4()}.part"
        try:
            upload = await save(request, part, limit)
            row = await self._keep(caller, bucket, name, upload, upsert=upsert)
        finally:
            part.unlink(missing_ok=True)
        return JSONResponse({"Key": f"{bucket}/{name}", "Id": str(row["id"]), "path": name})

    async def _keep(
        self, caller: Caller, bucket: str, name: str, upload: Upload, *, upsert: bool
    ) -> Row:
        """Put the bytes in their place, then the row that makes them seen."""
        version = str(uuid4())
        etag = await anyio.to_thread.run_sync(_etag, upload.path)
        kept = self._folder / version
        os.replace(upload.path, kept)
        try:
            before = await self._version(bucket, name) if upsert else None
            row = await self._objects.put(
                caller, bucket, name, upload, version, etag, upsert=upsert
            )
        except BaseException:
            kept.unlink(missing_ok=True)
            raise
        if before is not None:
            (self._folder / before).unlink(missing_ok=True)
        return row

    async def _version(self, bucket: str, name: str) -> str | None:
        """Name the file that has the bytes of an object now, if there is one."""
        try:
            return str((await self._objects.find(_SERVICE, bucket, name))["version"])
        except StorageError:
            return None

    async def _download(self, request: Request) -> Response:
        row = await self._objects.find(self._caller(request), *_named(request))
        return self._file(request, row)

    async def _public(self, request: Request) -> Response:
        bucket, name = _named(request)
        if not (await self._objects.bucket(bucket))["public"]:
            raise missing_object()
        return self._file(request, await self._objects.find(_SERVICE, bucket, name))

    def _file(self, request: Request, row: Row) -> Response:
        path = self._folder / str(row["version"])
        if not path.is_file():
            raise missing_object()
        meta = row["metadata"] or {}
        headers = {
            "etag": str(meta.get("eTag", '""')),
            "cache-control": str(meta.get("cacheControl", "no-cache")),
        }
        if (wanted := request.query_params.get("download")) is not None:
            name = wanted or str(row["name"]).rsplit("/", 1)[-1]
            headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
        return FileResponse(path, media_type=meta.get("mimetype"), headers=headers)

    async def _info(self, request: Request) -> Response:
        row = await self._objects.find(self._caller(request), *_named(request))
        meta = row["metadata"] or {}
        return JSONResponse(
            {
                "id": str(row["id"]),
                "name": row["name"],
                "version": row["version"],
                "bucket_id": row["bucket_id"],
                "size": meta.get("size"),
                "content_type": meta.get("mimetype"),
                "cache_control": meta.get("cacheControl"),
                "etag": meta.get("eTag"),
                "metadata": row["user_metadata"],
                "created_at": row["created_at"].isoformat(),
                "last_modified": row["updated_at"].isoformat(),
            }
        )

    async def _sign(self, request: Request) -> Response:
        bucket, name = _named(request)
        seconds = _seconds(await _json(request))
        await self._objects.find(self._caller(request), bucket, name)
        return JSONResponse({"signedURL": self._address(bucket, name, seconds)})

    async def _sign_many(self, request: Request) -> Response:
        caller, bucket, body = self._caller(request), str(request.path_params["bucket"]), {}
        body = await _json(request)
        answers: list[dict[str, Any]] = []
        for name in _texts(body.get("paths")):
            try:
                await self._objects.find(caller, bucket, require_name(name))
            except StorageError:
                error = "Either the object does not exist or you do not have access to it"
                answers.append({"error": error, "path": name, "signedURL": None})
            else:
                address = self._address(bucket, name, _seconds(body))
                answers.append({"error": None, "path": name, "signedURL": address})
        return JSONResponse(answers)

    def _address(self, bucket: str, name: str, seconds: int) -> str:
        token = self._signer.sign(f"{bucket}/{name}", seconds)
        return f"/object/sign/{quote(bucket)}/{quote(name)}?token={token}"

    async def _signed(self, request: Request) -> Response:
        bucket, name = _named(request)
        self._signer.check(request.query_params.get("token", ""), f"{bucket}/{name}")
        return self._file(request, await self._objects.find(_SERVICE, bucket, name))

    async def _sign_upload(self, request: Request) -> Response:
        caller, (bucket, name) = self._caller(request), _named(request)
        upsert = request.headers.get("x-upsert") == "true"
        await self._objects.require_writable(caller, bucket, name, upsert=upsert)
        token = self._signer.sign(
            f"upload:{bucket}/{name}", _UPLOAD_SECONDS, claims=caller.claims, upsert=upsert
        )
        url = f"/object/upload/sign/{quote(bucket)}/{quote(name)}?token={token}"
        return JSONResponse({"url": url, "token": token})

    async def _signed_upload(self, request: Request) -> Response:
        bucket, name = _named(request)
        token = request.query_params.get("token", "")
        claims = self._signer.check(token, f"upload:{bucket}/{name}")
        caller = Caller(claims["claims"]["role"], claims["claims"])
        return await self._take(request, caller, bucket, name, upsert=claims["upsert"])

    async def _list(self, request: Request) -> Response:
        bucket, body = str(request.path_params["bucket"]), await _json(request)
        prefix = str(body.get("prefix") or "").strip("/")
        below = f"{prefix}/" if prefix else ""
        rows = await self._objects.below(self._caller(request), bucket, below)
        return JSONResponse(listed(rows, below, body))

    async def _move(self, request: Request) -> Response:
        caller, body = self._caller(request), await _json(request)
        bucket, source, target = _two(body)
        await self._objects.rename(caller, bucket, source, target)
        return JSONResponse({"message": "Successfully moved"})

    async def _copy(self, request: Request) -> Response:
        caller, body = self._caller(request), await _json(request)
        bucket, source, (to_bucket, to_name) = _two(body)
        row = await self._objects.find(caller, bucket, source)
        part = self._folder / f"{uuid4()}.part"
        os.link(self._folder / str(row["version"]), part)
        meta = row["metadata"]
        upload = Upload(part, int(meta["size"]), str(meta["mimetype"]))
        try:
            made = await self._keep(caller, to_bucket, to_name, upload, upsert=False)
        finally:
            part.unlink(missing_ok=True)
        return JSONResponse({"Key": f"{to_bucket}/{to_name}", "Id": str(made["id"])})

    async def _remove(self, request: Request) -> Response:
        body = await _json(request)
        names = _texts(body.get("prefixes"))
        return JSONResponse(await self._delete(request, names))

    async def _remove_one(self, request: Request) -> Response:
        if not await self._delete(request, [_named(request)[1]]):
            raise missing_object()
        return JSONResponse({"message": "Successfully deleted"})

    async def _delete(self, request: Request, names: list[str]) -> list[dict[str, Any]]:
        bucket = str(request.path_params["bucket"])
        rows = await self._objects.remove(self._caller(request), bucket, names)
        for row in rows:
            (self._folder / str(row["version"])).unlink(missing_ok=True)
        plain: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
        return plain


_SERVICE = Caller("service_role", {"role": "service_role"})


def _told(answer: Answer) -> Answer:
    """Turn refusals into answers."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except StorageError as error:
            return error.response()

    return told


def _named(request: Request) -> tuple[str, str]:
    return str(request.path_params["bucket"]), require_name(str(request.path_params["name"]))


def _two(body: dict[str, Any]) -> tuple[str, str, tuple[str, str]]:
    bucket, source, target = (
        body.get("bucketId"),
        body.get("sourceKey"),
        body.get("destinationKey"),
    )
    if not (isinstance(bucket, str) and isinstance(source, str) and isinstance(target, str)):
        raise invalid("bucketId, sourceKey and destinationKey must be texts")
    to_bucket = str(body.get("destinationBucket") or bucket)
    return bucket, require_name(source), (to_bucket, require_name(target))


def _seconds(body: dict[str, Any]) -> int:
    try:
        seconds = int(body["expiresIn"])
    except (KeyError, TypeError, ValueError) as error:
        raise invalid("expiresIn must be a number of seconds") from error
    if seconds < 1:
        raise invalid("expiresIn must be at least 1")
    return seconds


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise invalid("a list of names is missing")
    return value


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise invalid("the body is not JSON") from error
    if not isinstance(body, dict):
        raise invalid("the body is not an object")
    return body


def _etag(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        os.fsync(file.fileno())
    return f'"{digest.hexdigest()}"'
