"""POST /integration-webhook: a cloud pushes what its devices tell, as it happens.

The secret is part of the address, or comes in a header. What is pushed is data and nothing
else: it decides nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_functions.errors import BadRequest, FunctionError, InvalidBody, NotSignedIn
from pgfleet_functions.golioth.messages import UnfitMessage, read_message
from pgfleet_functions.http import read_any_text, unreadable
from pgfleet_functions.integrations.webhook import LARGEST_WEBHOOK, take_webhook

# Where a secret may be that is not in the address.
SECRET_HEADERS = ("x-webhook-secret", "x-integration-secret")
# What says that the body is JSON; nothing said is believed to.
JSON_TYPES = ("application/json", "application/cloudevents+json", "")
CONTENT_TYPE = "content_type"
# What one of ours may look like.
SECRET = re.compile(r"[!-~]{1,200}")
BYTE_ORDER_MARK = "\ufeff"

_REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "quota_exceeded": (
        429,
        "the owner has had its points of telemetry of the day",
        "Send it again later; see what is used with: pgfleet owner usage",
    ),
    "owner_moving": (
        503,
        "the fleet of this address is being moved to another platform, or was",
        "Send it again later; where the fleet has moved, make an address there.",
    ),
    "webhook_signature_missing": (
        401,
        "the message is not signed",
        "Sign it by Standard Webhooks with the signing secret of this address.",
    ),
    "webhook_signature_refused": (
        403,
        "the signature is not of this message",
        "Sign the body as it is sent, with the signing secret of this address.",
    ),
    "webhook_timestamp_refused": (
        408,
        "the message is older than five minutes, or from the future",
        "Sign it anew for each attempt; look at the clock of the sender.",
    ),
}


async def integration_webhook(request: Request) -> Response:
    """Answer once it is stored: 202, or 200 for what was there already."""
    token = request.path_params.get("token")
    secret = token or _secret_of(request)
    if not SECRET.fullmatch(secret):
        # None of ours looks like that, and the database need not be asked.
        raise request.app.state.attempt_limit.wrong(request, _unknown(in_address=bool(token)))
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    text, body = await _read(request, media)
    message = _message(request, secret, text, body)
    if media not in JSON_TYPES:
        # Some systems say nothing right about what they send; Golioth does.
        message["problem"] = CONTENT_TYPE
    answer = await request.app.state.receiving.receive(message)
    match answer:
        case "stored":
            return JSONResponse({"status": "stored", "is_new": True}, status_code=202)
        case "known":
            return JSONResponse({"status": "known", "is_new": False})
        case "other":
            return await take_webhook(request, secret, body)
        case "webhook_invalid" if message["problem"] == CONTENT_TYPE:
            raise _wrong_type(media)
        case "webhook_invalid":
            raise InvalidBody(
                message["problem"],
                details="webhook_invalid",
                hint="See docs/how-to/golioth.md for the shapes that are understood.",
            )
        case "integration_webhook_not_found":
            raise request.app.state.attempt_limit.wrong(request, _unknown(in_address=bool(token)))
    status, said, hint = _REFUSALS[answer]
    raise FunctionError(said, details=answer, hint=hint, status_code=status)


def _message(request: Request, secret: str, text: str, body: Any) -> dict[str, Any]:
    """Give the message as the database takes it, with what is wrong with it."""
    found: dict[str, Any] = {"token": secret}
    signed = _signed(request.headers)
    if signed is not None:
        found |= {"signed": signed, "body": text}
    try:
        found |= read_message(request.headers, text, body).row()
    except UnfitMessage as error:
        found["problem"] = str(error)
    return found


def _secret_of(request: Request) -> str:
    """Take the secret out of a header; without any there is nothing to know."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    found = given.strip() if scheme.lower() == "bearer" else ""
    for name in SECRET_HEADERS:
        found = found or request.headers.get(name, "").strip()
    if not found:
        refusal = NotSignedIn(
            "the call carries no secret",
            details="webhook_secret_missing",
            hint="Call the secret address, or send: Authorization: Bearer <secret>",
        )
        raise request.app.state.attempt_limit.wrong(request, refusal)
    return found


def _signed(headers: Mapping[str, str]) -> dict[str, str] | None:
    for prefix in ("webhook", "svix"):
        if signatures := headers.get(f"{prefix}-signature"):
            return {
                "id": headers.get(f"{prefix}-id", ""),
                "timestamp": headers.get(f"{prefix}-timestamp", ""),
                "signatures": signatures,
            }
    return None


async def _read(request: Request, media: str) -> tuple[str, Any]:
    """Read the body as it was sent, and as JSON; what says that it is none need not be."""
    try:
        text = await read_any_text(request, LARGEST_WEBHOOK)
        # Some put a mark before it that is no part of the JSON.
        return text, json.loads(text.removeprefix(BYTE_ORDER_MARK))
    except (ValueError, RecursionError) as error:
        failure: FunctionError = unreadable("it is not JSON")
        raise (failure if media in JSON_TYPES else _wrong_type(media)) from error
    except BadRequest as refusal:
        if refusal.details == "body_unreadable" and media not in JSON_TYPES:
            raise _wrong_type(media) from refusal
        raise


def _wrong_type(media: str) -> BadRequest:
    return BadRequest(
        f"the content type must be application/json, not {media}",
        details="content_type_invalid",
        hint="Let the pipeline make JSON of it: transformer cbor-to-json.",
        status_code=415,
    )


def _unknown(*, in_address: bool) -> FunctionError:
    if in_address:
        return FunctionError(
            "there is no such webhook, or its address was revoked",
            details="integration_webhook_not_found",
            hint="Make a new address: select create_integration_webhook()",
            status_code=404,
        )
    return NotSignedIn(
        "the secret is not one of a webhook, or it was revoked",
        details="webhook_secret_refused",
        hint="Make a new one: pgfleet integration webhook create",
    )
