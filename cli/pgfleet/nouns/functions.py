"""pgfleet functions: the HTTP functions and the login with which they reach the database."""

from __future__ import annotations

import secrets
import time
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import psycopg
import typer
import uvicorn
from psycopg.conninfo import conninfo_to_dict
from starlette.applications import Starlette
from starlette.routing import Mount

from pgfleet import options, output
from pgfleet.database import database_url, json_value, open_database
from pgfleet.errors import InvalidInput, translate_errors
from pgfleet.output.logs import FORMAT_VARIABLE, chosen_format, uvicorn_log_config
from pgfleet.schema.forwarders import write as write_forwarders
from pgfleet_functions import tracing
from pgfleet_functions.app import create_app
from pgfleet_functions.settings import FunctionSettings, SettingsError
from pgfleet_functions.setup import WORKER, ensure_worker_role
from pgfleet_functions.subject import add_subject

app = options.Noun("The HTTP functions.")

# How often those who follow a log look for more.
FOLLOW_SECONDS = 1.0


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
    log_format: Annotated[
        str, typer.Option(envvar=FORMAT_VARIABLE, help="text, or json lines.")
    ] = "text",
) -> None:
    """Serve the HTTP functions until Ctrl-C; they are told by environment variables.

    Example: pgfleet functions run --host 0.0.0.0 --port 8787
    """
    chosen = chosen_format(log_format)
    tracing.set_up("pgfleet-functions")
    served = _standalone(_settings(), poll, listen=listen)
    # Whose X-Forwarded-For is believed is one of the settings.
    uvicorn.run(
        served,
        host=host,
        port=port,
        log_config=uvicorn_log_config(chosen, add_subject),
        access_log=False,
        proxy_headers=False,
    )


@app.command(changes=True)
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
        if options.current().dry_run:
            conn.rollback()
            output.say("Dry run: nothing was changed.")
            return
    output.show_variables({"PGFLEET_FUNCTIONS_DATABASE_URL": _worker_url(target, chosen)})
    output.say("Set it where the functions run, then: pgfleet functions run")


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="Name of the function, such as auto-sync-cron.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    limit: options.Limit = 50,
) -> None:
    """Show what a function did, the oldest first.

    Example: pgfleet functions logs auto-sync-cron --follow
    """
    seen: set[str] = set()
    with suppress(KeyboardInterrupt):
        while True:
            with open_database() as db:
                where = {"function": name}
                rows = db.find("function_log_list", where, order=("-at", "-id"), limit=limit)
            fresh = [row for row in reversed(rows) if row["id"] not in seen]
            if fresh or not seen:
                output.show_rows(fresh, ["at", "status", "message"])
            seen |= {row["id"] for row in fresh} or {""}
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


@app.command()
def forwarders(
    folder: Annotated[Path, typer.Option(help="Folder of the project's edge functions.")] = Path(
        "supabase/functions"
    ),
) -> None:
    """Write edge functions that pass calls on, for a hosted project, whose address runs Deno.

    Example: pgfleet functions forwarders
    """
    for path in write_forwarders(folder):
        output.say(f"wrote {path}")
    output.say("supabase secrets set PGFLEET_FUNCTIONS_URL=<where the functions of pgfleet run>")
    output.say("supabase functions deploy auto-sync-cron --no-verify-jwt")


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
