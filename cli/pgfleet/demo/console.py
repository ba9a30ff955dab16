"""The console of the demo: its story in a browser, while it plays and for as long as one likes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgfleet.nouns.console import HOST, listen, server_of
from pgfleet_console.app import create_local
from pgfleet_console.settings import ConsoleSettings
from pgfleet_console.viewers import OPERATOR

STOP_SECONDS = 15.0


@contextmanager
def running_console(database_url: str) -> Iterator[Callable[[], str]]:
    """Serve the console on a free port; give a function that makes links, each good once."""
    listener = listen(0)
    port = listener.getsockname()[1]
    app, door = create_local(ConsoleSettings(database_url=database_url), OPERATOR, port)
    server = server_of(app)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="console", daemon=True
    )
    thread.start()
    try:
        yield lambda: f"http://{HOST}:{port}{door.new_link()}"
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        listener.close()
