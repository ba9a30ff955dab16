"""A server that answers however a test wants: byte by byte, without end, or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pgfleet_local.settings import HOST

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Hostile:
    """Where it is, and the heads of the requests that came."""

    port: int
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Give the address."""
        return f"http://{HOST}:{self.port}/api"


@contextmanager
def hostile(answer: Answering) -> Iterator[Hostile]:
    """Serve until the block ends; each request is answered by `answer`, then closed."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    for line in head.splitlines():
                        if line.lower().startswith("content-length:"):
                            await reader.readexactly(int(line.split(":")[1]))
                    found.requests.append(head)
                    await answer(writer)
                    await writer.drain()
        finally:
            tasks.discard(task)
            if not writer.is_closing():
                writer.transport.abort()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, HOST, 0)

    async def stop() -> None:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        # What was aborted is closed in the next round.
        await asyncio.sleep(0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    found = Hostile(server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def says(head: str, body: bytes = b"") -> Answering:
    """Answer with these lines and this body."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [*head.split("\n"), f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return answer


def pours(head: str, chunks: Callable[[], AsyncIterator[bytes]]) -> Answering:
    """Answer with these lines and with a body whose end nobody knows."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join([*head.split("\n"), "Connection: close", "", ""]).encode())
        async for chunk in chunks():
            writer.write(chunk)
            await writer.drain()
        writer.close()

    return answer


def drips(text: bytes, pause: float) -> Answering:
    """Answer a byte at a time."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for byte in text:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(pause)

    return answer
