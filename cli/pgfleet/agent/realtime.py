"""Hear the doorbell: a Realtime channel that is rebuilt whenever it might be deaf.

The official client is used for one session at a time and thrown away at the first sign of
trouble. Its own reconnecting is switched off: it gives up for good after a few attempts, has
no jitter, and a channel that it rejoins can be closed by the late close of the one before.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates
from realtime.types import RealtimeAcknowledgementStatus

from pgfleet.agent.backoff import Backoff, jittered
from pgfleet.agent.client import DeviceClient
from pgfleet.agent.enroll import Token
from pgfleet.agent.http import IdentityRefused
from pgfleet.agent.log import LineContext
from pgfleet.agent.settings import AgentSettings
from pgfleet.agent.tasks import first_to_end, within
from pgfleet.errors import FleetError

logger = logging.getLogger(__name__)

_TOKEN_TROUBLE = ("token", "jwt", "expired", "unauthorized", "permission")
_BUSY = ("too many", "ratelimit", "restarting")
_PATIENT_ATTEMPT = 3
_CLOSE_SECONDS = 5.0
_SECONDS_LEFT = 60.0


class SessionEnded(Exception):
    """A session can no longer be trusted to hear; it is to be rebuilt."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    @property
    def doubts_token(self) -> bool:
        """Tell whether the present token may be the reason."""
        return any(word in self.why.lower() for word in _TOKEN_TROUBLE)

    @property
    def asks_for_patience(self) -> bool:
        """Tell whether the server is overloaded."""
        return any(word in self.why.lower() for word in _BUSY)


@dataclass(frozen=True, slots=True)
class Signal:
    """Hold what a callback of the client heard."""

    kind: str
    detail: str = ""


# What a ring says in place of a command type where the geo actions of a device have changed.
GEO_ACTIONS = "geo_actions"


