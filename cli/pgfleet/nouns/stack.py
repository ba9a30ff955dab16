"""pgfleet stack: the local platform, which stands in for a hosted project."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from pgfleet import options, output
from pgfleet.errors import InvalidInput, Unavailable
from pgfleet_local.server.stack import Stack
from pgfleet_local.settings import LocalError, SettingsError, StackSettings

app = options.Noun("The local platform: up, down, status, env.")

_PATIENCE_SECONDS = 180.0
_LOOK_SECONDS = 0.2


@app.command()
def up(
    background: Annotated[
        bool, typer.Option("--background", help="Return once everything answers.")
    ] = False,
) -> None:
    """Start database, REST, Realtime and functions; runs until Ctrl-C.

    Example: pgfleet stack up --background
    """
    with _plain_errors():
        if background:
            _start_in_background()
        else:
            Stack(StackSettings.from_environment(), output.say).up(_show_ready)


@app.command()
def down() -> None:
    """Stop the local platform; its data stays.

    Example: pgfleet stack down
    """
    with _plain_errors():
        stopped = Stack(StackSettings.from_environment(), output.say).down()
    output.say("Stopped." if stopped else "Nothing was running.")


@app.command()
def status() -> None:
    """Show whether the local platform runs, with its addresses and keys; ends with 1 if not.

    Example: pgfleet stack status --json
    """
    with _plain_errors():
        found = Stack(StackSettings.from_environment()).status()
    output.show_variables(found)
    if not (found["database"] and found["gateway"]):
        raise typer.Exit(1)


@app.command()
def env() -> None:
    """Print the platform's addresses and keys as lines for the shell; ends with 1 if it is down.

    With them, pgfleet and its agents find the platform from any folder, and agents keep what they
    keep in its data folder.

    Example: pgfleet stack env
    """
    with _plain_errors():
        settings = StackSettings.from_environment()
        found = Stack(settings).status()
    if not (found["database"] and found["gateway"]):
        raise Unavailable(
            "no local platform runs here",
            reason="stack_down",
            hint="Start it with: pgfleet stack up",
        )
    values = {name: str(value) for name, value in found.items() if name.isupper()}
    values |= {
        "FUNCTIONS_URL": f"{found['API_URL']}/functions/v1",
        "PGFLEET_URL": str(found["API_URL"]),
        "PGFLEET_ANON_KEY": str(found["ANON_KEY"]),
        "PGFLEET_DATABASE_URL": str(found["DB_URL"]),
        # Devices of this platform are none of this machine's: their secrets go with its data.
        "PGFLEET_STATE_DIR": str(settings.data_dir / "agents"),
        "PGFLEET_LOCAL_DATA_DIR": str(settings.data_dir),
    }
    if options.current().as_json or options.current().as_csv:
        output.show_row(values)
        return
    output.show_text("\n".join(f"export {n}={shlex.quote(v)}" for n, v in values.items()))


def _show_ready(described: dict[str, str]) -> None:
    output.show_variables(described)
    output.say('In another terminal: eval "$(pgfleet stack env)"')


def _start_in_background() -> None:
    settings = StackSettings.from_environment()
    stack = Stack(settings)
    if stack.status()["running"]:
        output.say("It is running already.")
        output.show_variables(stack.status())
        return
    log_file = settings.data_dir / "stack.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgfleet", "stack", "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (found := stack.status())["gateway"]:
        if process.poll() is not None or time.monotonic() > deadline:
            said = log_file.read_text(errors="replace").strip()
            raise Unavailable(
                f"the local platform did not start: {said.splitlines()[0] if said else 'no word'}",
                reason="stack_failed",
                hint=f"Read {log_file}",
            )
        time.sleep(_LOOK_SECONDS)
    # It goes on without us; nobody is to complain that we did not wait for it.
    process.returncode = 0
    output.show_variables(found)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Give what the platform raises the shape of every other error."""
    try:
        yield
    except SettingsError as error:
        raise InvalidInput(str(error), reason="setting_invalid") from error
    except LocalError as error:
        raise Unavailable(str(error), reason="stack_failed") from error
