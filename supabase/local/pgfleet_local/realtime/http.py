"""Answer over plain HTTP: broadcasts without a socket, and the fault switches."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pgfleet_local.realtime.database import Unreachable
from pgfleet_local.realtime.faults import FaultError
from pgfleet_local.realtime.identity import Identity, IdentityError, choose_token, identify
from pgfleet_local.realtime.protocol import Broadcast, ProtocolError, parse_json, to_json
from pgfleet_local.realtime.services import Services
from pgfleet_local.realtime.topics import wire_topic

logger = logging.getLogger(__name__)

Strike = Callable[[str, Mapping[str, Any]], int]


@dataclass(frozen=True, slots=True)
class Message:
    """One broadcast of a request."""

    topic: str
    event: str
    payload: str | bytes
    private: bool


class RequestError(Exception):
    """Raised when a request is refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def response(self) -> Response:
        """Return the answer."""
        return JSONResponse({"message": self.message}, status_code=self.status)


class BroadcastApi:
    """Broadcasts sent by POST."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def single(self, request: Request) -> Response:
        """Broadcast the body to the topic and event of the path; 202 and nothing else."""
        topic, event = request.path_params["topic"], request.path_params["event"]
        private = request.query_params.get("private") == "true"
        try:
            identity = _identify(self._services, request)
            raw = request.headers.get("content-type", "").startswith("application/octet-stream")
            body = await request.body()
            payload = body if raw else to_json(_json(body))
            await self._send(identity, [Message(topic, event, payload, private)])
        except RequestError as error:
            return error.response()
        return Response(status_code=202)

    async def batch(self, request: Request) -> Response:
        """Broadcast every message of the body; 202 and nothing else."""
        try:
            identity = _identify(self._services, request)
            await self._send(identity, _messages(_json(await request.body())))
        except RequestError as error:
            return error.response()
        return Response(status_code=202)

    async def _send(self, identity: Identity, messages: list[Message]) -> None:
        """Hand the messages out; one that the policies refuse is dropped without a word."""
        limit = self._services.options.max_broadcast_bytes
        if any(len(one.payload) > limit for one in messages):
            raise RequestError(413, "Payload size exceeds the limit")
        for one in messages:
            if one.private:
                try:
                    allowed = await self._services.authorizer.may_write(
                        identity.access, one.topic, "broadcast"
                    )
                except Unreachable as error:
                    raise RequestError(500, "Error connecting to Realtime") from error
                if not allowed:
                    logger.warning("a private broadcast to %s was refused", one.topic)
                    continue
            broadcast = Broadcast(
                wire_topic(one.topic),
                one.event,
                one.payload,
                meta=to_json({"id": str(uuid.uuid4())}),
            )
            self._services.topics.publish(one.topic, one.private, broadcast)


class FaultApi:
    """The fault switches of a server that runs in another process; for tests of clients."""

    def __init__(self, services: Services, strike: Strike) -> None:
        self._services = services
        self._strike = strike

    async def handle(self, request: Request) -> Response:
        """Show the switches (GET), flip them and strike (POST), or turn all off (DELETE).

        The body of a POST is `{"set": {switch: value}, "do": action, ...options}`. The answer has
        `live` too, which tells whether changes are being read.
        """
        faults = self._services.faults
        try:
            if _identify(self._services, request).access.role != "service_role":
                raise RequestError(403, "only service_role may break things")
            struck = 0
            if request.method == "DELETE":
                faults.reset()
            elif request.method == "POST":
                body = _json(await request.body())
                if not isinstance(body, dict) or not isinstance(body.get("set", {}), dict):
                    raise RequestError(400, "the body must be an object")
                faults.set(**body.get("set", {}))
                if "do" in body:
                    struck = self._strike(str(body["do"]), body)
        except RequestError as error:
            return error.response()
        except FaultError as error:
            return JSONResponse({"message": str(error)}, status_code=400)
        live = self._services.live.is_set()
        return JSONResponse({"faults": faults.state(), "struck": struck, "live": live})


def _identify(services: Services, request: Request) -> Identity:
    """Check the `apikey` and, where there is one, the bearer's token."""
    apikey = request.headers.get("apikey") or request.query_params.get("apikey")
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    if not apikey and not bearer:
        raise RequestError(401, "API key is missing")
    try:
        return identify(services.verifier, choose_token(bearer, apikey or bearer))
    except IdentityError as error:
        raise RequestError(401, error.text) from error


def _json(body: bytes) -> Any:
    try:
        return parse_json(body or b"{}")
    except ProtocolError as error:
        raise RequestError(400, "the body is no JSON") from error


def _messages(body: Any) -> list[Message]:
    """Read the messages of a batch."""
    listed = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise RequestError(422, "messages: must be a list")
    messages = []
    for one in listed:
        if not isinstance(one, dict) or not one.get("topic") or not one.get("event"):
            raise RequestError(422, "messages: each needs topic, event and payload")
        payload = to_json(one.get("payload", {}))
        private = one.get("private") is True
        messages.append(Message(str(one["topic"]), str(one["event"]), payload, private))
    return messages