class Doorbell:
    """Keep a session open for one device, and ring its worker."""

    def __init__(
        self,
        client: DeviceClient,
        settings: AgentSettings,
        ring: Callable[[str], None],
        line: LineContext,
    ) -> None:
        self._client = client
        self._settings = settings
        self._ring = ring
        self._line = line
        self._healthy = False
        self.changed = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Tell whether the session has lately proved that it hears."""
        return self._healthy

    async def run(self) -> None:
        """Rebuild sessions for ever. Raises IdentityRefused when there is no use in it."""
        timing = self._settings.timing
        backoff = Backoff(timing.reconnect, timing.reconnect_limit)
        doubted: Token | None = None
        loop = asyncio.get_running_loop()
        while True:
            began, token = loop.time(), None
            try:
                self._line.connection = "connecting"
                token = await self._client.token(newer_than=doubted)
                doubted = None
                self._client.joins += 1
                session = Session(self._client, self._settings, self._hear)
                await session.run(token)
            except IdentityRefused:
                raise
            except SessionEnded as ended:
                why = ended.why
                if ended.doubts_token:
                    doubted = token
                if ended.asks_for_patience:
                    backoff.at_least(_PATIENT_ATTEMPT)
            except FleetError as error:
                why = error.message
            finally:
                self._line.connection = "offline"
                self._set_healthy(False)
            if loop.time() - began >= timing.stable:
                backoff.reset()
            delay = backoff.next_delay()
            logger.warning("connection lost: %s; connecting again in %.1f s", why, delay)
            await asyncio.sleep(delay)

    def _hear(self, signal: Signal) -> None:
        """Take what a session reports; anything but a probe is a reason to look."""
        if signal.kind == "probe":
            self._line.connection = "live"
            self._set_healthy(True)
            return
        if signal.kind == "joined":
            self._line.connection = "joined"
            logger.info("connected to %s", self._client.topic)
        elif signal.kind == "ready":
            self._line.connection = "live"
            logger.info("the doorbell is live")
        self._ring(f"{signal.kind} {signal.detail}".strip())

    def _set_healthy(self, healthy: bool) -> None:
        if healthy != self._healthy:
            self._healthy = healthy
            self.changed.set()


class Session:
    """Hold one disposable connection with the device's private channel on it."""

    def __init__(
        self, client: DeviceClient, settings: AgentSettings, hear: Callable[[Signal], None]
    ) -> None:
        self._client = client
        self._timing = settings.timing
        self._moved = client.moved
        self._hear = hear
        # Each session has a queue of its own: a CLOSED that the client reports late, for a
        # channel that was given up, ends in a queue that nobody reads.
        self._signals: asyncio.Queue[Signal] = asyncio.Queue()
        self._ready = asyncio.Event()
        # Whether broadcasts of ours are acknowledged; None until a probe has shown it.
        self._acknowledged: bool | None = None
        # The client walks its channels while it sends; a probe adds and removes one.
        self._sending = asyncio.Lock()
        self._probes = itertools.count(1)
        self._socket = AsyncRealtimeClient(
            f"{client.settings.url}/realtime/v1",
            token=client.settings.anon_key,
            auto_reconnect=False,
            max_retries=1,
            initial_backoff=1,
            timeout=self._timing.join,
        )

    async def run(self, token: Token) -> None:
        """Listen until something is wrong, which SessionEnded tells."""
        try:
            channel = await self._join(token)
            await first_to_end(
                self._pump(),
                self._wait_until_ready(),
                self._keep_token(),
                self._keep_probing(channel),
                self._until_moved(),
            )
        except (SessionEnded, FleetError):
            raise
        except Exception as error:
            # Whatever breaks inside the client costs this session and not the agent.
            logger.debug("the Realtime client broke", exc_info=True)
            raise SessionEnded(f"{type(error).__name__} {error}".strip()) from error
        finally:
            await asyncio.shield(self._discard())

    async def _until_moved(self) -> None:
        """End the session when the fleet lives elsewhere: nobody rings here any more."""
        await self._moved.wait()
        raise SessionEnded("the fleet has moved")

    async def _join(self, token: Token) -> AsyncRealtimeChannel:
        await self._socket.set_auth(token.value)
        config = {
            "broadcast": {"ack": True, "self": False, "replication_ready": True},
            "presence": {"key": "", "enabled": False},
            "private": True,
        }
        channel = self._socket.channel(self._client.topic, cast(Any, {"config": config}))
        channel.on_broadcast("command", self._on_broadcast)
        channel.on_system(lambda payload: self._put("system", payload.message))
        async with asyncio.timeout(2 * self._timing.join + 1):
            await self._socket.connect()
            await channel.subscribe(self._on_state)
        return channel

    # The client stops listening for good when a callback raises, so callbacks only put.

    def _on_broadcast(self, message: Any) -> None:
        payload = message.get("payload") if isinstance(message, dict) else None
        found = payload if isinstance(payload, dict) else {}
        if found.get("command_type") == GEO_ACTIONS:
            self._put("doorbell", "for geo actions")
        else:
            self._put("doorbell", f"for command {found.get('command_id', '')}")

    def _on_state(self, state: RealtimeSubscribeStates, error: Exception | None) -> None:
        self._put(state.value, "" if error is None else str(error))

    def _put(self, kind: str, detail: str) -> None:
        self._signals.put_nowait(Signal(kind, detail))

    async def _pump(self) -> None:
        """Pass on what the callbacks heard, until it is the end."""
        while True:
            signal = await self._signals.get()
            match signal.kind:
                case "doorbell":
                    self._hear(signal)
                case "SUBSCRIBED":
                    self._hear(Signal("joined"))
                case "system":
                    self._ready.set()
                    self._hear(Signal("ready"))
                case _:
                    # CHANNEL_ERROR, CLOSED and TIMED_OUT; each may be followed by others.
                    raise SessionEnded(f"{signal.kind} {signal.detail}".strip())

    async def _wait_until_ready(self) -> None:
        """Look once more where the server never says that it is ready to ring.

        What was sent between the join and that moment is not rung.
        """
        try:
            await within(self._timing.ready, self._ready.wait())
        except TimeoutError:
            self._hear(Signal("ready", "(not confirmed)"))
        await asyncio.Event().wait()

    async def _keep_token(self) -> None:
        """Send a fresh token when about 95 % of the present one's life is over.

        Of a short life a quarter is left, or a minute: a machine that is busy is not too late.
        """
        backoff = Backoff(self._timing.retry, self._timing.retry_limit)
        token = await self._client.token()
        while True:
            left = max(random.uniform(0.03, 0.07), min(0.25, _SECONDS_LEFT / token.lifetime))
            await asyncio.sleep(max(0.0, token.remaining - token.lifetime * left))
            try:
                token = await self._client.token(life_left=left + 0.01)
            except IdentityRefused:
                raise
            except FleetError as error:
                delay = backoff.next_delay()
                logger.warning("no new token: %s; trying again in %.1f s", error.message, delay)
                await asyncio.sleep(delay)
                continue
            backoff.reset()
            async with self._sending:
                await self._socket.set_auth(token.value)
            logger.debug("sent a fresh token")

    async def _keep_probing(self, channel: AsyncRealtimeChannel) -> None:
        """Ask the server for an answer now and then: a deaf socket looks like a quiet one."""
        while True:
            await asyncio.sleep(jittered(self._timing.probe))
            async with self._sending:
                answer = await self._probe(channel)
            if answer != "ok":
                raise SessionEnded(f"probe: {answer}")
            logger.debug("probe answered")
            self._hear(Signal("probe"))

    async def _probe(self, channel: AsyncRealtimeChannel) -> str:
        answer = "timeout"
        if self._acknowledged is not False:
            answer = await self._probe_channel(channel)
        if answer == "ok":
            self._acknowledged = True
        elif answer == "timeout" and not self._acknowledged:
            # A device that may hear but not send gets no acknowledgement at all.
            answer = await self._probe_socket()
            self._acknowledged = False
        return answer

    async def _probe_channel(self, channel: AsyncRealtimeChannel) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def settle(text: str) -> None:
            if not answer.done():
                answer.set_result(text)

        push = await channel.push(
            "broadcast", {"type": "broadcast", "event": "probe", "payload": {}}
        )
        push.receive(RealtimeAcknowledgementStatus.Ok, lambda _: settle("ok"))
        push.receive(RealtimeAcknowledgementStatus.Error, lambda reply: settle(str(reply)))
        return await self._answer_in_time(answer)

    async def _probe_socket(self) -> str:
        """Leave a topic that was never joined, which every server answers to everybody."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def on_state(state: RealtimeSubscribeStates, _: Exception | None) -> None:
            if not answer.done():
                answer.set_result("ok")

        nowhere = self._socket.channel(f"probe:{next(self._probes)}")
        nowhere.subscribe_callback = on_state
        await nowhere.unsubscribe()
        return await self._answer_in_time(answer)

    async def _answer_in_time(self, answer: asyncio.Future[str]) -> str:
        try:
            return await within(self._timing.probe_timeout, answer)
        except TimeoutError:
            return "timeout"

    async def _discard(self) -> None:
        """Throw the client away with the timers that its channels still have."""
        for channel in self._socket.get_channels():
            channel.rejoin_timer.reset()
            channel.join_push.destroy()
            for push in channel.messages_waiting_for_ack.values():
                push.destroy()
        try:
            await within(_CLOSE_SECONDS, self._socket.close())
        except Exception as error:
            # Nothing depends on a clean end of what is given up.
            logger.debug("closing the old connection: %s", error)
