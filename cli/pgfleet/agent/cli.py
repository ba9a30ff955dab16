"""pgfleet agent: the device side, from enrolment to a graceful end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Protocol

import typer

from pgfleet import options, output
from pgfleet.agent import credentials, inspect, log
from pgfleet.agent.agent import Agent
from pgfleet.agent.enroll import enroll as enroll_device
from pgfleet.agent.events import EventFile
from pgfleet.agent.http import IdentityRefused, make_client
from pgfleet.agent.settings import AgentSettings, Timing, default_state_dir
from pgfleet.agent.simulate import SimulatedWork, Simulation, device_folder, device_names
from pgfleet.agent.state import FolderLock, prepare
from pgfleet.errors import Conflict, InvalidInput

# EX_NOPERM of sysexits.h: a service manager must not start this identity again.
EXIT_REFUSED = 77

app = typer.Typer(
    help="The device side: enrol, run, inspect.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="PGFLEET_URL", help="Address of the project's API."),
]
AnonKey = Annotated[
    str | None,
    typer.Option("--anon-key", envvar="PGFLEET_ANON_KEY", help="The anon or publishable key."),
]
FunctionsUrl = Annotated[
    str | None,
    typer.Option(
        "--functions-url",
        envvar="PGFLEET_FUNCTIONS_URL",
        help="Address of the functions; URL/functions/v1 unless given.",
    ),
]
Code = Annotated[
    str | None,
    typer.Option(
        "--code", envvar="PGFLEET_ENROLLMENT_CODE", help="Enrolment code, for the first start."
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir", envvar="PGFLEET_STATE_DIR", help="Folder for the secret and the journal."
    ),
]
Hostname = Annotated[
    str | None, typer.Option("--hostname", help="Name to enrol under; this machine's by default.")
]
LogLevel = Annotated[
    str,
    typer.Option("--log-level", envvar="PGFLEET_LOG_LEVEL", help="DEBUG, INFO, WARN or ERROR."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    url: Url = None,
    anon_key: AnonKey = None,
    functions_url: FunctionsUrl = None,
    code: Code = None,
    state_dir: StateDir = None,
    hostname: Hostname = None,
    allow_run_command: Annotated[
        bool,
        typer.Option(
            "--allow-run-command",
            envvar="PGFLEET_ALLOW_RUN_COMMAND",
            help="Let operators run any command here.",
        ),
    ] = False,
    handlers: Annotated[
        Path | None,
        typer.Option(
            "--handlers", envvar="PGFLEET_HANDLERS", help="Folder of programs, one a command type."
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="How many commands may run at once.")
    ] = 4,
    poll_seconds: Annotated[
        float | None,
        typer.Option(
            "--poll-seconds", min=0.1, help="Look this often without a ring; the server's wish."
        ),
    ] = None,
    probe_seconds: Annotated[
        float, typer.Option("--probe-seconds", min=0.1, help="Test the doorbell this often.")
    ] = Timing().probe,
    reconnect_seconds: Annotated[
        float, typer.Option("--reconnect-seconds", min=0.05, help="First pause to reconnect.")
    ] = Timing().reconnect,
    reconnect_limit_seconds: Annotated[
        float, typer.Option("--reconnect-limit-seconds", min=0.05, help="Longest such pause.")
    ] = Timing().reconnect_limit,
    stop_seconds: Annotated[
        float, typer.Option("--stop-seconds", min=0, help="Wait this long for running commands.")
    ] = Timing().stop,
    simulate: Annotated[
        int | None, typer.Option("--simulate", min=1, help="Be this many devices.")
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", help="Simulated devices are PREFIX-0001 and so on.")
    ] = "sim",
    starts_per_second: Annotated[
        float, typer.Option("--starts-per-second", min=0.1, help="How fast simulated ones start.")
    ] = 20.0,
    duration: Annotated[
        float, typer.Option("--duration", min=0, help="Seconds that a simulated handler takes.")
    ] = 0.1,
    failure_rate: Annotated[
        float, typer.Option("--failure-rate", min=0, max=1, help="Share of them that fails.")
    ] = 0.0,
    events: Annotated[
        Path | None, typer.Option("--events", help="File for handler entries and exits (JSON).")
    ] = None,
    events_fsync: Annotated[
        bool, typer.Option("--events-fsync", help="Sync each of these lines to disk.")
    ] = False,
    log_level: LogLevel = "INFO",
    log_file: Annotated[
        Path | None, typer.Option("--log-file", help="Log to this file, not to stderr.")
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:
    """Run this device's agent until it is told to stop; ends with 77 if it was retired.

    \b
    Example: pgfleet agent run --url https://abc.supabase.co --anon-key KEY --code CODE
    """
    _configure_log(log_level, log_file, log_json)
    folder = state_dir or default_state_dir()
    simulation = None
    if simulate is not None:
        work = SimulatedWork(duration, failure_rate)
        simulation = _SimulationOptions(simulate, prefix, starts_per_second, work)
    settings = replace(
        _settings(url, anon_key, functions_url, code, folder, hostname, simulation),
        allow_run_command=allow_run_command,
        handlers_dir=handlers,
        concurrency=concurrency,
        timing=Timing(
            poll=poll_seconds,
            probe=probe_seconds,
            reconnect=reconnect_seconds,
            reconnect_limit=reconnect_limit_seconds,
            stop=stop_seconds,
        ),
    )
    with _event_file(events, events_fsync) as file:
        try:
            asyncio.run(_run(settings, simulation, file))
        except IdentityRefused as error:
            output.show_error(error)
            raise typer.Exit(EXIT_REFUSED) from error


@app.command()
def enroll(
    code: Code = None,
    url: Url = None,
    anon_key: AnonKey = None,
    functions_url: FunctionsUrl = None,
    state_dir: StateDir = None,
    hostname: Hostname = None,
    force: Annotated[
        bool, typer.Option("--force", help="Enrol again where the device has an identity.")
    ] = False,
    log_level: LogLevel = "INFO",
    as_json: AsJson = False,
) -> None:
    """Trade an enrolment code for this device's identity, without running the agent.

    \b
    Example: pgfleet agent enroll --url https://abc.supabase.co --anon-key KEY --code CODE
    """
    _configure_log(log_level, None, False)
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
def status(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show this device's identity and journal, and whether its agent runs; 1 if not enrolled.

    \b
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


def _configure_log(level: str, file: Path | None, as_json: bool) -> None:
    name = {"WARNING": "WARN"}.get(level.upper(), level.upper())
    if name not in log.LEVELS:
        raise InvalidInput(
            f"log-level: {level!r} is none of {', '.join(log.LEVELS)}", reason="log_level_invalid"
        )
    log.configure(name, file, as_json=as_json)


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
    settings: AgentSettings, simulation: _SimulationOptions | None, events: EventFile | None
) -> None:
    connections = 100 if simulation is None else max(100, simulation.count)
    async with make_client(settings.timing.request, connections) as http:
        body: Stoppable
        if simulation is None:
            body = Agent(settings, http, events=events)
        else:
            body = Simulation(
                settings,
                http,
                count=simulation.count,
                prefix=simulation.prefix,
                starts_per_second=simulation.starts_per_second,
                work=simulation.work,
                events=events,
            )
        with _stopping_on_signals(body.stop):
            await body.run()


async def _enroll(settings: AgentSettings) -> None:
    async with make_client(settings.timing.request) as http:
        await enroll_device(settings, http)


@contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Turn the first signal into a graceful end, and let a second one end at once."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def ask(number: int, _: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, before[one])
        loop.call_soon_threadsafe(stop)

    before: dict[signal.Signals, Any] = {one: signal.getsignal(one) for one in signals}
    for one in signals:
        signal.signal(one, ask)
    try:
        yield
    finally:
        for one in signals:
            signal.signal(one, before[one])
