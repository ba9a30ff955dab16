"""What every deployment has in common: its manifest, its folder, its progress, and its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from pgfleet.agent.handlers.deploy.download import Artifact, Downloads
from pgfleet.agent.handlers.deploy.paths import Roots
from pgfleet.agent.handlers.interface import HandlerContext, invalid_payload, unsupported

_TURNS: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()


@dataclass
class Work:
    """One deployment under way on this device."""

    context: HandlerContext
    manifest: dict[str, Any]
    roots: Roots
    folder: Path
    downloads: Downloads
    total: int = 0
    done: int = 0
    state: str = "downloading"
    extra: dict[str, Any] = field(default_factory=dict)

    def tell(self, state: str, **extra: Any) -> None:
        """Say what is being done now."""
        self.state, self.extra = state, extra
        self._report()

    def advance(self, count: int) -> None:
        """Count bytes that came in; less than none where they have to come again."""
        self.done = max(0, self.done + count)
        self._report()

    def _report(self) -> None:
        share = self.done / self.total if self.total else 1.0
        self.context.report(
            {
                "state": self.state,
                # What is left after the last byte is the rest.
                "percent": min(99, int(90 * min(1.0, share)) + (0 if share < 1 else 5)),
                "bytes_done": self.done,
                "bytes_total": self.total,
                **self.extra,
            }
        )


@asynccontextmanager
async def begin(context: HandlerContext, kind: str) -> AsyncIterator[Work]:
    """Take this device's turn at deploying and read what there is to do."""
    if context.server is None:
        raise unsupported("this device is simulated and deploys nothing")
    folder = context.state_dir / "deploy"
    turn = _TURNS.setdefault(folder, asyncio.Lock())
    async with turn:
        manifest = await context.server.manifest(context.command_id)
        if manifest.get("kind") != kind:
            raise invalid_payload(f"the manifest is not of {kind}")
        if manifest.get("missing"):
            raise invalid_payload(f"the server no longer has {manifest['missing']}")
        work = Work(
            context,
            manifest,
            Roots(context.deploy.roots),
            folder,
            Downloads(
                folder / "downloads",
                context.server,
                str(manifest.get("bucket", "pgfleet")),
                context.deploy.bytes_per_second,
                lambda count: work.advance(count),
            ),
        )
        yield work


def artifacts(found: object) -> list[Artifact]:
    """Read the files of a manifest."""
    if not isinstance(found, list):
        raise invalid_payload("the manifest has no list of files")
    return [Artifact.read(one) for one in found]
