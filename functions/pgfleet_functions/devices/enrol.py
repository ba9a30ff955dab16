"""POST /enroll-device: trade a one-time code for a device secret and a first token."""

from __future__ import annotations

from typing import Any

from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.http import Fields, read_object

HINT = (
    'Send {"code": ..., "hostname": ...}; platform, timezone, agent_version, attributes may follow.'
)


async def enroll_device(request: Request) -> Response:
    """Enrol the device that holds the code and answer 201 with its secret, shown this once."""
    state = request.app.state
    fields = Fields(await read_object(request))
    code = fields.text("code", longest=128, required=True)
    hostname = fields.text("hostname", longest=253, required=True)
    facts: dict[str, Any] = {
        "platform": fields.text("platform", longest=64),
        "timezone": fields.text("timezone", longest=64),
        "agent_version": fields.text("agent_version", longest=64),
        "attributes": fields.object("attributes"),
        "enrollment_key": fields.text("enrollment_key", longest=128),
    }
    fields.check(HINT)
    try:
        identity = await fetch_value(
            state.pool,
            "select fleet.worker_enroll_device(%s, %s, %s)",
            code,
            hostname,
            Jsonb({name: value for name, value in facts.items() if value is not None}),
        )
    except FunctionError as error:
        if error.status_code == 401:
            raise state.attempt_limit.wrong(request, error) from error
        raise
    shown = ("device_id", "auth_id", "hostname", "device_secret", "topic")
    answer = {name: identity[name] for name in shown} | state.signer.sign_device(identity)
    return JSONResponse(answer, status_code=201, headers={"Cache-Control": "no-store"})
