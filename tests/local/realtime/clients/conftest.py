"""Official clients in processes of their own, driven by lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.node import node_folder

__all__ = ["node_folder"]

# A client waits before it joins again, and a machine may be busy.
CLIENT_PATIENCE = 30.0


class Listener:
    """An official client in a process of its own."""

    def __init__(self, command: list[str], folder: Path, plan: dict[str, Any]) -> None:
        self._wishes = plan["channels"]
        self._events: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self.process = subprocess.Popen(
            [*command, json.dumps(plan)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._arrived:
                self._events.append(json.loads(line))
                self._arrived.notify_all()

    def order(self, **what: Any) -> None:
        """Tell the client to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def ready(self) -> None:
        """Return when every channel is joined, and every one with changes is live."""
        for wish in self._wishes:
            self.status(wish["name"], "SUBSCRIBED")
            if wish.get("changes"):
                self._take(lambda one, name=wish["name"]: _is(one, "system", name))

    def status(self, channel: str, status: str) -> Any:
        """Return the report that the channel has reached a state."""
        return self._take(
            lambda one: _is(one, "status", channel) and one["data"]["status"] == status
        )

    def next(self, kind: str) -> Any:
        """Return the next report of a kind."""
        return self._take(lambda one: _is(one, kind))

    def left(self, kind: str) -> list[Any]:
        """Return what has been reported and not been asked for."""
        return [one["data"] for one in self._events if _is(one, kind)]

    def _take(self, fits: Callable[[dict[str, Any]], bool]) -> Any:
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found.extend([one for one in self._events if fits(one)][:1])
            return bool(found)

        with self._arrived:
            assert self._arrived.wait_for(look, CLIENT_PATIENCE), self._events
            self._events.remove(found[0])
        return found[0]["data"]

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


def _is(event: dict[str, Any], kind: str, channel: str | None = None) -> bool:
    return event["kind"] == kind and channel in (None, event["channel"])


@pytest.fixture(params=["python", pytest.param("javascript", marks=pytest.mark.node)])
def client_name(request: pytest.FixtureRequest) -> str:
    """Run the test with each official client."""
    return str(request.param)


@pytest.fixture
def listen(client_name: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., Listener]]:
    """Give a function that starts the official client with channels to join."""
    if client_name == "python":
        command, folder = [sys.executable, "listen.py"], Path(__file__).parent
    else:
        command, folder = ["node", "listen.mjs"], request.getfixturevalue("node_folder")
    with ExitStack() as stack:

        def start(
            url: str, key: str, channels: list[dict[str, Any]], token: str | None = None
        ) -> Listener:
            plan = {"url": url, "key": key, "token": token, "channels": channels}
            listener = Listener(command, folder, plan)
            stack.callback(listener.end)
            return listener

        yield start
