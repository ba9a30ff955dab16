"""The options that say what a schedule is, for every verb that takes one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from pgfleet import completion, inputs, names
from pgfleet.database import Database
from pgfleet.nouns.schedule.recurrence import Recurrence


@dataclass(frozen=True, slots=True)
class Given:
    """What a person said of a schedule; whether it makes sense is for the database to decide."""

    said: dict[str, Any]

    def spec(self, db: Database, name: str | None = None) -> dict[str, Any]:
        """Give the keys of create_schedule, those of --file among them."""
        said, zone = self.said, self.said["timezone"]
        at = inputs.moment(said["at"], "--at", zone=zone)
        when = Recurrence(
            at, *(said[key] for key in ("every", "daily", "weekly", "monthly", "time", "cron"))
        ).keys()
        given = {
            "name": name,
            "action_type": said["action"],
            "payload": inputs.json_object(said["payload"], "--payload"),
            "device_ids": names.device_ids(db, said["device"]) if said["device"] else None,
            "group_ids": names.group_ids(db, said["group"]) if said["group"] else None,
            "selector": inputs.json_object(said["selector"], "--selector"),
            "start_time": inputs.moment(said["start"], "--start", zone=zone),
            "end_time": inputs.moment(said["end"], "--end", zone=zone),
            "timezone": said["timezone"],
            "policies": inputs.json_object(said["policies"], "--policies"),
            "priority": said["priority"],
            "owner_id": names.owner_id(db, said["owner"]),
            "rrule": said["rrule"],
            "after": self._after(db),
        } | when
        # An option says more than the file, and what neither says is left to the database.
        return _from_file(said["file"]) | {k: v for k, v in given.items() if v is not None}

    def _after(self, db: Database) -> dict[str, Any] | None:
        if self.said["after"] is None:
            return None
        return {
            "schedule_id": names.schedule_id(db, self.said["after"]),
            "on": self.said["after_on"],
            **({"per_device": True} if self.said["per_device"] else {}),
        }


def takes_a_schedule(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb all options of a schedule; its parameter `given` gets what they say."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters
    declared = inspect.signature(_declared).parameters
    kinds = get_type_hints(_declared, include_extras=True)

    @functools.wraps(function)
    def run(**values: Any) -> None:
        said = {name: values.pop(name) for name in declared}
        function(given=Given(said), **values)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter, kind in [
                *((n, p, hints[n]) for n, p in own.items() if n != "given"),
                *((n, p, kinds[n]) for n, p in declared.items()),
            ]
        ]
    )
    run.__annotations__ = {n: h for n, h in hints.items() if n != "given"} | kinds
    return run


def _declared(
    action: Annotated[
        str | None,
        typer.Option(
            help="Which command each device gets.", autocompletion=completion.command_types
        ),
    ] = None,
    payload: Annotated[str | None, typer.Option(help="JSON object, @FILE, or -.")] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device; repeatable.", autocompletion=completion.devices),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="A group; repeatable.", autocompletion=completion.groups),
    ] = None,
    selector: Annotated[
        str | None, typer.Option(help="JSON that selects devices: tags, platform, …")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help='Once: 2027-01-04T18:30, "tomorrow 9:00", "in 2 hours".')
    ] = None,
    every: Annotated[str | None, typer.Option(help="Again after this time: 15 minutes.")] = None,
    daily: Annotated[str | None, typer.Option(help="Every day at HH:MM.")] = None,
    weekly: Annotated[str | None, typer.Option(help="On these days: mon,thu; with --time.")] = None,
    monthly: Annotated[str | None, typer.Option(help="On this day: 1, last; with --time.")] = None,
    time: Annotated[str | None, typer.Option(help="HH:MM for --weekly and --monthly.")] = None,
    cron: Annotated[str | None, typer.Option(help="A cron expression.")] = None,
    rrule: Annotated[str | None, typer.Option(help="A rule of iCalendar: FREQ=WEEKLY;…")] = None,
    after: Annotated[
        str | None, typer.Option(help="Follow this schedule: run when a run of it has ended.")
    ] = None,
    after_on: Annotated[
        str, typer.Option(help="With --after: completed, failed or either.")
    ] = "completed",
    per_device: Annotated[
        bool, typer.Option("--per-device", help="With --after: each device as soon as it is done.")
    ] = False,
    start: Annotated[str | None, typer.Option(help="Nothing is due before.")] = None,
    end: Annotated[str | None, typer.Option(help="Nothing is due after.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help='IANA name, or "device" for each device\'s own; else UTC.')
    ] = None,
    policies: Annotated[str | None, typer.Option(help="JSON: overlap, catchup, …")] = None,
    priority: Annotated[int | None, typer.Option(help="-100 to 100; higher goes first.")] = None,
    owner: Annotated[str | None, typer.Option(help="Name or id of the owner.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="The whole schedule as JSON; - for stdin.")
    ] = None,
) -> None:
    """Declare the options, in the order in which the help lists them."""


def _from_file(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    named = file if file == "-" or file.startswith("@") else f"@{file}"
    return inputs.json_object(named, "--file") or {}
