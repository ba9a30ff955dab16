"""Record the frames of the official clients: `python -m tests.local.realtime.golden.capture DIR`.

A scripted server, written down here without any code of ours, logs every frame of a short
session and answers it as the hosted server does. What each client then hands to its application
is recorded too, so the file also says which server frames the client accepts. For JavaScript the
packages must be in tests/local/node/node_modules (`npm install` in tests/local/node).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from realtime import AsyncRealtimeClient
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

NODE = Path(__file__).parents[2] / "node"
ANON, USER = "eyJ.anon.key", "eyJ.user.jwt"
BINDINGS = [
    {"event": "INSERT", "schema": "public", "table": "jobs", "filter": "status=eq.queued"},
    {"event": "*", "schema": "public", "table": "jobs"},
]
CHANGE = {
    "ids": [1000, 1001],
    "data": {
        "columns": [{"name": "id", "type": "int8"}, {"name": "status", "type": "text"}],
        "commit_timestamp": "2026-11-22T14:07:51.563Z",
        "errors": None,
        "schema": "public",
        "table": "jobs",
        "type": "INSERT",
        "record": {"id": 1, "status": "queued"},
    },
}
SHOUT = {"event": "shout", "payload": {"x": 1}, "type": "broadcast", "meta": {"id": "u-1"}}
# Type 4: topic, event and meta by length, then JSON.
BINARY_SHOUT = bytes([4, 14, 5, 12, 1]) + b'realtime:room1shout{"id":"u-2"}' + b'{"x":2}'
SYSTEM = {
    "extension": "postgres_changes",
    "status": "ok",
    "message": "Subscribed to PostgreSQL",
    "channel": "room1",
}
Session = Callable[[str, "Recorder"], Awaitable[None]]


class Recorder:
    """The scripted server and its log."""

    def __init__(self) -> None:
        self.frames: list[dict[str, str]] = []
        self.delivered: list[Any] = []
        self.left = asyncio.Event()
        self.version = ""

    async def serve(self, socket: ServerConnection) -> None:
        """Answer one client."""
        assert socket.request is not None
        self.version = "2.0.0" if "vsn=2.0.0" in socket.request.path else "1.0.0"
        # A client that is done goes without a word.
        with suppress(ConnectionClosed):
            async for frame in socket:
                message = self._note("client", frame)
                for answer in self._answers(message):
                    self._note("server", answer)
                    await socket.send(answer)
                if message["event"] == "phx_leave":
                    self.left.set()

    def _note(self, side: str, frame: str | bytes) -> dict[str, Any]:
        """Log a frame and take it apart."""
        if isinstance(frame, bytes):
            self.frames.append({"from": side, "binary": frame.hex()})
            return {"event": "binary", "topic": "", "ref": None, "join_ref": None, "payload": {}}
        self.frames.append({"from": side, "text": frame})
        message = json.loads(frame)
        if isinstance(message, list):
            names = ("join_ref", "ref", "topic", "event", "payload")
            return dict(zip(names, message, strict=True))
        return dict(message)

    def _answers(self, message: dict[str, Any]) -> list[str | bytes]:
        event, ref, join_ref = message["event"], message["ref"], message.get("join_ref")
        topic = message["topic"]
        if event == "heartbeat":
            return [self._reply(None, ref, topic, {})]
        if event == "phx_join":
            asked = message["payload"]["config"]["postgres_changes"]
            echoed = [{**one, "id": 1000 + index} for index, one in enumerate(asked)]
            answers: list[str | bytes] = [
                self._reply(join_ref, ref, topic, {"postgres_changes": echoed}),
                self._frame(join_ref, None, topic, "system", SYSTEM),
                self._frame(None, None, topic, "postgres_changes", CHANGE),
                self._frame(None, None, topic, "broadcast", SHOUT),
            ]
            return [*answers, BINARY_SHOUT] if self.version == "2.0.0" else answers
        if event == "phx_leave":
            return [
                self._reply(join_ref, ref, topic, {}),
                self._frame(join_ref, join_ref, topic, "phx_close", {}),
            ]
        return []

    def _reply(self, join_ref: Any, ref: Any, topic: str, response: dict[str, Any]) -> str:
        payload = {"status": "ok", "response": response}
        return self._frame(join_ref, ref, topic, "phx_reply", payload)

    def _frame(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> str:
        if self.version == "2.0.0":
            return json.dumps([join_ref, ref, topic, event, payload], separators=(",", ":"))
        message = {"event": event, "payload": payload, "ref": ref, "topic": topic}
        return json.dumps(message, separators=(",", ":"))


async def python_session(url: str, recorder: Recorder) -> None:
    """Join, hear, send, refresh the token and leave with the Python client."""
    client = AsyncRealtimeClient(f"{url}/realtime/v1", token=ANON)
    channel = client.channel("room1")
    heard = asyncio.Event()

    def on_change(payload: Any) -> None:
        recorder.delivered.append({"kind": "change", "data": json.loads(json.dumps(payload))})

    def on_broadcast(payload: Any) -> None:
        recorder.delivered.append({"kind": "broadcast", "data": payload})
        heard.set()

    for one in BINDINGS:
        channel.on_postgres_changes(
            one["event"], on_change, one["table"], one["schema"], one.get("filter")
        )
    channel.on_broadcast("shout", on_broadcast)
    await channel.subscribe()
    await heard.wait()
    await channel.send_broadcast("hello", {"y": 2})
    await client.set_auth(USER)
    await channel.unsubscribe()
    await recorder.left.wait()
    await client.close()


async def node_session(url: str, recorder: Recorder) -> None:
    """Do the same with the JavaScript client."""
    wish = {"name": "room1", "broadcast": ["shout"], "changes": BINDINGS}
    plan = {"url": url, "key": ANON, "channels": [wish]}
    process = await asyncio.create_subprocess_exec(
        "node",
        "listen.mjs",
        json.dumps(plan),
        cwd=NODE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None

    async def order(**what: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(what).encode() + b"\n")
        await process.stdin.drain()

    shouts = 0
    while shouts < 2:
        event = json.loads(await process.stdout.readline())
        if event["kind"] in ("change", "broadcast"):
            recorder.delivered.append({"kind": event["kind"], "data": event["data"]})
        shouts += event["kind"] == "broadcast"
    await order(do="send", channel="room1", event="hello", payload={"y": 2})
    await order(do="set_auth", token=USER)
    await order(do="leave", channel="room1")
    await recorder.left.wait()
    await order(do="quit")
    await process.wait()


async def capture(session: Session) -> Recorder:
    """Run one session against the scripted server."""
    recorder = Recorder()
    async with serve(recorder.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.wait_for(session(f"http://127.0.0.1:{port}", recorder), 30)
    return recorder


def golden(client: str, recorder: Recorder) -> dict[str, Any]:
    """Shape what is kept."""
    return {
        "client": client,
        "vsn": recorder.version,
        "frames": recorder.frames,
        "delivered": recorder.delivered,
    }


async def main(folder: Path, names: list[str]) -> None:
    """Write the golden files of the named clients, or of both."""
    sessions: dict[str, tuple[str, Session]] = {
        "python": (f"supabase {version('supabase')}", python_session),
        "javascript": ("@supabase/supabase-js", node_session),
    }
    for name in names or sessions:
        client, session = sessions[name]
        data = golden(client, await capture(session))
        (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
