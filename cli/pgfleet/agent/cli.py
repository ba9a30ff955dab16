"""pgfleet agent: the device side, from enrolment to a graceful end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import typer

from pgfleet import options, output
from pgfleet.agent import cli_options as opt
from pgfleet.agent import credentials, inspect, log, tracing
from pgfleet.agent.agent import Agent
from pgfleet.agent.enroll import enroll as enroll_device
from pgfleet.agent.events import EventFile
from pgfleet.agent.handlers.deploy.paths import Roots
from pgfleet.agent.http import IdentityRefused, loop_factory, make_client, make_clients
from pgfleet.agent.location.options import Locate, choose_source
from pgfleet.agent.settings import (
    AgentSettings,
    DeploySettings,
    Timing,
    default_state_dir,
    simulation_state_dir,
)
from pgfleet.agent.signals import stopping_on_signals
from pgfleet.agent.simulate import SimulatedWork, Simulation, device_folder, device_names
from pgfleet.agent.state import FolderLock, prepare
from pgfleet.errors import Conflict, InvalidInput
from pgfleet.output.logs import chosen_format

# EX_NOPERM of sysexits.h: a service manager must not start this identity again.
EXIT_REFUSED = 77

_TIMING = Timing()

app = options.Commands("The device side: enrol, run, inspect.")


class Stoppable(Protocol):
    """Something that runs until it is asked to stop."""

    async def run(self) -> None:
        """Run."""
        ...

    def stop(self) -> None:
        """Ask for the end."""
        ...


@dataclass(frozen=True, slots=True)
class _SimulationOptions:
    count: int
    prefix: str
    starts_per_second: float
    work: SimulatedWork


@app.command()
def run(
    url: opt.Url = None,
    anon_key: opt.AnonKey = None,
    functions_url: opt.FunctionsUrl = None,
    code: opt.Code = None,
    state_dir: opt.StateDir = None,
    hostname: opt.Hostname = None,
    allow_run_command: opt.AllowRunCommand = False,
    allow_environment: opt.AllowEnvironment = None,
    allow_install: opt.AllowInstall = False,
    deploy_root: opt.DeployRoot = None,
    bandwidth_kib: opt.BandwidthKib = None,
    handlers: opt.Handlers = None,
    concurrency: opt.Concurrency = 4,
    poll_seconds: opt.PollSeconds = None,
    probe_seconds: opt.ProbeSeconds = _TIMING.probe,
    reconnect_seconds: opt.ReconnectSeconds = _TIMING.reconnect,
    reconnect_limit_seconds: opt.ReconnectLimitSeconds = _TIMING.reconnect_limit,
    stop_seconds: opt.StopSeconds = _TIMING.stop,
    simulate: opt.Simulate = None,
    prefix: opt.Prefix = "sim",
    starts_per_second: opt.StartsPerSecond = 20.0,
    duration: opt.Duration = 0.1,
    failure_rate: opt.FailureRate = 0.0,
    location: opt.Location = None,
    location_program: opt.LocationProgram = None,
    location_walk: opt.LocationWalk = None,
    location_seconds: opt.LocationSeconds = _TIMING.location,
    block_apps: opt.BlockApps = True,
    events: opt.Events = None,
    events_fsync: opt.EventsFsync = False,
    log_level: opt.LogLevel = "INFO",
    log_file: opt.LogFile = None,
    log_format: opt.LogFormat = "text",
) -> None:
    """Run this device's agent until it is told to stop; ends with 77 if it was retired.

    Example: pgfleet agent run --url https://abc.supabase.co --anon-key KEY --code CODE
    """
    _configure_log(log_level, log_file, log_format)
    tracing.set_up("pgfleet-agent")
    folder = state_dir or default_state_dir()
    simulation = None
    if simulate is not None:
        folder = state_dir or simulation_state_dir()
        work = SimulatedWork(duration, failure_rate)
        simulation = _SimulationOptions(simulate, prefix, starts_per_second, work)
    settings = replace(
        _settings(url, anon_key, functions_url, code, folder, hostname, simulation),
        allow_run_command=allow_run_command,
        environment_allowed=frozenset(allow_environment or ()),
        deploy=_deploy_settings(deploy_root or [], allow_install, bandwidth_kib),
        handlers_dir=handlers,
        concurrency=concurrency,
        timing=Timing(
            poll=poll_seconds,
            probe=probe_seconds,
            reconnect=reconnect_seconds,
            reconnect_limit=reconnect_limit_seconds,
            stop=stop_seconds,
            location=location_seconds,
        ),
    )
    locate = choose_source(
        location,
        location_program,
        location_walk,
        is_simulation=simulation is not None,
        timeout=settings.timing.locate,
    )
    with _event_file(events, events_fsync) as file:
        try:
            devices = 1 if simulation is None else simulation.count
            with asyncio.Runner(loop_factory=loop_factory(devices)) as runner:
                runner.run(_run(settings, simulation, file, locate, block_apps))
        except IdentityRefused as error:
            output.show_error(error)
            raise typer.Exit(EXIT_REFUSED) from error


@app.command()
def enroll(
    code: opt.Code = None,
    url: opt.Url = None,
    anon_key: opt.AnonKey = None,
    functions_url: opt.FunctionsUrl = None,
    state_dir: opt.StateDir = None,
    hostname: opt.Hostname = None,
    force: opt.Force = False,
    log_level: opt.LogLevel = "INFO",
    as_json: opt.AsJson = False,
) -> None:
    """Trade an enrolment code for this device's identity, without running the agent.

    Example: pgfleet agent enroll --url https://abc.supabase.co --anon-key KEY --code CODE
    """
    _configure_log(log_level, None, "text")
    folder = state_dir or default_state_dir()
    settings = _settings(url, anon_key, functions_url, code, folder, hostname, None)
    prepare(folder)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        if credentials.load(folder) is not None and not force:
            raise Conflict(
                f"this device is enrolled already, in {folder}",
                reason="already_enrolled",
                hint="Pass --force to replace its identity.",
            )
        asyncio.run(_enroll(settings))
    finally:
        lock.release()
    with options.using(replace(options.current(), as_json=as_json)):
        output.show_row(inspect.describe(folder))


@app.command()
def status(state_dir: opt.StateDir = None, as_json: opt.AsJson = False) -> None:
    """Show this device's identity, journal and position, and if its agent runs; 1 if not enrolled.

    Example: pgfleet agent status --json
    """
    found = inspect.describe(state_dir or default_state_dir())
    with options.using(replace(options.current(), as_json=as_json)):
        output.show_row(found)
    if not found["enrolled"]:
        raise typer.Exit(1)


def _settings(
    url: str | None,
    anon_key: str | None,
    functions_url: str | None,
    code: str | None,
    folder: Path,
    hostname: str | None,
    simulation: _SimulationOptions | None,
) -> AgentSettings:
    """Take what was given, and what enrolment stored for the rest."""
    stored = None
    if not (url and anon_key):
        first = folder
        if simulation is not None:
            names = device_names(simulation.prefix, simulation.count)
            first = device_folder(folder, names[0])
        stored = credentials.load(first)
    if stored is not None:
        functions_url = functions_url or (stored.functions_url if not url else None)
        url, anon_key = url or stored.url, anon_key or stored.anon_key
    return AgentSettings(
        url=url or "",
        anon_key=anon_key or "",
        functions_url=functions_url or "",
        code=code or None,
        state_dir=folder,
        hostname=hostname or socket.gethostname(),
    )


def _deploy_settings(
    roots: list[str], allow_install: bool, bandwidth_kib: float | None
) -> DeploySettings:
    """Read what deployments may do here."""
    found: dict[str, Path] = {}
    for text in roots:
        where, equals, folder = text.partition("=")
        if not equals or not folder or not Path(folder).expanduser().is_absolute():
            raise InvalidInput(
                f"deploy-root: {text!r} is not WHERE=FOLDER with an absolute folder",
                reason="deploy_root_invalid",
                hint="Write --deploy-root C:=/srv/c or --deploy-root /etc/app=/etc/app.",
            )
        found[where] = Path(folder).expanduser()
    Roots(found)
    return DeploySettings(
        roots=found,
        allow_install=allow_install,
        bytes_per_second=None if bandwidth_kib is None else bandwidth_kib * 1024,
    )


def _configure_log(level: str, file: Path | None, log_format: str) -> None:
    name = {"WARNING": "WARN"}.get(level.upper(), level.upper())
    if name not in log.LEVELS:
        raise InvalidInput(
            f"log-level: {level!r} is none of {', '.join(log.LEVELS)}", reason="log_level_invalid"
        )
    log.configure(name, file, as_json=chosen_format(log_format) == "json")


@contextmanager
def _event_file(path: Path | None, durable: bool) -> Iterator[EventFile | None]:
    if path is None:
        yield None
        return
    file = EventFile(path, durable=durable)
    try:
        yield file
    finally:
        file.close()


async def _run(
    settings: AgentSettings,
    simulation: _SimulationOptions | None,
    events: EventFile | None,
    locate: Locate | None,
    blocks_apps: bool,
) -> None:
    devices = 1 if simulation is None else simulation.count
    async with make_clients(settings.timing.request, devices) as clients:
        body: Stoppable
        if simulation is None:
            source = None if locate is None else locate(settings.hostname)
            body = Agent(
                settings, clients[0], events=events, location=source, blocks_apps=blocks_apps
            )
        else:
            body = Simulation(
                settings,
                clients,
                count=simulation.count,
                prefix=simulation.prefix,
                starts_per_second=simulation.starts_per_second,
                work=simulation.work,
                events=events,
                locate=locate,
            )
        with stopping_on_signals(body.stop):
            await body.run()


async def _enroll(settings: AgentSettings) -> None:
    async with make_client(settings.timing.request) as http:
        await enroll_device(settings, http)
