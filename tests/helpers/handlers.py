"""Let the handlers of an agent carry out a command."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pgfleet.agent.client import Command
from pgfleet.agent.events import EventFile
from pgfleet.agent.execution import execute
from pgfleet.agent.handlers.interface import HandlerContext
from pgfleet.agent.handlers.registry import HandlerRegistry
from pgfleet.agent.journal import Outcome
from pgfleet.agent.settings import AgentSettings

LIMIT = 2000


def registry(tmp_path: Path, **more: Any) -> HandlerRegistry:
    return HandlerRegistry(
        AgentSettings(
            url="http://127.0.0.1:1",
            anon_key="anon",
            state_dir=tmp_path,
            hostname="lab-01",
            **more,
        )
    )


def carry_out(
    handlers: HandlerRegistry,
    command_type: str,
    payload: dict[str, Any] | None = None,
    *,
    timeout: float | None = 20,
    events: EventFile | None = None,
) -> Outcome:
    command = Command(5, command_type, payload or {}, 2, False, timeout, 60)
    context = HandlerContext(5, command_type, 2, 7, "lab-01", Path("/state"), timeout, LIMIT)
    return asyncio.run(execute(handlers, context, command, events))


def program(folder: Path, name: str, body: str, interpreter: str = "/bin/sh") -> Path:
    path = folder / name
    path.write_text(f"#!{interpreter}\n{body}\n")
    path.chmod(0o755)
    return path
