"""What was said of geo schedules when they were wished for, sentence by sentence."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet

from pgfleet.agent.geo.actions import Seen, apps_of, merged, step


class School:
    """One device and what is made for it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.device = fleet.device("tablet-1", timezone="UTC")

    def create(self, **spec: Any) -> int:
        whole = {
            **{"owner_id": str(self.fleet.owner_id), "name": "no games", "device": "tablet-1"},
            **{"apps": ["steam"], "start_minute": 0, "end_minute": 0, "timezone": "UTC", **spec},
        }
        made: int = self.fleet.value("select id from create_geo_schedule(%s)", Jsonb(whole))
        return made

    def actions(self, geo: int) -> list[dict[str, Any]]:
        return self.fleet.rows(
            "select * from geo_actions where geo_schedule_id = %s order by from_date", geo
        )

    def asks(self, after: timedelta = timedelta(0)) -> list[dict[str, Any]]:
        with self.fleet.as_device(self.device):
            answer = self.fleet.value("select fleet.geo_actions_due(clock_timestamp() + %s)", after)
        found: list[dict[str, Any]] = answer["actions"]
        return found

    def tells(self, action: int, status: str, reason: str | None = None) -> dict[str, Any]:
        with self.fleet.as_device(self.device):
            answer: dict[str, Any] = self.fleet.value(
                "select report_geo_action(%s, %s, null, %s)", action, status, reason
            )
        return answer

    def today(self) -> date:
        found: date = self.fleet.value("select (now() at time zone 'UTC')::date")
        return found


@pytest.fixture
def school(fleet: Fleet) -> School:
    return School(fleet)


def test_actions_are_created_when_the_daemon_requests_the_latest_actions(school: School) -> None:
    geo = school.create()
    school.fleet.run("delete from geo_actions")
    assert school.asks()
    assert school.actions(geo)


def test_the_window_spans_from_one_week_in_the_past_to_two_weeks_in_the_future(
    school: School,
) -> None:
    dates = [row["from_date"] for row in school.actions(school.create())]
    today = school.today()
    assert dates[0] in (today - timedelta(days=7), today - timedelta(days=6))
    assert dates[-1] in (today + timedelta(days=13), today + timedelta(days=14))
    assert dates == [dates[0] + timedelta(days=nr) for nr in range(len(dates))]


def test_actions_are_generated_by_a_pure_function_that_takes_the_window(school: School) -> None:
    geo = school.create(start_minute=480, end_minute=780)
    query = (
        "select string_agg(a::text, ';' order by a.from_date)"
        " from geo_schedules as s cross join lateral"
        " fleet.create_actions_from_geo_schedule_config(s, %s, %s) as a"
        " where s.id = %s"
    )
    window = ("2031-03-01T00:00+00", "2031-03-22T00:00+00")
    first = school.fleet.value(query, *window, geo)
    school.fleet.run("delete from geo_actions")
    assert school.fleet.value(query, *window, geo) == first
    assert first.count("2031-03") >= 21


def test_weekly_recurrence_allows_more_flexible_day_selection(school: School) -> None:
    rows = school.actions(school.create(recurrence="weekly", days=[0, 4]))
    days = {row["from_date"].isoweekday() for row in rows}
    assert days == {1, 5}


def test_start_and_end_are_minutes_past_midnight(school: School) -> None:
    (*_, last) = school.actions(school.create(start_minute=481, end_minute=602))
    assert last["starts_at"].strftime("%H:%M") == "08:01"
    assert last["ends_at"].strftime("%H:%M") == "10:02"
    assert last["length_minutes"] == 121


def test_one_action_spans_midnight_keyed_off_the_start_date(school: School) -> None:
    for row in school.actions(school.create(start_minute=1320, end_minute=360)):
        assert row["starts_at"].date() == row["from_date"]
        assert row["ends_at"].date() == row["from_date"] + timedelta(days=1)


def test_an_action_can_run_immediately_even_if_its_start_was_earlier_today(school: School) -> None:
    geo = school.create()
    running = [row for row in school.asks() if row["geo_schedule_id"] == geo]
    assert datetime.fromisoformat(running[0]["starts_at"]) <= datetime.now().astimezone()


