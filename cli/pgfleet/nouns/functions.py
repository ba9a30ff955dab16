"""pgfleet functions: the HTTP functions and the login with which they reach the database."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any
from urllib.parse import quote

import psycopg
import typer
import uvicorn
from psycopg.conninfo import conninfo_to_dict
from starlette.applications import Starlette
from starlette.routing import Mount

from pgfleet import options, output
from pgfleet.database import database_url, json_value
from pgfleet.errors import InvalidInput, translate_errors
from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings, SettingsError
from pgfleet_functions.setup import WORKER, ensure_worker_role

app = options.Noun("The HTTP functions.")


@app.command()
def run(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8787,
    poll: Annotated[
        float | None,
        typer.Option(min=0.1, help="Look for work this often (seconds), where no pg_net pokes."),
    ] = None,
    listen: Annotated[
        bool,
        typer.Option(help="Hear from the database at once that there is work."),
    ] = True,
) -> None:
    """Serve the HTTP functions until Ctrl-C; they are told by environment variables.

    Example: pgfleet functions run --host 0.0.0.0 --port 8787
    """
    served = _standalone(_settings(), poll, listen=listen)
    # Whose X-Forwarded-For is believed is one of the settings.
    uvicorn.run(
        served, host=host, port=port, log_level="info", access_log=False, proxy_headers=False
    )


@app.command()
def setup(
    url: Annotated[
        str | None, typer.Option(help="Where the functions will be reached; kept as a setting.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="PGFLEET_WORKER_PASSWORD", help="Else a new one is made."),
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Make the login of the functions, or give it a new password, and print its address.

    Example: pgfleet functions setup --url https://functions.example.com/functions/v1
    """
    target = database_url()
    chosen = password or secrets.token_urlsafe(24)
    with translate_errors(), psycopg.connect(target, client_encoding="utf8") as conn:
        known = conn.execute("select from pg_roles where rolname = %s", (WORKER,)).fetchone()
        if known is not None:
            output.confirm(f"Give {WORKER} a new password? Running functions need it.", yes=yes)
        ensure_worker_role(conn, chosen)
        conn.execute("select fleet.grant_worker()")
        if url is not None:
            conn.execute("select fleet.set_setting('functions_url', %s)", (json_value(url),))
    output.show_row({"PGFLEET_FUNCTIONS_DATABASE_URL": _worker_url(target, chosen)})
    output.say("Set it where the functions run, then: pgfleet functions run")


def _settings() -> FunctionSettings:
    try:
        return FunctionSettings.from_environment()
    except SettingsError as error:
        raise InvalidInput(
            str(error),
            reason="setting_invalid",
            hint="pgfleet functions setup prints the database url; the project has the JWT secret",
        ) from error


def _standalone(settings: FunctionSettings, poll: float | None, *, listen: bool) -> Starlette:
    """Serve the functions at the root, and where a Supabase project has them."""
    try:
        inner = create_app(settings, poll_seconds=poll, listen=listen)
    except SettingsError as error:
        raise InvalidInput(str(error), reason="setting_invalid") from error

    def lifespan(_: Starlette) -> AbstractAsyncContextManager[Any]:
        # A mounted app is not told of the start and the end.
        return inner.router.lifespan_context(inner)

    return Starlette(
        routes=[Mount("/functions/v1", app=inner), Mount("/", app=inner)], lifespan=lifespan
    )


def _worker_url(target: str, password: str) -> str:
    """Give the address of the same database for the functions' login."""
    known = conninfo_to_dict(target)
    # The shared pooler tells projects apart by what follows the dot in the name of the user.
    _, dot, project = str(known.get("user") or "").partition(".")
    host = str(known.get("host") or "localhost")
    if ":" in host:
        host = f"[{host}]"
    port, name = known.get("port") or 5432, known.get("dbname") or "postgres"
    return f"postgresql://{WORKER}{dot}{project}:{quote(password, safe='')}@{host}:{port}/{name}"
