"""A device that deploys in the test's own process: a storage in memory, manifests, a handler."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pgfleet.agent.client import Command
from pgfleet.agent.execution import execute
from pgfleet.agent.handlers.interface import HandlerContext, ObjectBody
from pgfleet.agent.handlers.registry import HandlerRegistry
from pgfleet.agent.journal import Outcome
from pgfleet.agent.settings import AgentSettings, DeploySettings
from pgfleet.errors import Unavailable


class FakeServer:
    """A storage in memory that cuts the connection where it is told to."""

    def __init__(self, manifest: dict[str, Any], objects: dict[str, bytes]) -> None:
        self.what = {"bucket": "pgfleet", "missing": [], **manifest}
        self.objects = objects
        self.cuts: list[int] = []
        self.asked: list[int] = []
        self.knows_ranges = True

    async def manifest(self, command_id: int) -> dict[str, Any]:
        return self.what

    @asynccontextmanager
    async def open_object(self, bucket: str, path: str, offset: int) -> AsyncIterator[ObjectBody]:
        self.asked.append(offset)
        start = offset if self.knows_ranges else 0
        yield ObjectBody(start, self._chunks(self.objects[path], start))

    async def _chunks(self, content: bytes, start: int) -> AsyncIterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else None
        for at in range(start, len(content), 1000):
            if cut is not None and at >= cut:
                raise Unavailable("cut")
            yield content[at : at + 1000]


def entry(number: int, name: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"id": number, "name": name, "size": len(content), "sha256": digest, "path": digest}


def files_server(contents: dict[str, bytes], target: str = "C:\\Config") -> FakeServer:
    entries = [entry(n, name, content) for n, (name, content) in enumerate(contents.items(), 1)]
    manifest = {"kind": "files", "target_path": target, "create_path": True, "files": entries}
    return FakeServer(manifest, {one["path"]: contents[one["name"]] for one in entries})


def package(number: int, **more: Any) -> dict[str, Any]:
    return {
        **{"id": number, "name": f"tool-{number}", "version": "1", "platform": None},
        **{"install_command": None, "uninstall_command": None, "detection": None},
        **{"timeout_seconds": 10, "file": None},
        **more,
    }


def carry_out(
    server: FakeServer, state: Path, command_type: str = "deploy_files", **deploy: Any
) -> tuple[Outcome, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    settings = DeploySettings(**deploy)
    registry = HandlerRegistry(
        AgentSettings(url="http://h", anon_key="a", state_dir=state, hostname="h", deploy=settings)
    )
    state.mkdir(mode=0o700, exist_ok=True)
    context = HandlerContext(
        *(5, command_type, 1, 7, "h", state, 20, 4000),
        report=told.append,
        deploy=settings,
        server=server,
    )
    command = Command(5, command_type, {}, 1, True, 20, 60)
    return asyncio.run(execute(registry, context, command, None)), told
