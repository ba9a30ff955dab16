"""One WebSocket: check it at the door, read its frames in order, write what its channels push."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from pgfleet_local.realtime.channels import Channel, read_config
from pgfleet_local.realtime.database import Unreachable
from pgfleet_local.realtime.identity import IdentityError, identify, token_of_join
from pgfleet_local.realtime.listener import Listener
from pgfleet_local.realtime.protocol import (
    EMPTY,
    Frame,
    Incoming,
    Outgoing,
    ProtocolError,
    Serializer,
    to_json,
)
from pgfleet_local.realtime.services import Services
from pgfleet_local.realtime.topics import WIRE_PREFIX

logger = logging.getLogger(__name__)

NO_DATABASE = "UnableToConnectToProject: Realtime was unable to connect to the project database"


NO_REPLAY = "UnableToReplayMessages: the local platform does not replay broadcasts"


class Refused(Exception):
    """Raised when a join asks for what cannot be had; the text is the reason in its answer."""


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Written after all frames before it: close with this code."""

    code: int


class Socket:
    """An accepted connection and its channels."""

    def __init__(
        self, services: Services, websocket: WebSocket, serializer: Serializer, apikey: str
    ) -> None:
        self.serializer = serializer
        self.channels: dict[str, Channel] = {}
        self._services = services
        self._websocket = websocket
        self._apikey = apikey
        self._outbox: asyncio.Queue[Frame | Goodbye] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut = asyncio.Event()

    # Life

    async def serve(self) -> None:
        """Work until either side ends the connection; returning without a close cuts it."""
        waits = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._write()),
            asyncio.create_task(self._cut.wait()),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (WebSocketDisconnect, RuntimeError) as error:
            logger.debug("socket ended: %r", error)
        finally:
            for channel in list(self.channels.values()):
                channel.stop()
            self.channels.clear()
            running = [*waits, *self._tasks]
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def cut(self) -> None:
        """End the connection without a close frame, as a broken network does."""
        self._cut.set()

    def close(self, code: int) -> None:
        """Close the connection after what has been pushed before."""
        self._outbox.put_nowait(Goodbye(code))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work of a channel that ends with the socket."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a channel's work failed", exc_info=task.exception())

    # Writing

    def send(self, frame: Frame) -> None:
        """Queue a frame; a client that does not read is cut off."""
        if self._outbox.qsize() >= self._services.options.max_queued_frames:
            logger.warning("a client does not read its frames: cut off")
            self.cut()
            return
        self._outbox.put_nowait(frame)

    def push(self, message: Outgoing) -> None:
        """Queue a message."""
        self.send(self.serializer.encode(message))

    def reply(
        self,
        topic: str,
        ref: str | None,
        join_ref: str | None,
        status: str,
        response: Mapping[str, Any],
    ) -> None:
        """Queue the answer to a client's message."""
        payload = to_json({"status": status, "response": response})
        self.push(Outgoing(topic, "phx_reply", payload, ref=ref, join_ref=join_ref))

    async def _write(self) -> None:
        while True:
            frame = await self._outbox.get()
            await self._services.faults.thawed()
            if isinstance(frame, Goodbye):
                await self._websocket.close(frame.code)
                return
            if isinstance(frame, bytes):
                await self._websocket.send_bytes(frame)
            else:
                await self._websocket.send_text(frame)

    # Reading

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._services.options.idle_timeout):
                    received = await self._websocket.receive()
            except TimeoutError:
                self.close(1000)
                return await self._stay()
            if received["type"] == "websocket.disconnect":
                return
            await self._services.faults.thawed()
            frame = received.get("text")
            try:
                message = self.serializer.decode(received["bytes"] if frame is None else frame)
            except ProtocolError as error:
                logger.warning("malformed frame ignored: %s", error)
                continue
            await self._handle(message)

    async def _stay(self) -> None:
        """Wait for the writer, which ends the connection."""
        await asyncio.Event().wait()

    async def _handle(self, message: Incoming) -> None:
        """Answer one message; a database that is away does not end the socket."""
        if message.topic == "phoenix":
            if message.event == "heartbeat":
                self.reply("phoenix", message.ref, None, "ok", {})
            return
        if message.event == "phx_join":
            await self._join(message)
            return
        channel = self.channels.get(message.topic)
        if channel is None:
            self._answer_unjoined(message)
            return
        if message.event == "phx_leave":
            self.reply(message.topic, message.ref, channel.join_ref, "ok", {})
            channel.close()
            return
        try:
            if message.event == "access_token":
                await channel.refresh(message.payload)
            elif message.event == "broadcast":
                await channel.broadcast(message.payload, message.ref)
            elif message.event == "presence":
                await channel.presence(message.payload, message.ref)
        except Unreachable as error:
            logger.warning("%s on %s: %s", message.event, message.topic, error)
            channel.shut("Realtime was unable to connect to the project database")

    def _answer_unjoined(self, message: Incoming) -> None:
        """Answer for a topic that is not joined; a leave is fine, all else is not."""
        if message.event == "phx_leave":
            self.reply(message.topic, message.ref, message.join_ref, "ok", {})
        else:
            reason = {"reason": "unmatched topic"}
            self.reply(message.topic, message.ref, message.join_ref, "error", reason)

    # Joining

    async def _join(self, message: Incoming) -> None:
        """Answer a join; as on the hosted server the socket does nothing else meanwhile."""
        faults = self._services.faults
        if faults.ignore_joins:
            return
        await asyncio.sleep(faults.join_delay)
        refused = faults.join_error or self._refuse_topic(message.topic)
        try:
            channel = None if refused else await self._admit(message)
        except IdentityError as error:
            channel, refused = None, f"{error.code}: {error.text}"
        except Refused as error:
            channel, refused = None, str(error)
        except Unreachable as error:
            logger.warning("join of %s: %s", message.topic, error)
            channel, refused = None, NO_DATABASE
        if channel is None:
            name = message.topic.removeprefix(WIRE_PREFIX)
            refused = refused or (
                "Unauthorized: You do not have permissions to read from this Channel topic: " + name
            )
            await asyncio.sleep(self._services.options.join_error_delay)
            reason = {"reason": refused}
            self.reply(message.topic, message.ref, message.join_ref, "error", reason)
            return
        self._enter(channel, message)

    def _refuse_topic(self, topic: str) -> str | None:
        if not topic.startswith(WIRE_PREFIX):
            return "unmatched topic"
        if topic == WIRE_PREFIX:
            return "TopicNameRequired: You must provide a topic name"
        full = len(self.channels) >= self._services.options.max_channels
        return "ChannelRateLimitReached: Too many channels" if full else None

    async def _admit(self, message: Incoming) -> Channel | None:
        """Verify the token, and for a private topic ask the policies; None means refused."""
        token = token_of_join(message.payload, self._apikey)
        config = read_config(message.payload, message.topic.removeprefix(WIRE_PREFIX))
        if config.replay:
            raise Refused(NO_REPLAY)
        channel = Channel(
            self._services,
            self,
            message.topic,
            message.join_ref,
            config,
            identify(self._services.verifier, token),
        )
        if channel.config.private and not await channel.may_read():
            return None
        return channel

    def _enter(self, channel: Channel, message: Incoming) -> None:
        """End an earlier join of the topic, answer the new one, then close the earlier."""
        earlier = self.channels.pop(message.topic, None)
        if earlier is not None:
            earlier.stop()
        self.channels[message.topic] = channel
        echoed = [binding.echo() for binding in channel.config.bindings]
        self.reply(message.topic, message.ref, channel.join_ref, "ok", {"postgres_changes": echoed})
        if earlier is not None:
            ref = earlier.join_ref
            self.push(Outgoing(message.topic, "phx_close", EMPTY, ref=ref, join_ref=ref))
        channel.start()

    def forget(self, listener: Listener) -> None:
        """Drop a channel that has ended, unless another has taken its topic."""
        if self.channels.get(listener.topic) is listener:
            del self.channels[listener.topic]
