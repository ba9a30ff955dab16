"""pgfleet stack: the local platform, which stands in for a hosted project."""

from __future__ import annotations

import secrets
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
from pgfleet_local.auth import users
from pgfleet_local.auth.tokens import Signer
from pgfleet_local.server.stack import Stack
from pgfleet_local.settings import LocalError, SettingsError, StackSettings

app = options.Noun("The local platform: up, down, status, env, user.")
user = options.Noun("Accounts of the local platform; a hosted project has Supabase Auth.")
app.add_typer(user, name="user")

Email = Annotated[str, typer.Argument(help="E-mail address.")]

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
        raise _stack_down()
    values = {name: str(value) for name, value in found.items() if name.isupper()}
    values |= {
        "FUNCTIONS_URL": f"{found['API_URL']}/functions/v1",
        "PGFLEET_URL": str(found["API_URL"]),
        "PGFLEET_ANON_KEY": str(found["ANON_KEY"]),
        "PGFLEET_SERVICE_KEY": str(found["SERVICE_ROLE_KEY"]),
        "PGFLEET_DATABASE_URL": str(found["DB_URL"]),
        # Devices of this platform are none of this machine's: their secrets go with its data.
        "PGFLEET_STATE_DIR": str(settings.data_dir / "agents"),
        "PGFLEET_LOCAL_DATA_DIR": str(settings.data_dir),
    }
    if options.current().as_json or options.current().as_csv:
        output.show_row(values)
        return
    output.show_text("\n".join(f"export {n}={shlex.quote(v)}" for n, v in values.items()))


@user.command("create")
def create_user(
    email: Email,
    password: Annotated[
        str | None, typer.Option(help="At least 6 characters; else one is made up and shown.")
    ] = None,
) -> None:
    """Make an account, with which a person signs in at /auth/v1 as at a hosted project.

    Example: pgfleet stack user create ben@school.example --password "correct horse"
    """
    made_up = secrets.token_urlsafe(12) if password is None else None
    with _plain_errors():
        row = users.create_user(_running().admin_url, email, password or made_up or "")
    output.show_row(row | ({"password": made_up} if made_up else {}))


@user.command("list")
def list_users() -> None:
    """List the accounts.

    Example: pgfleet stack user list
    """
    with _plain_errors():
        rows = users.list_users(_running().admin_url)
    output.show_rows(rows, ["id", "email", "created_at", "last_sign_in_at"])


@user.command("token")
def user_token(email: Email) -> None:
    """Print an access token of a person, good for an hour, without the password.

    Example: pgfleet stack user token ben@school.example
    """
    with _plain_errors():
        settings = _running()
        found = users.find_user(settings.admin_url, email)
        signer = Signer(settings.jwt_secret, f"{settings.api_url}/auth/v1")
    output.show_text(signer.access_token(found))


@user.command("delete")
def delete_user(email: Email, yes: options.Yes = False) -> None:
    """Delete an account; its memberships stay, and an admin can remove them.

    Example: pgfleet stack user delete ben@school.example --yes
    """
    with _plain_errors():
        settings = _running()
        found = users.find_user(settings.admin_url, email)
        output.confirm(f"Delete the account of {email}?", yes=yes)
        users.delete_user(settings.admin_url, email)
    output.show_row({"id": found["id"], "email": found["email"]})
    output.say("Deleted.")


def _running() -> StackSettings:
    settings = StackSettings.from_environment()
    if not Stack(settings).status()["database"]:
        raise _stack_down()
    return settings


def _stack_down() -> Unavailable:
    return Unavailable(
        "no local platform runs here",
        reason="stack_down",
        hint="Start it with: pgfleet stack up",
    )


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
    except users.UserError as error:
        raise InvalidInput(
            str(error), reason="user_invalid", hint="See who has one: pgfleet stack user list"
        ) from error
    except LocalError as error:
        raise Unavailable(str(error), reason="stack_failed") from error
