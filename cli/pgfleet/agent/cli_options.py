"""What can be said to `pgfleet agent`, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
AllowRunCommand = Annotated[
    bool,
    typer.Option(
        "--allow-run-command",
        envvar="PGFLEET_ALLOW_RUN_COMMAND",
        help="Let operators run any command here.",
    ),
]
AllowEnvironment = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-environment",
        envvar="PGFLEET_ALLOW_ENVIRONMENT",
        metavar="NAME",
        help="A variable that run_command may set; repeatable.",
    ),
]
DeployRoot = Annotated[
    list[str] | None,
    typer.Option(
        "--deploy-root",
        envvar="PGFLEET_DEPLOY_ROOTS",
        metavar="WHERE=FOLDER",
        help="Let deployments write here: C:=/srv/c, or /etc/app=/etc/app; repeatable.",
    ),
]
AllowInstall = Annotated[
    bool,
    typer.Option(
        "--allow-install",
        envvar="PGFLEET_ALLOW_INSTALL",
        help="Let deployments run installers here.",
    ),
]
BandwidthKib = Annotated[
    float | None,
    typer.Option(
        "--bandwidth-kib",
        envvar="PGFLEET_BANDWIDTH_KIB",
        min=1,
        help="Download at most so many KiB a second.",
    ),
]
Handlers = Annotated[
    Path | None,
    typer.Option(
        "--handlers", envvar="PGFLEET_HANDLERS", help="Folder of programs, one a command type."
    ),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, help="How many commands may run at once.")
]
PollSeconds = Annotated[
    float | None,
    typer.Option(
        "--poll-seconds",
        min=0.1,
        help="Look this often without a ring; otherwise as the server wishes.",
    ),
]
ProbeSeconds = Annotated[
    float, typer.Option("--probe-seconds", min=0.1, help="Test the doorbell this often.")
]
ReconnectSeconds = Annotated[
    float, typer.Option("--reconnect-seconds", min=0.05, help="First pause to reconnect.")
]
ReconnectLimitSeconds = Annotated[
    float, typer.Option("--reconnect-limit-seconds", min=0.05, help="Longest such pause.")
]
StopSeconds = Annotated[
    float, typer.Option("--stop-seconds", min=0, help="Wait this long for running commands.")
]
Simulate = Annotated[int | None, typer.Option("--simulate", min=1, help="Be this many devices.")]
Prefix = Annotated[
    str, typer.Option("--prefix", help="Simulated devices are PREFIX-0001 and so on.")
]
StartsPerSecond = Annotated[
    float, typer.Option("--starts-per-second", min=0.1, help="How fast simulated ones start.")
]
Duration = Annotated[
    float, typer.Option("--duration", min=0, help="Seconds that a simulated handler takes.")
]
FailureRate = Annotated[
    float, typer.Option("--failure-rate", min=0, max=1, help="Share of them that fails.")
]
Events = Annotated[
    Path | None, typer.Option("--events", help="File for handler entries and exits (JSON lines).")
]
EventsFsync = Annotated[
    bool, typer.Option("--events-fsync", help="Sync each of these lines to disk.")
]
Location = Annotated[
    str | None,
    typer.Option(
        "--location",
        envvar="PGFLEET_LOCATION",
        metavar="LAT,LON[,ACCURACY_M]",
        help="Where this device stands, if it stays there.",
    ),
]
LocationProgram = Annotated[
    Path | None,
    typer.Option(
        "--location-program",
        envvar="PGFLEET_LOCATION_PROGRAM",
        help="Program that prints where this device is, as JSON.",
    ),
]
LocationWalk = Annotated[
    str | None,
    typer.Option(
        "--location-walk",
        metavar="LAT,LON,RADIUS_M",
        help="Let simulated devices walk around here.",
    ),
]
LocationSeconds = Annotated[
    float,
    typer.Option(
        "--location-seconds",
        envvar="PGFLEET_LOCATION_SECONDS",
        min=0.1,
        help="Look this often where the device is.",
    ),
]
BlockApps = Annotated[
    bool,
    typer.Option(
        "--block-apps/--no-block-apps",
        envvar="PGFLEET_BLOCK_APPS",
        help="Block apps here as geo schedules say.",
    ),
]
LogLevel = Annotated[
    str,
    typer.Option("--log-level", envvar="PGFLEET_LOG_LEVEL", help="DEBUG, INFO, WARN or ERROR."),
]
LogFile = Annotated[
    Path | None, typer.Option("--log-file", help="Log to this file, not to stderr.")
]
LogFormat = Annotated[
    str,
    typer.Option("--log-format", envvar="PGFLEET_LOG_FORMAT", help="text, or json lines."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Enrol again where the device has an identity.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
