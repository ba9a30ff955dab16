"""A server that takes each connection and resets it without a word."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pgfleet_local.settings import HOST


@contextmanager
def resetting() -> Iterator[str]:
    """Serve until the block ends: each connection is accepted, and reset without a word."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                found, _ = server.accept()
                at_once = struct.pack("ii", 1, 0)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                found.close()

    with socket.create_server((HOST, 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.getsockname()[1]}/"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