def test_only_actions_that_do_not_exist_are_attempted_to_be_written(school: School) -> None:
    geo = school.create()
    before = school.actions(geo)
    spent = "select last_value from geo_actions_id_seq"
    ids = school.fleet.value(spent)
    school.asks()
    assert school.fleet.value("select fleet.create_geo_actions(%s, now())", [geo]) == 0
    assert (school.actions(geo), school.fleet.value(spent)) == (before, ids)


def test_a_unique_constraint_on_from_date_and_schedule_prevents_duplicates(school: School) -> None:
    school.create()
    columns = school.fleet.value(
        "select array_agg(attname::text order by attname) from pg_constraint as c"
        " join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)"
        " where c.conrelid = 'geo_actions'::regclass and c.conname = %s",
        "geo_actions_geo_schedule_id_from_date_key",
    )
    assert columns == ["from_date", "geo_schedule_id"]


def test_times_are_stored_in_utc_and_converted_to_local_time_when_needed(school: School) -> None:
    geo = school.create(start_minute=480, end_minute=540, timezone="Asia/Kathmandu")
    rows = school.actions(geo)
    assert {row["starts_at"].strftime("%H:%M") for row in rows} == {"02:15"}


def test_an_action_whose_end_is_past_is_not_executed_one_whose_end_is_ahead_is(
    school: School,
) -> None:
    geo = school.create()
    asked = {row["geo_action_id"] for row in school.asks()}
    now = datetime.now().astimezone()
    for row in school.actions(geo):
        assert (row["id"] in asked) is (row["ends_at"] > now)


def test_reported_status_filters_subsequent_requests(school: School) -> None:
    school.create()
    first, second, third, *_ = (row["geo_action_id"] for row in school.asks())
    assert school.tells(first, "finished") == {"accepted": True}
    assert school.tells(second, "running") == {"accepted": True}
    assert school.tells(third, "skipped", "not there") == {"accepted": True}
    left = {row["geo_action_id"] for row in school.asks()}
    assert first not in left
    assert second in left
    assert third not in left


def test_an_update_makes_a_new_geo_schedule_and_marks_the_old_one(school: School) -> None:
    old = school.create()
    new = school.fleet.value(
        "select id from update_geo_schedule(%s, %s)", old, Jsonb({"apps": ["chess"]})
    )
    row = school.fleet.row("select * from geo_schedules where id = %s", old)
    assert new != old
    assert row["delete_started_date"] is not None
    assert row["deletion_status"] == "WAITING_FOR_CLIENT"
    assert row["replaced_by"] == new


def test_the_maximum_commitment_period_is_one_week(school: School) -> None:
    school.create(update_delay_type="fixed", update_delay_seconds=604_800)
    with pytest.raises(psycopg.Error, match="update_delay_seconds"):
        school.create(update_delay_type="fixed", update_delay_seconds=604_801)


def test_until_the_delay_is_over_it_is_as_if_nobody_had_said_anything(school: School) -> None:
    geo = school.create(update_delay_type="fixed", update_delay_seconds=86_400)
    before = [row for row in school.asks() if row["geo_schedule_id"] == geo]
    school.fleet.run("select delete_geo_schedule(%s)", geo)
    soon, later = school.asks(timedelta(hours=23)), school.asks(timedelta(hours=49))
    assert {row["apps"][0] for row in soon} == {"steam"} == {row["apps"][0] for row in before}
    assert later == []


def test_should_be_executed_decides_by_the_date_and_the_delay(school: School) -> None:
    geo = school.create(update_delay_type="fixed", update_delay_seconds=86_400)
    school.fleet.run("select delete_geo_schedule(%s)", geo)
    query = (
        "select coalesce(bool_or("
        "fleet.should_be_executed(a, s, s.delete_started_date + %s)), false)"
        " from geo_schedules as s join geo_actions as a on a.geo_schedule_id = s.id"
        " where s.id = %s and s.delete_started_date + %s between a.starts_at and a.ends_at"
    )
    decided = {
        hours: school.fleet.value(query, timedelta(hours=hours), geo, timedelta(hours=hours))
        for hours in (0, 1, 23, 49, 80)
    }
    assert decided == {0: True, 1: True, 23: True, 49: False, 80: False}


def test_actions_that_started_more_than_two_weeks_ago_are_removed(school: School) -> None:
    geo = school.create()
    newest = school.actions(geo)[-1]["starts_at"]
    while school.fleet.value("select fleet.clean_geo_actions(%s)", newest + timedelta(days=14)):
        pass
    assert [row["starts_at"] for row in school.actions(geo)] == [newest]


