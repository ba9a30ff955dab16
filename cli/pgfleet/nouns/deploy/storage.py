"""Bring the bytes of a file into the storage of the project."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from pgfleet import options
from pgfleet.errors import InvalidInput, MissingExtra, Unavailable
from pgfleet.nouns.deploy import s3
from pgfleet.output import Progress

BUCKET = "pgfleet"
# What the hosted storage takes in one request, and the only size of a piece beyond that.
_PIECE = 6 * 1024 * 1024
_CHUNK = 1 << 20
_MOST_FAILURES = 8
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API of the project is, and a key that may write its storage."""

    url: str
    key: str


def access() -> Access | s3.Door:
    """Choose the storage: the environment, an S3 door first; else the local stack that runs."""
    if (door := s3.door()) is not None:
        return door
    url = os.environ.get("PGFLEET_URL")
    key = os.environ.get("PGFLEET_SERVICE_KEY")
    if not (url and key) and (found := options.current().running_api()) is not None:
        url, key = found
    if not (url and key):
        raise Unavailable(
            "no storage was named and no local stack is running here",
            reason="storage_missing",
            hint="Set PGFLEET_URL and PGFLEET_SERVICE_KEY: the address of the project, and its "
            "service key or the access token of a person who may manage.",
        )
    return Access(url.rstrip("/"), key)


def measure(path: Path, advance: Progress) -> tuple[int, str]:
    """Give the size and the hash of a file, reading it once."""
    try:
        total = path.stat().st_size
        digest, done = hashlib.sha256(), 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                advance("reading (MB)", done // _MEGABYTE, max(1, total // _MEGABYTE))
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}", reason="file_unreadable"
        ) from error
    return done, digest.hexdigest()


def upload(where: Access | s3.Door, name: str, path: Path, size: int, advance: Progress) -> None:
    """Upload a file under a name; what is large goes in pieces and survives cuts."""
    if isinstance(where, s3.Door):
        s3.upload(where, name, path, size, advance)
        return
    try:
        import httpx
        from storage3 import SyncStorageClient
        from storage3.exceptions import StorageApiError
    except ModuleNotFoundError as error:
        raise MissingExtra("storage", "uploading files") from error
    headers = {"apikey": where.key, "Authorization": f"Bearer {where.key}"}
    with httpx.Client(timeout=60) as http:
        try:
            if size <= _PIECE:
                client = SyncStorageClient(f"{where.url}/storage/v1/", headers, http_client=http)
                client.from_(BUCKET).upload(name, path, {"upsert": "true"})
                return
            _Resumable(http, where, headers, name, path, size, advance).run()
        except StorageApiError as error:
            raise _refused(error.message, str(error.status)) from error
        except httpx.HTTPError as error:
            raise _unreachable(where, error) from error


class _Resumable:
    """One upload by TUS."""

    def __init__(
        self,
        http: Any,
        where: Access,
        headers: dict[str, str],
        name: str,
        path: Path,
        size: int,
        advance: Progress,
    ) -> None:
        self._http = http
        self._where = where
        self._headers = {**headers, "Tus-Resumable": "1.0.0"}
        self._name = name
        self._path = path
        self._size = size
        self._advance = advance

    def run(self) -> None:
        """Send all of it, going on from where a cut left it."""
        url = self._begin()
        done, failures = 0, 0
        with self._path.open("rb") as file:
            while done < self._size:
                before = done
                done = self._try(partial(self._send, url, file, done))
                if done < 0:
                    failures += 1
                    if failures > _MOST_FAILURES:
                        raise Unavailable(
                            f"the storage does not take {self._path.name}",
                            reason="storage_unreachable",
                        )
                    time.sleep(min(30, 0.5 * 2**failures))
                    done = max(before, self._try(partial(self._offset, url)))
                    continue
                failures = 0
                self._advance("uploading (MB)", done // _MEGABYTE, max(1, self._size // _MEGABYTE))

    def _begin(self) -> str:
        said = {
            "bucketName": BUCKET,
            "objectName": self._name,
            "contentType": "application/octet-stream",
        }
        pairs = (f"{k} {base64.b64encode(v.encode()).decode()}" for k, v in said.items())
        answer = self._http.post(
            f"{self._where.url}/storage/v1/upload/resumable",
            headers={
                **self._headers,
                "Upload-Length": str(self._size),
                "Upload-Metadata": ",".join(pairs),
                "x-upsert": "true",
            },
        )
        if answer.status_code != 201:
            raise _refused(answer.text, str(answer.status_code))
        return str(answer.headers["location"])

    def _send(self, url: str, file: IO[bytes], done: int) -> int:
        file.seek(done)
        answer = self._http.patch(
            url,
            content=file.read(_PIECE),
            headers={
                **self._headers,
                "Upload-Offset": str(done),
                "Content-Type": "application/offset+octet-stream",
            },
        )
        if answer.status_code == 204:
            return int(answer.headers["upload-offset"])
        if answer.status_code < 500 and answer.status_code != 409:
            raise _refused(answer.text, str(answer.status_code))
        return -1

    def _offset(self, url: str) -> int:
        answer = self._http.head(url, headers=self._headers)
        return int(answer.headers["upload-offset"]) if answer.status_code == 200 else -1

    @staticmethod
    def _try(step: Callable[[], int]) -> int:
        """Take a step; -1 where the connection was cut."""
        import httpx

        try:
            return step()
        except httpx.HTTPError:
            return -1


def _refused(message: str, status: str) -> InvalidInput:
    return InvalidInput(
        f"the storage refuses the file ({status}): {message[:300]}",
        reason="storage_refused",
        hint="The key must be the project's service key, or of a person who may manage the owner.",
    )


def _unreachable(where: Access, error: Exception) -> Unavailable:
    return Unavailable(
        f"no answer from {where.url}/storage/v1: {type(error).__name__}",
        reason="storage_unreachable",
        hint="Check PGFLEET_URL.",
    )
