"""One joined topic of one socket: who listens, what it hears, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from pgfleet_local.realtime.database import Unreachable
from pgfleet_local.realtime.identity import Access, Identity, IdentityError, choose_token, identify
from pgfleet_local.realtime.listener import Sender
from pgfleet_local.realtime.presence import CallLimit
from pgfleet_local.realtime.protocol import EMPTY, Broadcast, Frame, Outgoing, Serializer, to_json
from pgfleet_local.realtime.services import Services
from pgfleet_local.realtime.subscriptions import Binding, SubscriptionError, bind, bind_topic
from pgfleet_local.realtime.topics import WIRE_PREFIX

logger = logging.getLogger(__name__)

# The hosted server looks at the expiry at least this often.
EXPIRY_CHECK_SECONDS = 300.0
RETRY_SECONDS = 5.0
REVOKED = "You no longer have permission to read from this Channel topic:"
SUBSCRIBED = "Subscribed to PostgreSQL"
REPLICATION_READY = "Replication connection established"


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """What a join asks for; whatever cannot be read counts as its default."""

    private: bool = False
    ack: bool = False
    echo: bool = False
    replication_ready: bool = False
    replay: bool = False
    presence: bool = False
    presence_key: str = ""
    bindings: tuple[Binding, ...] = ()


def read_config(payload: Mapping[str, Any], name: str) -> JoinConfig:
    """Read the `config` of a join; without one the topic's name says which rows it wants."""
    if "config" not in payload:
        return JoinConfig(presence_key=str(uuid.uuid4()), bindings=(bind_topic(name),))
    config = _mapping(payload.get("config"))
    broadcast = _mapping(config.get("broadcast"))
    presence = _mapping(config.get("presence"))
    asked = config.get("postgres_changes")
    return JoinConfig(
        private=_flag(config.get("private")),
        ack=_flag(broadcast.get("ack")),
        echo=_flag(broadcast.get("self")),
        replication_ready=_flag(broadcast.get("replication_ready")),
        replay="replay" in broadcast,
        presence=_flag(presence.get("enabled")),
        presence_key=str(presence.get("key") or uuid.uuid4()),
        bindings=tuple(bind(one) for one in asked if isinstance(one, Mapping))
        if isinstance(asked, list)
        else (),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flag(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


class Channel:
    """A joined channel."""

    def __init__(
        self,
        services: Services,
        sender: Sender,
        topic: str,
        join_ref: str | None,
        config: JoinConfig,
        identity: Identity,
    ) -> None:
        self.topic = topic
        self.name = topic.removeprefix(WIRE_PREFIX)
        self.join_ref = join_ref
        self.config = config
        self.identity = identity
        self._services = services
        self._sender = sender
        self._joined = False
        self._readable: frozenset[str] = frozenset()
        self._writable: dict[str, bool] = {}
        limit = services.options
        self._presence_calls = CallLimit(limit.presence_calls, limit.presence_seconds)
        self._held: Frame | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._subscribing: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None

    @property
    def private(self) -> bool:
        """Whether it listens to the private topic of its name."""
        return self.config.private

    @property
    def access(self) -> Access:
        """The role and claims of the present token."""
        return self.identity.access

    @property
    def serializer(self) -> Serializer:
        """The version of the wire format that the client reads."""
        return self._sender.serializer

    @property
    def hears_broadcasts(self) -> bool:
        """Whether broadcasts of its topic are for it."""
        return not self.private or "broadcast" in self._readable

    @property
    def hears_presence(self) -> bool:
        """Whether it may know who else is on its topic."""
        return not self.private or "presence" in self._readable

    # Beginning and end

    def start(self) -> None:
        """Begin to listen; call it after the join has been answered."""
        self._joined = True
        self._services.topics.add(self)
        self._watch_expiry()
        if not self._joined:
            return
        options, faults = self._services.options, self._services.faults
        if self.config.presence and self.hears_presence:
            state = self._services.presences.state(self)
            self._sender.push(Outgoing(self.topic, "presence_state", state))
        if self.config.bindings:
            self._subscribe_after(options.subscribe_delay + faults.subscribe_delay)
        if self.config.replication_ready:
            self._announcing = self._sender.spawn(self._announce_replication())

    def stop(self) -> None:
        """End listening without a word to the client."""
        self._joined = False
        self._services.topics.remove(self)
        self._services.presences.untrack(self)
        self._services.subscriptions.remove(self)
        if self._expiry is not None:
            self._expiry.cancel()
        for task in (self._subscribing, self._announcing):
            if task is not None:
                task.cancel()

    def close(self) -> None:
        """End listening and tell the client that the channel has closed."""
        self.stop()
        self._sender.forget(self)
        self._sender.push(
            Outgoing(self.topic, "phx_close", EMPTY, ref=self.join_ref, join_ref=self.join_ref)
        )

    def crash(self) -> None:
        """End listening with an error, after which clients join again."""
        self.stop()
        self._sender.forget(self)
        reason = to_json({"reason": "channel_crash"})
        self._sender.push(
            Outgoing(self.topic, "phx_error", reason, ref=self.join_ref, join_ref=self.join_ref)
        )

    def shut(self, message: str) -> None:
        """Tell the client what is wrong and close."""
        self.system("system", "error", message)
        self.close()

    # What the client hears

    def system(self, extension: str, status: str, message: str) -> None:
        """Push a `system` message."""
        payload = {
            "extension": extension,
            "status": status,
            "message": message,
            "channel": self.name,
        }
        self._sender.push(Outgoing(self.topic, "system", to_json(payload), join_ref=self.join_ref))

    def deliver(self, frame: Frame) -> None:
        """Send a broadcast or a change, unless a fault is switched on."""
        faults = self._services.faults
        if faults.lose_events:
            return
        if faults.reorder_events and self._held is None:
            self._held = frame
            return
        frames = [frame] if self._held is None else [frame, self._held]
        self._held = None
        for one in frames:
            for _ in range(2 if faults.duplicate_events else 1):
                self._sender.send(one)

    def hear(self, broadcast: Broadcast) -> None:
        """Push one broadcast to this client alone, past the faults."""
        frame = self.serializer.encode_broadcast(broadcast)
        if frame is not None:
            self._sender.send(frame)

    def confirm_live(self) -> None:
        """Say again that changes are heard, after the stream has been interrupted."""
        if self.config.bindings and self._subscribing is not None and self._subscribing.done():
            self.system("postgres_changes", "ok", SUBSCRIBED)
        if self.config.replication_ready and self._announcing is not None:
            if self._announcing.done():
                self.system("system", "ok", REPLICATION_READY)

    async def _announce_replication(self) -> None:
        await self._services.live.wait()
        self.system("system", "ok", REPLICATION_READY)

    # Changes

    def _subscribe_after(self, delay: float) -> None:
        """Subscribe anew; until it has settled the channel hears no changes."""
        self._services.subscriptions.remove(self)
        if self._subscribing is not None:
            self._subscribing.cancel()
        self._subscribing = self._sender.spawn(self._subscribe(delay))

    async def _subscribe(self, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            await self._services.live.wait()
            try:
                found = await self._services.check.subscribe(self, self.config.bindings)
            except SubscriptionError as error:
                self.system("postgres_changes", "error", str(error))
                return
            except Unreachable as error:
                logger.warning("cannot subscribe %s: %s", self.topic, error)
                self.system("postgres_changes", "error", "Too many database timeouts")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._services.subscriptions.replace(self, found)
            self.system("postgres_changes", "ok", SUBSCRIBED)
            return

    # Tokens

    async def refresh(self, payload: Mapping[str, Any]) -> None:
        """Take a new token; a good one is not answered, a bad one ends the channel."""
        sent = payload.get("access_token")
        if choose_token(sent, self.identity.token) == self.identity.token:
            return
        try:
            identity = identify(self._services.verifier, str(sent))
        except IdentityError as error:
            self.shut(error.text)
            return
        self.identity = identity
        self._writable = {}
        before = self._readable
        if self.config.private:
            await self.may_read()
            if before - self._readable:
                self.shut(f"{REVOKED} {self.name}")
                return
        self._watch_expiry()
        if self.config.bindings:
            self._subscribe_after(self._services.options.resubscribe_delay)

    async def may_read(self, *more: str) -> bool:
        """Ask the policies what of the private topic may be read with the present token."""
        asked = {"broadcast", *more, *self._readable}
        if self.config.presence:
            asked.add("presence")
        try:
            self._readable = await self._services.authorizer.readable(self.access, self.name, asked)
        except Unreachable:
            raise
        except psycopg.DatabaseError as error:
            logger.warning("cannot authorise %s: %s", self.topic, error)
            self._readable = frozenset()
        return bool(self._readable)

    def _watch_expiry(self) -> None:
        """Look again when the token ends, or after five minutes if that is sooner."""
        if self._expiry is not None:
            self._expiry.cancel()
        left = self.identity.expires_at - time.time()
        if left <= 0:
            self.shut(self.identity.expiry_text)
            return
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(min(left, EXPIRY_CHECK_SECONDS), self._watch_expiry)

    # What the client says

    async def broadcast(self, payload: Mapping[str, Any], ref: str | None) -> None:
        """Hand a client's broadcast to the others; only an acknowledged channel gets a reply."""
        if self.config.private and not await self._write_allowed("broadcast"):
            return
        content = payload.get("payload", {})
        body = content if isinstance(content, bytes) else to_json(content)
        if len(body) > self._services.options.max_broadcast_bytes:
            self.system("system", "error", "Payload size exceeds the limit")
            return
        event = str(payload.get("event", ""))
        compact = payload.get("compact") is True
        message = Broadcast(self.topic, event, body, compact=compact)
        self._services.topics.publish(
            self.name,
            self.config.private,
            message,
            only=lambda listener: listener is not self or self.config.echo,
        )
        if self.config.ack:
            self._answer(ref, "ok")

    async def presence(self, payload: Mapping[str, Any], ref: str | None) -> None:
        """Let the client be present, or no more, and answer; too many calls end the channel."""
        event = payload.get("event")
        if not isinstance(event, str):
            self._answer(ref, "ok")
        elif not self._presence_calls.take():
            self.shut("Client presence rate limit exceeded")
        elif event.lower() == "track":
            await self._track(payload.get("payload", {}), ref)
        elif event.lower() == "untrack":
            self._services.presences.untrack(self)
            self._answer(ref, "ok")
        else:
            self._answer(ref, "error")

    async def _track(self, told: Any, ref: str | None) -> None:
        if self.private and not await self._may_track():
            self._answer(ref, "error")
        elif not isinstance(told, Mapping):
            self._answer(ref, "error", reason="Presence track payload must be a map")
        elif len(to_json(told)) > self._services.options.max_broadcast_bytes:
            self.shut("Track message size exceeded")
        else:
            self._services.presences.track(self, self.config.presence_key, told)
            self._answer(ref, "ok")

    async def _may_track(self) -> bool:
        """Ask the policies; who may be present is asked too whether it may see the others."""
        if "presence" not in self._writable and "presence" not in self._readable:
            await self.may_read("presence")
        return await self._write_allowed("presence")

    def _answer(self, ref: str | None, status: str, **response: Any) -> None:
        self._sender.reply(self.topic, ref, self.join_ref, status, response)

    async def _write_allowed(self, extension: str) -> bool:
        """Ask the policies once per token."""
        if extension not in self._writable:
            try:
                self._writable[extension] = await self._services.authorizer.may_write(
                    self.access, self.name, extension
                )
            except Unreachable:
                raise
            except psycopg.DatabaseError as error:
                logger.warning("cannot authorise sending on %s: %s", self.topic, error)
                self._writable[extension] = False
        return self._writable[extension]