def test_an_action_that_is_ahead_is_scheduled_and_one_that_has_begun_runs_at_once(
    school: School,
) -> None:
    school.create()
    now = datetime.now().astimezone()
    courses = {n: step(one, Seen(), now) for n, one in merged({}, school.asks()).items()}
    for one in courses.values():
        assert one.status == ("running" if one.action.starts_at <= now else "scheduled")
    assert {one.status for one in courses.values()} == {"running", "scheduled"}


def test_multiple_active_actions_are_executed_in_parallel(school: School) -> None:
    for app in ("steam", "chess", "go"):
        school.create(apps=[app])
    now = datetime.now().astimezone()
    courses = {n: step(one, Seen(), now) for n, one in merged({}, school.asks()).items()}
    assert apps_of(courses) == {"steam", "chess", "go"}


def test_a_location_provider_updates_actions_when_their_criteria_have_been_met(
    school: School,
) -> None:
    school.create()
    (first, *_) = school.asks()
    query = "select report_geo_action(%s, 'running', clock_timestamp() - %s)"
    with school.fleet.as_device(school.device):
        for ago in (timedelta(minutes=5), timedelta(minutes=1)):
            school.fleet.run(query, first["geo_action_id"], ago)
    (again, *_) = school.asks()
    met = datetime.fromisoformat(again["location_met_at"])
    # The first time counts.
    assert datetime.now().astimezone() - met > timedelta(minutes=4)


def test_reported_status_determines_when_a_deleted_geo_schedule_can_be_removed(
    school: School,
) -> None:
    now = datetime.now(UTC)
    minute = (now.hour * 60 + now.minute - 60) % 1440
    geo = school.create(
        **{"start_minute": minute, "end_minute": minute},
        **{"update_delay_type": "fixed", "update_delay_seconds": 3600},
    )
    school.fleet.run("select delete_geo_schedule(%s)", geo)
    # The delay is over, and what began before it runs on, until its device has told of its end.
    over = timedelta(hours=1, seconds=1)
    running = [row["geo_action_id"] for row in school.asks(over)]
    settle = "select fleet.settle_geo_deletions(clock_timestamp() + %s)"
    assert school.fleet.value(settle, over) == 0
    for action in running:
        school.tells(action, "finished")
    assert school.fleet.value(settle, over) == 1


def test_creation_checks_whether_the_geo_schedule_has_been_deleted_or_updated(
    school: School,
) -> None:
    deleted = school.create(update_delay_type="fixed", update_delay_seconds=86_400)
    updated = school.create(update_delay_type="fixed", update_delay_seconds=86_400)
    school.fleet.run("select delete_geo_schedule(%s)", deleted)
    new = school.fleet.value("select id from update_geo_schedule(%s, '{}')", updated)
    school.fleet.run("delete from geo_actions")
    school.asks()
    row = school.fleet.row("select delay_ends_at as at from geo_schedules where id = %s", updated)
    for geo in (deleted, updated):
        assert all(one["starts_at"] < row["at"] for one in school.actions(geo))
    assert all(one["starts_at"] >= row["at"] for one in school.actions(new))
    assert school.actions(new)


@pytest.mark.parametrize(
    ("delay", "hours"),
    [
        ({"update_delay_type": "none"}, 0),
        ({"update_delay_type": "fixed", "update_delay_seconds": 7200}, 2),
        ({"update_delay_type": "until_end_of_current_action"}, 6),
        ({"update_delay_type": "until_next_day"}, 14),
    ],
)
def test_the_delay_says_how_long_a_deleted_one_is_respected(
    school: School, delay: dict[str, Any], hours: int
) -> None:
    # From 8 to 16, deleted at 10: the one that runs does so to its end, unless nothing waits.
    made = school.create(start_minute=480, end_minute=960, **delay)
    at = datetime(2031, 3, 3, 10, tzinfo=UTC)
    end = school.fleet.value(
        "select fleet.geo_delay_end(s, 'UTC', %s) from geo_schedules as s where s.id = %s", at, made
    )
    assert end - at == timedelta(hours=hours)


def test_cleanup_does_not_overlap_with_the_creation_window(school: School) -> None:
    made = school.create()
    school.fleet.run("delete from geo_actions")
    assert school.fleet.value("select fleet.create_geo_actions(%s, now())", [made])
    assert school.fleet.value("select fleet.clean_geo_actions(now())") == 0
