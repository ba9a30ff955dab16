"""Bring the bytes of a file here: resumed where it was cut, at a pace, and checked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.agent import state
from pgfleet.agent.backoff import Backoff
from pgfleet.agent.handlers.deploy.paths import check_name
from pgfleet.agent.handlers.interface import HandlerFailed, Server, invalid_payload
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_SYNC_EVERY = 16 << 20
# Cuts in a row that brought no byte.
_MOST_FAILURES = 8
_OLD_SECONDS = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a manifest."""

    file_id: int
    name: str
    size: int
    sha256: str
    path: str

    @classmethod
    def read(cls, found: Any) -> Artifact:
        """Read an entry of a manifest, believing nothing of it."""
        try:
            one = cls(
                int(found["id"]),
                check_name(found["name"]),
                int(found["size"]),
                str(found["sha256"]),
                str(found["path"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise invalid_payload("the manifest has a file that is not described") from error
        if one.size < 0 or len(one.sha256) != 64 or set(one.sha256) - set("0123456789abcdef"):
            raise invalid_payload(f"{one.name}: its size or hash is not valid")
        return one


class Downloads:
    """The folder of what was fetched, whole or in part, each file under its hash."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        bucket: str,
        bytes_per_second: float | None,
        told: Callable[[int], None],
    ) -> None:
        self._folder = folder
        self._server = server
        self._bucket = bucket
        self._pace = _Pace(bytes_per_second)
        self._told = told
        state.prepare(folder)
        self._remove_old()

    async def fetch(self, wanted: Artifact) -> Path:
        """Give the path of the whole, checked file.

        Raises HandlerFailed when it cannot be had or is not what it should be.
        """
        whole = self._folder / wanted.sha256
        if await self._is_good(whole, wanted):
            self._told(wanted.size)
            return whole
        part = self._folder / f"{wanted.sha256}.part"
        for attempt in (1, 2):
            await self._complete(part, wanted)
            if await self._is_good(part, wanted):
                os.replace(part, whole)
                return whole
            # One wrong byte, and nobody knows which: all of it again, once.
            logger.warning("%s: the hash differs (attempt %d)", wanted.name, attempt)
            part.unlink(missing_ok=True)
            self._told(-wanted.size)
        raise HandlerFailed(
            f"{wanted.name}: what was downloaded is not what was deployed (its sha256 differs)"
        )

    def forget(self, wanted: Artifact) -> None:
        """Delete what is in place by now."""
        (self._folder / wanted.sha256).unlink(missing_ok=True)

    async def _complete(self, part: Path, wanted: Artifact) -> None:
        done = part.stat().st_size if part.exists() else 0
        if done > wanted.size:
            part.unlink()
            done = 0
        self._require_room(wanted.size - done)
        self._told(done)
        backoff, failures = Backoff(0.5, 30.0), 0
        while done < wanted.size or not part.exists():
            before = done
            try:
                done = await self._read_on(part, wanted, done)
            except FleetError as error:
                if isinstance(error, HandlerFailed):
                    raise
                done = part.stat().st_size if part.exists() else 0
                if done > before:
                    backoff.reset()
                    failures = 0
                failures += 1
                if failures > _MOST_FAILURES:
                    raise HandlerFailed(
                        f"{wanted.name}: {error.message} (at {done} of {wanted.size} bytes)"
                    ) from error
                logger.info("%s: %s; going on at %d", wanted.name, error.message, done)
                await asyncio.sleep(backoff.next_delay())

    async def _read_on(self, part: Path, wanted: Artifact, done: int) -> int:
        """Append what comes until the file is whole or the connection is cut."""
        with part.open("ab") as file:
            try:
                async with self._server.open_object(self._bucket, wanted.path, done) as body:
                    if body.starts_at != done:
                        file.truncate(0)
                        self._told(-done)
                        done = 0
                    unsynced = 0
                    async for chunk in body.chunks:
                        chunk = chunk[: wanted.size - done]
                        file.write(chunk)
                        done += len(chunk)
                        unsynced += len(chunk)
                        self._told(len(chunk))
                        if unsynced >= _SYNC_EVERY:
                            await asyncio.to_thread(_sync, file)
                            unsynced = 0
                        if done >= wanted.size:
                            break
                        await self._pace.wait(len(chunk))
            finally:
                _sync(file)
        return done

    async def _is_good(self, path: Path, wanted: Artifact) -> bool:
        if not path.is_file() or path.stat().st_size != wanted.size:
            return False
        return await asyncio.to_thread(_hash, path) == wanted.sha256

    def _require_room(self, missing: int) -> None:
        free = shutil.disk_usage(self._folder).free
        # What is downloaded is copied once more when it is put in place.
        if free < 2 * missing:
            raise HandlerFailed(f"there is no room for {missing} bytes: {free} are free")

    def _remove_old(self) -> None:
        limit = time.time() - _OLD_SECONDS
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < limit:
                    path.unlink()


class _Pace:
    """Let no more through than so many bytes a second."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def wait(self, count: int) -> None:
        if self._rate is None:
            return
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + count / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
