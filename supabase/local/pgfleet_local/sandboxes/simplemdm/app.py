"""The sandbox as an ASGI app: `/api/v1` is the API, `/control` moves the world behind it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount

from pgfleet_local.sandboxes.simplemdm import control, devices, profiles
from pgfleet_local.sandboxes.simplemdm.account import Account
from pgfleet_local.sandboxes.simplemdm.answers import http_error
from pgfleet_local.sandboxes.simplemdm.gate import Gate


def create_sandbox(keys: Mapping[str, str]) -> Starlette:
    """Return the sandbox of one account; `keys` are its API keys "full" and "read_only"."""
    account = Account(dict(keys))
    api = Starlette(
        routes=[*devices.ROUTES, *profiles.ROUTES],
        exception_handlers={HTTPException: http_error},
    )
    api.state.account = account
    sandbox = Starlette(
        routes=[
            Mount("/api/v1", app=Gate(api, account)),
            Mount("/control", routes=control.ROUTES),
        ],
        exception_handlers={HTTPException: http_error},
    )
    sandbox.state.account = account
    return sandbox
