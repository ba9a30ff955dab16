"""A way to a server on which every connection is cut after so many bytes."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 64 * 1024


@contextmanager
def cutting_proxy(
    port: int, least: int, most: int, seed: int = 7
) -> Iterator[tuple[str, list[int]]]:
    """Give the address of the proxy, and the list of how many bytes went before each cut."""
    cuts: list[int] = []
    chance = random.Random(seed)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            limit = chance.randint(least, most)
            threading.Thread(target=pump, args=(client, server, None), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, limit), daemon=True).start()

    def pump(source: socket.socket, target: socket.socket, limit: int | None) -> None:
        done = 0
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                target.sendall(data)
                done += len(data)
                if limit is not None and done > limit:
                    cuts.append(done)
                    break
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", cuts
    finally:
        listener.close()
