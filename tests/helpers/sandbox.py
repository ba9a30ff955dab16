"""A sandbox that is served over real HTTP, and the way to move the world behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from pgfleet_local.settings import HOST

FULL = "full-key-0123456789abcdef"
READ_ONLY = "read-key-0123456789abcdef"


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait for something to become true, and give it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


@contextmanager
def serving(app: ASGIApp, port: int) -> Iterator[str]:
    """Serve an app until the block ends."""
    config = uvicorn.Config(app, host=HOST, port=port, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@dataclass
class Sandbox:
    """The control paths of a served sandbox."""

    url: str

    @property
    def api(self) -> str:
        """Give the address of the API."""
        return f"{self.url}/api/v1"

    def control(self, method: str, path: str, **body: Any) -> Any:
        """Call a control path and give what it answers."""
        answer = httpx.request(
            method, f"{self.url}/control/{path}", json=body or None, timeout=60, trust_env=False
        )
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def devices(self, count: int = 1, **given: Any) -> list[int]:
        """Enrol devices and give their ids."""
        made = self.control("POST", "devices", count=count, **given)["data"]
        return [one["id"] for one in made]

    def profiles(self, *names: str, **given: Any) -> list[int]:
        """Make profiles and give their ids."""
        made = self.control("POST", "profiles", names=list(names), **given)["data"]
        return [one["id"] for one in made]

    def device(self, device: int, **changes: Any) -> dict[str, Any]:
        """Tell what a device really has, after changing it."""
        found: dict[str, Any] = self.control(
            "PATCH" if changes else "GET", f"devices/{device}", **changes
        )
        return found

    def has(self, device: int, profile: int) -> float | None:
        """Tell since when a device has a profile."""
        at: float | None = self.device(device)["installed"].get(str(profile))
        return at

    def faults(self, **switches: Any) -> None:
        """Flip switches."""
        self.control("POST", "faults", **switches)

    def history(self) -> list[dict[str, Any]]:
        """Tell what was assigned, installed, unassigned and removed."""
        found: list[dict[str, Any]] = self.control("GET", "history")["history"]
        return found

    def requests(self) -> list[dict[str, Any]]:
        """Tell which requests came, and how each was answered."""
        found: list[dict[str, Any]] = self.control("GET", "requests")["requests"]
        return found
