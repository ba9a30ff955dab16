"""Many devices in one process, each with its own identity, journal and socket."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from pgfleet.agent import credentials
from pgfleet.agent.agent import Agent
from pgfleet.agent.events import EventFile
from pgfleet.agent.handlers.interface import Handler, HandlerContext, HandlerFailed
from pgfleet.agent.handlers.registry import HandlerRegistry, Handlers
from pgfleet.agent.location.options import Locate
from pgfleet.agent.settings import AgentSettings, DeploySettings
from pgfleet.agent.tasks import within
from pgfleet.errors import FleetError, InvalidInput, NotSignedIn

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SimulatedWork:
    """Describe what a simulated handler does: how long it takes and how often it fails."""

    duration: float = 0.1
    failure_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.duration < 0:
            raise InvalidInput("duration must be 0 or more", reason="duration_invalid")
        if not 0 <= self.failure_rate <= 1:
            raise InvalidInput("failure-rate must be from 0 to 1", reason="failure_rate_invalid")


class SimulatedHandlers:
    """Carry out any command type by waiting, and failing now and then.

    Where there are deploy roots, files and software are deployed in earnest.
    """

    def __init__(self, work: SimulatedWork, deploys: Handlers | None = None) -> None:
        self._work = work
        self._deploys = deploys

    def find(self, command_type: str) -> Handler:
        """Give the same handler for every type but those that deploy."""
        if self._deploys is not None and command_type in ("deploy_files", "deploy_software"):
            return self._deploys.find(command_type)
        return self._wait

    async def _wait(self, context: HandlerContext, payload: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self._work.duration)
        if random.random() < self._work.failure_rate:
            raise HandlerFailed("simulated failure")
        return {"simulated": True, "duration": self._work.duration}


class Simulation:
    """Run `count` devices named `<prefix>-0001` and so on, until `stop`."""

    def __init__(
        self,
        settings: AgentSettings,
        clients: Sequence[httpx.AsyncClient],
        *,
        count: int,
        prefix: str,
        starts_per_second: float,
        work: SimulatedWork,
        events: EventFile | None,
        locate: Locate | None = None,
    ) -> None:
        self._settings = settings
        self._clients = itertools.cycle(clients)
        self._names = device_names(prefix, count)
        self._pause = 1 / starts_per_second
        self._handlers = SimulatedHandlers(
            work, HandlerRegistry(settings) if settings.deploy.roots else None
        )
        self._events = events
        self._locate = locate
        self._agents: list[Agent] = []
        self._stop = asyncio.Event()
        self._refusals: list[FleetError] = []
        self._require_code()

    def stop(self) -> None:
        """Ask every device for a graceful end."""
        self._stop.set()
        for agent in self._agents:
            agent.stop()

    async def run(self) -> None:
        """Start one device after the other, and wait for all of them.

        A device that is refused ends alone. Raises its FleetError when all were refused.
        """
        running: list[asyncio.Task[None]] = []
        for name in self._names:
            if self._stop.is_set():
                break
            running.append(asyncio.create_task(self._run_one(name)))
            await self._wait(self._pause)
        logger.info("%d devices started", len(running))
        await asyncio.gather(*running)
        if running and len(self._refusals) == len(running):
            raise self._refusals[0]

    async def _run_one(self, name: str) -> None:
        settings = replace(
            self._settings,
            hostname=name,
            state_dir=device_folder(self._settings.state_dir, name),
            deploy=_own_roots(self._settings.deploy, name),
        )
        agent = Agent(
            settings,
            next(self._clients),
            handlers=self._handlers,
            events=self._events,
            location=None if self._locate is None else self._locate(name),
        )
        self._agents.append(agent)
        if self._stop.is_set():
            return
        try:
            await agent.run()
        except FleetError as error:
            logger.error("%s ended: %s", name, error.message)
            self._refusals.append(error)
        except Exception:
            # One device that breaks must not take the others with it.
            logger.exception("%s broke", name)

    def _require_code(self) -> None:
        """Refuse at once when a device could not enrol, rather than each on its own later."""
        if self._settings.code is not None:
            return
        for name in self._names:
            if credentials.load(device_folder(self._settings.state_dir, name)) is None:
                raise NotSignedIn(
                    f"{name} is not enrolled and there is no code",
                    reason="not_enrolled",
                    hint=f"Make a code for {len(self._names)} devices and pass it with --code.",
                )

    async def _wait(self, seconds: float) -> None:
        try:
            await within(seconds, self._stop.wait())
        except TimeoutError:
            return


def _own_roots(deploy: DeploySettings, name: str) -> DeploySettings:
    """Give each simulated device folders of its own below the roots."""
    roots = {root: path / name for root, path in deploy.roots.items()}
    for path in roots.values():
        path.mkdir(parents=True, exist_ok=True)
    return replace(deploy, roots=roots)


def device_folder(state_dir: Path, name: str) -> Path:
    """Give the state folder of one simulated device."""
    return state_dir / name


def device_names(prefix: str, count: int) -> list[str]:
    """Name the devices of a simulation."""
    if not 1 <= count <= 9999:
        raise InvalidInput("simulate must be from 1 to 9999", reason="simulate_invalid")
    return [f"{prefix}-{number:04}" for number in range(1, count + 1)]
