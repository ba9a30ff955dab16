"""Put the parts together: routes for the gateway, and the readers that run beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from pgfleet_local.background import keep_running
from pgfleet_local.realtime.authorize import Authorizer
from pgfleet_local.realtime.changes import ChangeReader
from pgfleet_local.realtime.channels import Channel
from pgfleet_local.realtime.database import Database
from pgfleet_local.realtime.delivery import ChangeDelivery
from pgfleet_local.realtime.faults import FaultError, Faults
from pgfleet_local.realtime.http import BroadcastApi, FaultApi
from pgfleet_local.realtime.identity import IdentityError, identify
from pgfleet_local.realtime.messages import PartitionJanitor, is_message, publish_message
from pgfleet_local.realtime.options import RealtimeOptions
from pgfleet_local.realtime.pgoutput import Change, TableShape
from pgfleet_local.realtime.protocol import SERIALIZERS, Broadcast, to_json
from pgfleet_local.realtime.services import Services
from pgfleet_local.realtime.sockets import Socket
from pgfleet_local.realtime.subscriptions import SubscriptionCheck
from pgfleet_local.realtime.transport import silence_pings_while
from pgfleet_local.tokens import TokenVerifier

DEFAULT_VERSION = "1.0.0"
# More than the official Python client takes in one frame.
OVERSIZE_BYTES = 1_100_000


class Realtime:
    """The stand-in for the hosted Realtime server.

    The routes belong under `/realtime/v1`; `running` must surround the time they are served.
    """

    def __init__(
        self, admin_url: str, verifier: TokenVerifier, options: RealtimeOptions | None = None
    ) -> None:
        options = options or RealtimeOptions()
        self._database = Database(admin_url, options.database_timeout)
        self._services = Services(
            options, verifier, Authorizer(self._database), SubscriptionCheck(self._database)
        )
        self._delivery = ChangeDelivery(
            self._database, self._services.subscriptions, options.max_record_bytes
        )
        self._reader = ChangeReader(
            self._database,
            options,
            self._services.live,
            wanted=self._wanted,
            on_change=self._take,
            on_live=self._announce,
        )
        self._sockets: set[Socket] = set()

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes, relative to `/realtime/v1`."""
        broadcasts = BroadcastApi(self._services)
        faults = FaultApi(self._services, self.strike)
        single = "/api/broadcast/{topic:path}/events/{event:path}"
        return [
            WebSocketRoute("/websocket", self._accept),
            Route("/api/broadcast", broadcasts.batch, methods=["POST"]),
            Route(single, broadcasts.single, methods=["POST"]),
            Route("/faults", faults.handle, methods=["GET", "POST", "DELETE"]),
        ]

    @property
    def faults(self) -> Faults:
        """The fault switches."""
        return self._services.faults

    @property
    def live(self) -> asyncio.Event:
        """Set while changes are being read."""
        return self._services.live

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read changes and keep partitions until the block ends, then close every socket."""
        async with self._database.running():
            jobs = {
                "reading changes": self._reader.run,
                "delivering changes": self._delivery.run,
                "keeping partitions": PartitionJanitor(self._database).run,
            }
            work = [asyncio.create_task(keep_running(name, job)) for name, job in jobs.items()]
            try:
                yield
            finally:
                for socket in list(self._sockets):
                    socket.close(1012)
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)

    def strike(self, action: str, settings: Mapping[str, Any]) -> int:
        """Do damage now and return how many sockets or channels it hit.

        - `drop`: cut the connections; `close`: close them with `code` (1012).
        - `phx_close`, `phx_error`, `expire`: end channels so, the last as an old token does.
        - `system_error`: push `message` to channels, and close them if `close` is true.
        - `oversize`: push a frame larger than the official Python client takes.

        With `topic` only channels of that name are hit.
        """
        if action in ("drop", "close"):
            hit = list(self._sockets)
            for socket in hit:
                if action == "drop":
                    socket.cut()
                else:
                    socket.close(int(settings.get("code", 1012)))
            return len(hit)
        channels = self._channels(settings.get("topic"))
        for channel in channels:
            _strike_channel(channel, action, settings)
        return len(channels)

    def _channels(self, name: Any) -> list[Channel]:
        """Return the joined channels, all or those of one topic."""
        every = [one for socket in self._sockets for one in socket.channels.values()]
        return [one for one in every if name is None or one.name == name]

    async def _accept(self, websocket: WebSocket) -> None:
        """Check an upgrade and serve the socket."""
        version = websocket.query_params.get("vsn", DEFAULT_VERSION)
        apikey = websocket.headers.get("x-api-key") or websocket.query_params.get("apikey", "")
        refusal = self._refusal(version, apikey)
        if refusal is not None:
            status, text = refusal
            await asyncio.sleep(self._services.options.refusal_delay)
            answer = JSONResponse({"error": text}, status_code=status)
            await websocket.send_denial_response(answer)
            return
        await websocket.accept()
        silence_pings_while(websocket.scope, lambda: self.faults.frozen)
        socket = Socket(self._services, websocket, SERIALIZERS[version], apikey)
        self._sockets.add(socket)
        try:
            await socket.serve()
        finally:
            self._sockets.discard(socket)

    def _refusal(self, version: str, apikey: str) -> tuple[int, str] | None:
        """Return status and text when the upgrade must be refused."""
        faults, options = self.faults, self._services.options
        if faults.refuse_status is not None:
            return faults.refuse_status, "Error connecting to Realtime"
        if version not in SERIALIZERS:
            return 403, "Unsupported serializer version"
        if not apikey:
            return 401, "API key is missing"
        try:
            identify(self._services.verifier, apikey)
        except IdentityError as error:
            expired = error.text.startswith("Token has expired")
            return 401, "Token has expired" if expired else error.text
        if len(self._sockets) >= options.max_connections:
            return 429, "Too many connected users"
        return None

    # The change stream

    def _wanted(self, table: TableShape) -> bool:
        if is_message(table):
            return True
        return bool(self._services.subscriptions.on_table(table.schema, table.name))

    def _take(self, change: Change) -> None:
        if is_message(change.table):
            publish_message(self._services.topics, change)
        else:
            self._delivery.enqueue(change)

    def _announce(self) -> None:
        for channel in self._channels(None):
            channel.confirm_live()


def _strike_channel(channel: Channel, action: str, settings: Mapping[str, Any]) -> None:
    """Do one kind of damage to one channel."""
    if action == "phx_close":
        channel.close()
    elif action == "phx_error":
        channel.crash()
    elif action == "expire":
        channel.shut(channel.identity.expiry_text)
    elif action == "system_error":
        message = str(settings.get("message", "Too many database timeouts"))
        extension = str(settings.get("extension", "postgres_changes"))
        channel.system(extension, "error", message)
        if settings.get("close") is True:
            channel.close()
    elif action == "oversize":
        payload = to_json({"filler": "x" * OVERSIZE_BYTES})
        broadcast = Broadcast(channel.topic, str(settings.get("event", "command")), payload)
        channel.hear(broadcast)
    else:
        raise FaultError(f'there is no damage called "{action}"')
