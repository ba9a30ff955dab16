"""How things look: the templates, and the words and figures in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

STATIC = files("pgfleet_console") / "static"
MINUTE, HOUR, DAY = 60, 3600, 86_400
# What stands where there is nothing.
NOTHING = "\N{EN DASH}"

# Which of four tones a state has; what is in none of them is quiet.
_TONES = {
    **dict.fromkeys(("completed", "active", "delivered", "ran", "run", "good", "ok"), "good"),
    **dict.fromkeys(("running", "pending", "waiting", "expanding", "open", "following"), "busy"),
    **dict.fromkeys(("paused", "expired", "skipped", "warning", "closed", "skip"), "warn"),
    **dict.fromkeys(("failed", "broken", "aborted", "disabled", "error"), "bad"),
}


def make_environment() -> Environment:
    """Return the templates with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("pgfleet_console"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        hint=linked_hint,
        time=time_tag,
        ago=ago_tag,
        lasting=lasting,
        tone=tone,
        pretty=pretty,
        number=number,
    )
    environment.globals.update(asset=asset, shares=shares)
    # What a block needs is known everywhere: blocks are shown alone, without what is around them.
    environment.globals["ui"] = environment.get_template("macros.html").module
    return environment


def asset(name: str) -> str:
    """Give the address of a static file, which changes with what is in it."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"


def time_tag(at: Any, empty: str = NOTHING) -> Markup:
    """Show an instant: in UTC here, in the zone of whoever looks by the script."""
    return _time(at, empty, "at")


def ago_tag(at: Any, empty: str = "never") -> Markup:
    """Show how far away an instant is; the script keeps it true."""
    return _time(at, empty, "ago")


def _time(at: Any, empty: str, style: str) -> Markup:
    found = instant(at)
    if found is None:
        return Markup('<span class="quiet">{}</span>').format(empty)
    exact = found.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" data-{} title="{}">{}</time>').format(
        found.isoformat(timespec="milliseconds").replace("+00:00", "Z"), style, exact, exact
    )


def instant(at: Any) -> datetime | None:
    """Read an instant as the database gives it, in a column or inside of JSON."""
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at.astimezone(UTC) if isinstance(at, datetime) else None


# Where a view of the database has a page of its own.
_PAGES = {
    "command_list": "/commands",
    "run_list": "/runs",
    "schedule_list": "/schedules",
    "device_list": "/devices",
    "integration_list": "/integrations",
    "webhook_list": "/webhooks",
    "rollout_list": "/rollouts",
}
_LOOK = re.compile(r"select \* from (\w+_list)(?: where status = '(\w+)')?")


def linked_hint(hint: str | None) -> Markup:
    """Show a hint of the database: where it says what to select, the page that shows it."""
    parts, end = [], 0
    for found in _LOOK.finditer(hint or ""):
        path = _PAGES.get(found[1])
        if path is None:
            continue
        asked = f"?q=status:{found[2]}" if found[2] else ""
        said = f"{path[1:]}{f' with the state {found[2]}' if found[2] else ''}"
        parts += [(hint or "")[end : found.start()]]
        parts += [Markup('<a href="{}{}">{}</a>').format(path, asked, said)]
        end = found.end()
    return Markup("").join([*parts, (hint or "")[end:]])


def lasting(seconds: Any) -> str:
    """Say how long something takes."""
    if seconds is None:
        return NOTHING
    left = float(seconds)
    if left < 1:
        return f"{left * 1000:.0f} ms"
    if left < 10:
        return f"{left:.1f} s"
    if left < MINUTE:
        return f"{left:.0f} s"
    for size, unit, below, small in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if left >= size:
            whole, rest = divmod(int(left), size)
            return f"{whole} {unit}" + (f" {rest // below} {small}" if rest // below else "")
    raise AssertionError("a minute or more is handled above")


def tone(state: str | None) -> str:
    """Give the tone of a state, which the style sheet knows: good, busy, warn, bad or quiet."""
    return _TONES.get(state or "", "quiet")


def pretty(value: Any) -> str:
    """Write JSON as people read it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def number(value: Any) -> str:
    """Write a number with its thousands apart."""
    return NOTHING if value is None else f"{value:,}"


def shares(counts: Mapping[str, int | None], total: int | None = None) -> list[dict[str, Any]]:
    """Give the parts of a bar, each with where it begins and how wide it is, in percent."""
    known = {name: count for name, count in counts.items() if count}
    whole = max(total or 0, sum(known.values())) or 1
    parts, at = [], 0.0
    for name, count in known.items():
        width = 100 * count / whole
        parts.append({"name": name, "count": count, "at": round(at, 3), "width": round(width, 3)})
        at += width
    return parts
