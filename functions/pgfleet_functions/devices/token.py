"""POST /device-token: trade the device secret for a token of one hour, or hear where to ask."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.database import fetch_value
from pgfleet_functions.errors import FunctionError
from pgfleet_functions.http import Fields, read_object

_TOKEN = "select fleet.worker_device_token(%s, p_instance => %s)"


async def device_token(request: Request) -> Response:
    """Answer 200 with a new token for the device whose secret this is."""
    state = request.app.state
    fields = Fields(await read_object(request))
    secret = fields.text("device_secret", longest=256, required=True)
    instance = fields.text("instance", longest=64)
    fields.check('Send {"device_secret": ...}, as enroll-device answered it.')
    try:
        identity = await fetch_value(state.pool, _TOKEN, secret, instance)
    except FunctionError as error:
        if error.status_code == 401:
            raise state.attempt_limit.wrong(request, error) from error
        raise
    if "moved_to" in identity:
        return JSONResponse(
            {
                "code": "PT410",
                "message": "this device's fleet was moved to another platform",
                "details": "owner_moved",
                "hint": "Ask there, with the same secret; the signature shows that we say so.",
                **identity,
            },
            status_code=410,
            headers={"Cache-Control": "no-store"},
        )
    shown = ("device_id", "hostname", "topic", "clone_seen_at")
    answer = {name: identity[name] for name in shown} | state.signer.sign_device(identity)
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})
