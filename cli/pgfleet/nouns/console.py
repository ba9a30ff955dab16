"""pgfleet console: the fleet in a browser."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette

from pgfleet import options, output
from pgfleet.database import database_url
from pgfleet.errors import InvalidInput, Unavailable
from pgfleet.output.logs import uvicorn_log_config
from pgfleet_console.app import create_local, create_service, find_viewer
from pgfleet_console.settings import ConsoleSettings, ConsoleSettingsError, Tiles

app = options.Noun("The console: the fleet in a browser.")

HOST = "127.0.0.1"
PORT = 8790
# Pages that are open hold their connection for as long as they are; nobody waits for them.
LAST_SECONDS = 1


@app.callback(invoke_without_command=True, no_args_is_help=False)
def console(
    ctx: typer.Context,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"Port to listen on; {PORT}, or any that is free."),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open it in a browser at once.")
    ] = False,
    database: options.DatabaseUrl = None,
) -> None:
    """Show the fleet in a browser on this machine, until Ctrl-C.

    It prints a link that is good once; Enter prints another one. Whoever opens it has the rights of
    the person that --as names, and without it those of the service role.

    Example: pgfleet --as ada@school.example console
    """
    if ctx.invoked_subcommand is not None:
        return
    chosen = options.current()
    with _told_settings():
        settings = ConsoleSettings(
            database_url=database or database_url(),
            acting_as=chosen.acting_as,
            tiles=Tiles.from_environment(),
        )
    viewer = asyncio.run(find_viewer(settings))
    listener = listen(port)
    bound = listener.getsockname()[1]
    served, door = create_local(settings, viewer, bound)

    def tell() -> str:
        link = f"http://{HOST}:{bound}{door.new_link()}"
        output.show_text(link)
        return link

    output.say(f"The fleet as {viewer.name} sees it, until Ctrl-C. Open, once:")
    link = tell()
    if open_browser:
        webbrowser.open(link)
    tell_again(tell)
    server_of(served).run(sockets=[listener])


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = PORT,
) -> None:
    """Serve the console to everybody who has an account of the project, until Ctrl-C.

    It is told by environment variables which database it asks, who may come in, and under which
    names browsers know it.

    Example: pgfleet console serve --host 0.0.0.0
    """
    with _told_settings():
        settings = ConsoleSettings.of_service()
    server_of(create_service(settings)).run(sockets=[listen(port, host)])


@contextmanager
def _told_settings() -> Iterator[None]:
    try:
        yield
    except ConsoleSettingsError as error:
        raise InvalidInput(
            str(error),
            reason="setting_invalid",
            hint="What it needs to be told is in docs/how-to/console.md",
        ) from error


def listen(port: int | None, host: str = HOST) -> socket.socket:
    """Take the port; where nobody chose one, another will do if ours is taken."""
    for one in (PORT, 0) if port is None else (port,):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, one))
        except OSError as error:
            listener.close()
            reason = error
            continue
        listener.listen(128)
        return listener
    raise Unavailable(
        f"port {port} of {host} cannot be had: {reason.strerror}",
        reason="port_taken",
        hint="Choose another with --port",
    )


def server_of(served: Starlette) -> uvicorn.Server:
    """Give the server of an app; whoever runs it brings the port."""
    config = uvicorn.Config(
        served,
        log_config=uvicorn_log_config(),
        log_level="warning",
        access_log=False,
        # Who is asking decides nothing here, and what a proxy says of it is not asked.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    return _Server(config, served.state.hub.close)


class _Server(uvicorn.Server):
    """Sends those away who have pages open before it waits for requests to end."""

    def __init__(self, config: uvicorn.Config, send_away: Callable[[], None]) -> None:
        super().__init__(config)
        self._send_away = send_away

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: first what would never end by itself."""
        self._send_away()
        await super().shutdown(sockets)


def tell_again(tell: Callable[[], object]) -> None:
    """Print another link whenever somebody presses Enter in the terminal."""
    if not sys.stdin.isatty():
        return

    def wait() -> None:
        for _ in sys.stdin:
            tell()

    threading.Thread(target=wait, name="enter", daemon=True).start()
