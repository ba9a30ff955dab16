"""Buckets: made, listed, emptied and deleted."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pgfleet_local.storage.callers import authenticate
from pgfleet_local.storage.errors import StorageError, invalid, missing_bucket
from pgfleet_local.storage.objects import Objects
from pgfleet_local.tokens import TokenVerifier

Answer = Callable[[Request], Awaitable[Response]]
_SHOWN = (
    "id, name, coalesce(owner_id, '') as owner, public, file_size_limit, allowed_mime_types,"
    " created_at, updated_at"
)


class Buckets:
    """Serve `/bucket`."""

    def __init__(self, objects: Objects, verifier: TokenVerifier, folder: Path) -> None:
        self._objects = objects
        self._verifier = verifier
        self._folder = folder

    def routes(self, told: Callable[[Answer], Answer]) -> list[BaseRoute]:
        """Return the routes, each as `told` makes it."""
        return [
            Route("/bucket", told(self._list), methods=["GET"]),
            Route("/bucket", told(self._create), methods=["POST"]),
            Route("/bucket/{bucket}", told(self._get), methods=["GET"]),
            Route("/bucket/{bucket}", told(self._update), methods=["PUT"]),
            Route("/bucket/{bucket}", told(self._delete), methods=["DELETE"]),
            Route("/bucket/{bucket}/empty", told(self._empty), methods=["POST"]),
        ]

    async def _run(self, request: Request, text: str, *values: Any) -> list[dict[str, Any]]:
        rows = await self._objects.buckets(authenticate(request, self._verifier), text, *values)
        plain: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
        return plain

    async def _list(self, request: Request) -> Response:
        return JSONResponse(await self._run(request, f"select {_SHOWN} from storage.buckets"))  # noqa: S608

    async def _get(self, request: Request) -> Response:
        query = f"select {_SHOWN} from storage.buckets where id = %s"  # noqa: S608
        rows = await self._run(request, query, request.path_params["bucket"])
        if not rows:
            raise missing_bucket()
        return JSONResponse(rows[0])

    async def _create(self, request: Request) -> Response:
        body = await request.json()
        name = body.get("id") or body.get("name")
        if not isinstance(name, str) or not name or "/" in name:
            raise invalid("the name of the bucket is not valid")
        await self._run(
            request,
            "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)"
            " values (%s, %s, %s, %s, %s)",
            name,
            name,
            bool(body.get("public")),
            body.get("file_size_limit"),
            body.get("allowed_mime_types"),
        )
        return JSONResponse({"name": name})

    async def _update(self, request: Request) -> Response:
        body = await request.json()
        rows = await self._run(
            request,
            "update storage.buckets set public = coalesce(%s, public),"
            " file_size_limit = coalesce(%s, file_size_limit), updated_at = now()"
            " where id = %s returning id",
            body.get("public"),
            body.get("file_size_limit"),
            request.path_params["bucket"],
        )
        if not rows:
            raise missing_bucket()
        return JSONResponse({"message": "Successfully updated"})

    async def _empty(self, request: Request) -> Response:
        rows = await self._run(
            request,
            "delete from storage.objects where bucket_id = %s returning version",
            request.path_params["bucket"],
        )
        for row in rows:
            (self._folder / row["version"]).unlink(missing_ok=True)
        return JSONResponse({"message": "Successfully emptied"})

    async def _delete(self, request: Request) -> Response:
        name = request.path_params["bucket"]
        held = await self._run(
            request, "select 1 as one from storage.objects where bucket_id = %s limit 1", name
        )
        if held:
            raise StorageError(409, "InvalidRequest", "The bucket you tried to delete is not empty")
        rows = await self._run(
            request, "delete from storage.buckets where id = %s returning id", name
        )
        if not rows:
            raise missing_bucket()
        return JSONResponse({"message": "Successfully deleted"})
