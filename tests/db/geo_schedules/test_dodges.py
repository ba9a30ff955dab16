"""Ways to dodge a commitment: each is tried, and the apps stay blocked until the delay is over.

The fourteen that geo schedules were made to withstand stand first, in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.db.geo_schedules.pupil import Pupil


def edit_it(pupil: Pupil) -> None:
    pupil.change(side="outside", unknown_location="free")


def delete_it(pupil: Pupil) -> None:
    pupil.fleet.run("select delete_geo_schedule(%s)", pupil.geo)


def replace_it_twice(pupil: Pupil) -> None:
    pupil.change(apps=["chess"], categories=[], update_delay_type="none", update_delay_seconds=0)
    pupil.change(apps=["go"])


def change_the_zone_of_the_row(pupil: Pupil) -> None:
    pupil.change(timezone="Pacific/Kiritimati", start_minute=1, end_minute=2)


def report_another_zone(pupil: Pupil) -> None:
    pupil.fleet.run("update devices set timezone = 'Pacific/Honolulu' where id = %s", pupil.device)


def move_the_start(pupil: Pupil) -> None:
    pupil.change(start_minute=60, end_minute=120)


def leave_the_group(pupil: Pupil) -> None:
    pupil.fleet.run("delete from device_group_members where device_id = %s", pupil.device)


def lose_the_tag(pupil: Pupil) -> None:
    pupil.fleet.run("update devices set tags = '{}' where id = %s", pupil.device)


def rename_the_device(pupil: Pupil) -> None:
    pupil.fleet.run("update devices set hostname = 'teacher-1' where id = %s", pupil.device)


def shrink_the_apps(pupil: Pupil) -> None:
    pupil.change(apps=["chess"], categories=[])


def edit_the_location(pupil: Pupil) -> None:
    pupil.fleet.run("update locations set latitude = -33.9 where id = %s", pupil.location)


def edit_the_category(pupil: Pupil) -> None:
    pupil.fleet.run("update app_categories set apps = '{chess}' where name = 'games'")


def delete_the_device_or_enrol_it_again(pupil: Pupil) -> None:
    with pupil.fleet.refused("PT409", "commitment_running"):
        pupil.fleet.run("delete from devices where id = %s", pupil.device)
    # Out of the way, so that its name is free for another row.
    retire_the_device(pupil)
    rename_the_device(pupil)
    pupil.device = pupil.fleet.device("PUPIL-1", timezone="Europe/Berlin")


def set_the_clock_while_it_runs(pupil: Pupil) -> None:
    pupil.tablet.wall += timedelta(days=400)
    pupil.tablet.restarts()


FOURTEEN = [
    *(edit_it, delete_it, replace_it_twice, change_the_zone_of_the_row, report_another_zone),
    *(move_the_start, leave_the_group, lose_the_tag, rename_the_device, shrink_the_apps),
    *(edit_the_location, edit_the_category, delete_the_device_or_enrol_it_again),
    set_the_clock_while_it_runs,
]


def change_the_selector(pupil: Pupil) -> None:
    pupil.fleet.run(
        """update device_groups set selector = '{"tags": ["class-8"]}' where id = %s""", pupil.group
    )


def retire_the_device(pupil: Pupil) -> None:
    pupil.fleet.run("select retire_device(%s)", pupil.device)


def move_to_another_device(pupil: Pupil) -> None:
    pupil.fleet.device("scapegoat")
    pupil.change(device="scapegoat")


def shorten_the_delay_first(pupil: Pupil) -> None:
    pupil.change(update_delay_type="none", update_delay_seconds=0)
    delete_all(pupil)


def delete_all(pupil: Pupil) -> None:
    pupil.fleet.run(
        "select delete_geo_schedule(id) from geo_schedules where deletion_status is null"
    )


def stay_away_and_come_back(pupil: Pupil) -> None:
    lose_the_tag(pupil)
    pupil.fleet.run("update devices set tags = '{class-7}' where id = %s", pupil.device)
    delete_all(pupil)


MORE = [
    *(change_the_selector, retire_the_device, move_to_another_device),
    *(shorten_the_delay_first, stay_away_and_come_back),
]


@pytest.mark.parametrize("dodge", [*FOURTEEN, *MORE])
def test_a_dodge_fails_until_the_delay_is_over(
    pupil: Pupil, dodge: Callable[[Pupil], None]
) -> None:
    if dodge is leave_the_group:
        pupil.joins_by_name()
    assert pupil.blocked() == pupil.blocks() == {"steam"}
    dodge(pupil)
    assert "steam" in pupil.blocked()
    assert "steam" in pupil.blocked(timedelta(days=6))
    assert "steam" in pupil.blocks()


@pytest.mark.parametrize("dodge", [delete_it, lose_the_tag, shrink_the_apps, replace_it_twice])
def test_after_the_delay_the_change_counts(pupil: Pupil, dodge: Callable[[Pupil], None]) -> None:
    dodge(pupil)
    # What starts on the last day of the delay still runs to its end.
    assert "steam" not in pupil.blocked(timedelta(days=8, hours=1))
