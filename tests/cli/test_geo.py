"""pgfleet geo, as a person calls it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pgfleet import output
from pgfleet.nouns.geo.day import boxes, drawn

NIGHT = ("--between", "22:00-06:00", "--timezone", "Europe/Berlin")


def test_geo_schedules_are_made_changed_explained_and_deleted(pgfleet: Any, fleet: Any) -> None:
    pgfleet("device", "create", "geo-pc", "--timezone", "Europe/Berlin")
    pgfleet("location", "create", "Geo school", "--at", "52.52,13.405", "--radius", "200")
    assert pgfleet("geo", "category", "games", "steam", "minecraft", "--json").code == 0
    made = pgfleet(
        *("geo", "create", "No games", "--device", "geo-pc", "--category", "games"),
        *("--inside", "Geo school", "--days", "mon,sun", "--delay", "86400", *NIGHT, "--json"),
    )
    assert made.code == 0, made.err
    assert (made.data["starts"], made.data["ends"], made.data["days"]) == ("22:00", "06:00", [0, 6])
    assert (made.data["apps"], made.data["state"]) == (["minecraft", "steam"], "active")

    changed = pgfleet("geo", "update", str(made.data["id"]), "--between", "00:00-00:00", "--json")
    assert changed.code == 0, changed.err
    assert changed.data["state"] == "waiting"
    assert f"until then number {made.data['id']} does" in changed.err
    states = {row["id"]: row["state"] for row in pgfleet("geo", "list", "--json").data}
    assert (states[made.data["id"]], states[changed.data["id"]]) == ("ending", "waiting")

    again = pgfleet("geo", "delete", str(made.data["id"]), "--yes")
    assert (again.code, f"Change the one that replaced it: {changed.data['id']}" in again.err) == (
        1,
        True,
    )
    assert pgfleet("geo", "explain", "geo-pc").code == 0
    gone = pgfleet("geo", "delete", str(changed.data["id"]), "--yes", "--json")
    assert gone.data["deletion_status"] == "WAITING_FOR_CLIENT"
    freed = pgfleet(
        *("geo", "override", str(made.data["id"]), "--reason", "an exam", "--yes", "--json")
    )
    assert freed.data["devices"] == 1, freed.err
    assert len(pgfleet("geo", "preview", "--device", "geo-pc", *NIGHT, "--json").data) == 14


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--between", "25:00-26:00"), "is not two times of day"),
        ((*NIGHT, "--days", "someday"), "is not a list of days"),
        ((*NIGHT, "--delay", "a while"), "is no delay"),
        ((*NIGHT, "--inside", "a", "--outside", "b"), "exclude each other"),
        ((*NIGHT, "--delay", "604801"), "update_delay_seconds: is not within 0 to 604800"),
        ((*NIGHT, "--unknown", "maybe"), "unknown_location:"),
        (NIGHT, "names nothing to block"),
    ],
)
def test_what_is_no_geo_schedule_is_refused(
    pgfleet: Any, fleet: Any, words: tuple[str, ...], said: str
) -> None:
    pgfleet("device", "create", "refused-pc")
    apps = () if said == "names nothing to block" else ("--app", "steam")
    refused = pgfleet("geo", "create", "x", "--device", "refused-pc", *apps, *words)
    assert refused.code != 0
    assert said in refused.err


@pytest.mark.parametrize(
    ("starts", "ends", "drawn"),
    [
        ((0, 0), (24, 0), "████████"),
        ((6, 0), (9, 0), "··█·····"),
        ((6, 0), (9, 1), "··██····"),
        ((23, 59), (24, 0), "·······█"),
    ],
)
def test_a_box_is_full_where_any_of_it_is_blocked(
    starts: tuple[int, int], ends: tuple[int, int], drawn: str
) -> None:
    midnight = datetime(2027, 1, 11)
    first, last = (midnight + timedelta(hours=h, minutes=m) for h, m in (starts, ends))
    assert boxes(first, last, "█", 8) == drawn


def test_the_day_of_a_device_is_drawn_on_its_own_wall(pgfleet: Any, fleet: Any) -> None:
    pgfleet("device", "create", "day-pc", "--timezone", "Asia/Kathmandu")
    night = ("--between", "22:00-06:00", "--timezone", "device", "--app", "chat")
    pgfleet("geo", "create", "Night", "--device", "day-pc", *night)
    rows = pgfleet("geo", "day", "day-pc", "--json").data
    found = [
        tuple(
            f"{datetime.fromisoformat(row[key]).astimezone(ZoneInfo('Asia/Kathmandu')):%H:%M}"
            for key in ("starts_at", "ends_at")
        )
        for row in rows
    ]
    assert found == [("22:00", "06:00")] * 2

    midnight = datetime.fromisoformat(rows[0]["starts_at"]).astimezone(ZoneInfo("Asia/Kathmandu"))
    console = output.console(width=120)
    with console.capture() as captured:
        console.print(drawn(rows, midnight + timedelta(hours=2), 120))
    assert [line.count("█") for line in captured.get().splitlines()] == [0, 12, 4]
