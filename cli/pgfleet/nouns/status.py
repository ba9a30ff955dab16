"""pgfleet status: one look at the whole fleet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from pgfleet import options, output
from pgfleet.database import open_database
from pgfleet.spoken import as_said_here

app = options.Noun("How the whole fleet is doing.")

_LABEL = 11
_SECTIONS = (
    "now",
    "problems",
    "engine",
    "devices",
    "schedules",
    "runs_last_day",
    "commands",
    "zones",
)
_REQUESTS = [
    *("day", "owner", "devices", "claims", "looks", "tokens", "checkins", "sockets", "a_device"),
    *("by_polling", "percent_saved"),
]
_ORDER = {name: number for number, name in enumerate(_SECTIONS)}


@app.command("status")
def status(
    watch: options.Watch = False,
    requests: Annotated[
        bool, typer.Option("--requests", help="How many requests devices make a day, instead.")
    ] = False,
) -> None:
    """Show how the fleet is doing, what is wrong first; as JSON with all figures.

    Example: pgfleet status --json
    """
    if requests:
        with open_database() as db:
            rows = db.find("request_list", order=("-day", "owner"), limit=14)
        output.show_rows(rows, _REQUESTS, spare=("owner",))
        return
    with open_database() as db:

        def read() -> dict[str, Any]:
            found: dict[str, Any] = db.value("fleet_status")
            db.commit()
            return found

        if watch:
            output.look_on(read, lambda found: "\n".join(_screen(found)), lambda _: False)
            return
        found = read()
    chosen = options.current()
    if output.is_terminal() and not (chosen.as_json or chosen.as_csv):
        output.write("\n".join(_screen(found)))
    else:
        output.show_row(found if chosen.as_json else _flat(found))


def _screen(found: dict[str, Any]) -> Iterator[str]:
    """Give the lines of one screen: what is wrong with what to do, then the figures."""
    problems = found["problems"]
    if problems:
        count = f"{len(problems)} thing{' is' if len(problems) == 1 else 's are'} wrong"
        yield output.styled(f"{output.sign('failed')} {count}", "red")
        for one in problems:
            yield from _indented("  ", one["problem"])
            yield from _indented("    ", as_said_here(one["hint"]))
    else:
        yield output.styled(f"{output.sign('completed')} All is well", "green")
    yield ""
    for label, text in _figures(found):
        yield output.styled(f"{label:<{_LABEL}}", "bold") + text


def _indented(indent: str, text: str) -> Iterator[str]:
    for line in output.wrapped(output.one_line(text), output.console().width - len(indent)):
        yield indent + line


def _figures(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    engine, devices, schedules = found["engine"], found["devices"], found["schedules"]
    runs, commands = found["runs_last_day"], found["commands"]
    last = engine["last_tick_at"]
    state = "ticking" if engine["is_ticking"] else "not ticking"
    yield "Engine", f"{state}, last tick {output.soon(last) if last else 'never'}"
    yield "Devices", _counts(devices, ("active", "retired"))
    yield (
        "",
        f"seen: {devices['seen_last_hour']} in the last hour, "
        + (f"{devices['seen_last_day']} in the last day"),
    )
    coming = schedules["next_run_at"]
    due = f"; next run {output.soon(coming)}" if coming else ""
    yield "Schedules", _counts(schedules, ("active", "paused")) + due
    yield "Runs", "last day: " + _counts(runs, ("completed", "failed", "skipped", "running"))
    yield "Commands", _counts(commands, ("pending", "running"))
    yield (
        "",
        (
            f"last day: {commands['completed_last_day']} completed, "
            f"{commands['failed_last_day']} failed"
        ),
    )


def _counts(found: dict[str, Any], names: tuple[str, ...]) -> str:
    return ", ".join(f"{found[name]} {name}" for name in names)


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """Give each number a line of its own, named by where it was."""
    flat: dict[str, Any] = {}
    # jsonb keeps its keys by length, which is no order for a person.
    for name, value in sorted(found.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))):
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return flat
