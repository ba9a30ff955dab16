"""POST /device-token: trade the device secret for a token of one hour."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.http import Fields, read_object


async def device_token(request: Request) -> Response:
    """Answer 200 with a new token for the device whose secret this is."""
    state = request.app.state
    fields = Fields(await read_object(request))
    secret = fields.text("device_secret", longest=256, required=True)
    fields.check('Send {"device_secret": ...}, as enroll-device answered it.')
    try:
        identity = await fetch_value(state.pool, "select fleet.worker_device_token(%s)", secret)
    except FunctionError as error:
        if error.status_code == 401:
            raise state.attempt_limit.wrong(request, error) from error
        raise
    shown = ("device_id", "hostname", "topic")
    answer = {name: identity[name] for name in shown} | state.signer.sign_device(identity)
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})
