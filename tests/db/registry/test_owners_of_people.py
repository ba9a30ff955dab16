"""The owners of people: their names, their time zone, and how they go."""

from __future__ import annotations

from uuid import uuid4

from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.members import invite, join, school, signed_in


def test_a_person_has_no_two_owners_of_one_name(fleet: Fleet) -> None:
    person, other = uuid4(), uuid4()
    owner = school(fleet, person)
    with fleet.refused("PT409", "owner_exists", "school"), fleet.acting(person):
        fleet.run("select create_owner(' school ')")
    # Others may call theirs so too; that is nothing that the first is told of.
    foreign = school(fleet, other)
    with fleet.acting(person):
        second = fleet.value("select id from create_owner('Second')")
        fleet.run("select rename_owner(%s, 'SCHOOL 7')", owner)
    with fleet.refused("PT409", "owner_exists"), fleet.acting(person):
        fleet.run("select rename_owner(%s, 'school 7')", second)
    with fleet.refused("PT409", "owner_exists"), fleet.acting(person):
        fleet.run("update owners set name = 'School 7' where id = %s", second)
    with fleet.acting(other):
        fleet.run("select rename_owner(%s, 'School 7')", foreign)
    code = invite(fleet, foreign, other)["code"]
    with fleet.refused("PT409", "owner_exists"), fleet.acting(person):
        fleet.run("select accept_invitation(%s)", code)


def test_the_sql_editor_makes_no_two_owners_of_one_name(fleet: Fleet) -> None:
    school(fleet, uuid4())
    fleet.run("select create_owner('School')")
    with fleet.refused("PT409", "owner_exists"):
        fleet.run("select create_owner('School')")


def test_an_owner_has_a_time_zone(fleet: Fleet) -> None:
    admin = uuid4()
    with fleet.acting(admin):
        made = fleet.row("select * from create_owner('School', 'Europe/Berlin')")
        assert made["timezone"] == "Europe/Berlin"
        fleet.run("select set_owner_timezone(%s, 'Asia/Tokyo')", made["id"])
        assert fleet.value("select timezone from owner_list") == "Asia/Tokyo"
    for query in (
        "select set_owner_timezone(%s, 'Nonsense5')",
        "select create_owner(%s::text, 'Nonsense5')",
    ):
        with fleet.refused("PT422", "timezone_unknown"), fleet.acting(admin):
            fleet.run(query, made["id"])
    member = join(fleet, made["id"], admin)
    with fleet.refused("PT403", "permission_missing"), fleet.acting(member):
        fleet.run("select set_owner_timezone(%s, 'UTC')", made["id"])


def test_an_owner_with_devices_is_not_deleted(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    device = fleet.device("pc-1", owner_id=owner, status="retired")
    with fleet.refused("PT409", "owner_has_devices", "1 device"), fleet.acting(admin):
        fleet.run("select delete_owner(%s)", owner)
    fleet.run("delete from devices where id = %s", device)
    member = join(fleet, owner, admin, "view", "operate", "manage", "destructive")
    with fleet.refused("PT403", "permission_missing"), fleet.acting(member):
        fleet.run("select delete_owner(%s)", owner)
    with fleet.refused("PT404", "owner_not_found"), fleet.acting(uuid4()):
        fleet.run("select delete_owner(%s)", owner)
    with fleet.acting(admin):
        answer = fleet.value("select delete_owner(%s)", owner)
        assert fleet.rows("select * from owners") == []
    assert answer == {"id": str(owner), "name": "School", "deleted": True}


def test_the_default_is_empty_when_its_owner_goes(fleet: Fleet) -> None:
    fleet.run("select fleet.set_setting('default_owner', to_jsonb(%s::text))", fleet.owner_id)
    fleet.run("select delete_owner(%s)", fleet.owner_id)
    assert fleet.value("select fleet.setting('default_owner')") is None


def test_who_acts_as_somebody_has_the_rights_of_that_person(fleet: Fleet) -> None:
    admin, ben = uuid4(), uuid4()
    owner = school(fleet, admin)
    code = invite(fleet, owner, admin)["code"]
    with signed_in(fleet, ben, "ben@school.example"):
        fleet.value("select accept_invitation(%s)", code)
    for who in ("Ben@school.example", str(ben)):
        with fleet.conn.transaction(force_rollback=True):
            assert fleet.value("select fleet.act_as(%s)", who) == ben
            assert [row["id"] for row in fleet.rows("select id from owners")] == [owner]
    with fleet.refused("PT404", "person_not_found"):
        fleet.run("select fleet.act_as('nobody@school.example')")


def test_an_owner_goes_with_all_that_it_has(fleet: Fleet) -> None:
    admin = uuid4()
    owner = school(fleet, admin)
    join(fleet, owner, admin)
    with fleet.acting(admin):
        group = fleet.value(
            "insert into device_groups (name, selector) values ('g', '{}') returning id"
        )
        fleet.run("select create_blackout_calendar('h', '[{\"starts_on\": \"2030-01-01\"}]')")
        daily = {"recurrence_type": "daily", "recurrence_config": {"time": "03:00"}}
        spec = {"name": "s", "action_type": "lock", "group_ids": [group], **daily}
        first = fleet.value(
            "select create_schedule(%s)", Jsonb({**spec, "policies": {"blackouts": ["h"]}})
        )
        follower = {"name": "f", "action_type": "lock", "selector": {}, "after": {"schedule": "s"}}
        fleet.run("select create_schedule(%s)", Jsonb(follower))
        fleet.run("select run_schedule(%s)", first["id"])
        place = fleet.value(
            "insert into locations (name, latitude, longitude, radius_m) values ('l', 1, 1, 50)"
            " returning id"
        )
        fleet.run(
            "insert into location_policies (location_id, event, action_type)"
            " values (%s, 'enter', 'lock')",
            place,
        )
        fleet.run("insert into app_categories (name, apps) values ('c', '{chess}')")
        geo = {"name": "geo", "group": "g", "location": "l", "side": "inside", "categories": ["c"]}
        fleet.run(
            "select create_geo_schedule(%s)", Jsonb({**geo, "start_minute": 0, "end_minute": 60})
        )
        fleet.run('select create_webhook_endpoint(\'{"url": "https://hooks.example.com"}\')')
        fleet.run("select create_calendar_feed()")
        fleet.run("select create_integration('{\"integration_type\": \"simplemdm\"}', 'x')")
        fleet.run("select upload_profile('w', '<plist/>')")
        fleet.run("select assign_profile('7', '{\"selector\": {}}')")
        fleet.run(
            'select create_template(\'{"name": "t",'
            ' "spec": {"action_type": "lock", "selector": {}}}\')'
        )
        fleet.run("select create_enrollment_code()")
        invite(fleet, owner, admin)
    tables = fleet.rows(
        "select a.attrelid::regclass::text as name from pg_attribute as a"
        " join pg_class as c on c.oid = a.attrelid and c.relkind in ('r', 'p')"
        " where a.attname = 'owner_id'"
        " and c.relnamespace::regnamespace::text in ('public', 'fleet')"
    )

    def left() -> set[str]:
        count = "select count(*) from {} where owner_id = %s"
        return {t["name"] for t in tables if fleet.value(count.format(t["name"]), owner)}

    assert len(left()) > 15
    with fleet.acting(admin):
        fleet.run("select delete_owner(%s)", owner)
    assert left() == {"audit_log"}
