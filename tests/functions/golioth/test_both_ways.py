"""Names, tags and wanted values in both directions, and what counts where both have changed."""

from __future__ import annotations

import json
from typing import Any

import pytest


def there(cloud: Any, device: int = 0) -> dict[str, Any]:
    """Give a device as the other system has it."""
    found: dict[str, Any] = cloud.control("change")[cloud.devices[device]]
    return found


def change_there(cloud: Any, device: int = 0, **changes: Any) -> None:
    cloud.control("change", {cloud.devices[device]: changes})


def here(cloud: Any, device: int = 0) -> tuple[str, list[str], dict[str, Any]]:
    """Give name, tags and wanted values as we have them."""
    with cloud.site.connect() as conn:
        row = conn.execute(
            "select d.hostname, d.tags, l.desired from devices as d"
            " join device_links as l on l.device_id = d.id"
            " where l.integration_id = %s and l.external_id = %s",
            (cloud.integration, cloud.devices[device]),
        ).fetchone()
    return row[0], sorted(row[1]), row[2]


def number(cloud: Any, device: int = 0) -> int:
    return int(
        cloud.site.value(
            "select device_id from device_links where integration_id = %s and external_id = %s",
            cloud.integration,
            cloud.devices[device],
        )
    )


def change_here(cloud: Any, **columns: Any) -> None:
    for column, value in columns.items():
        cloud.site.value(
            f"update devices set {column} = %s where id = %s returning 1", value, number(cloud)
        )


def want(cloud: Any, **values: Any) -> Any:
    return cloud.site.value("select set_desired_state(%s, %s)", number(cloud), json.dumps(values))


def test_an_export_writes_names_tags_and_wanted_values_and_no_more(cloud: Any) -> None:
    cloud.pull()
    cloud.change(direction="export")
    change_here(cloud, hostname="gate-sensor", tags=["field", "north"])
    want(cloud, led={"on": True, "colour": "red"}, rate=5)
    change_there(cloud, 1, name="renamed there", tags=["theirs"])

    row = cloud.pull()

    assert there(cloud) == {
        "name": "gate-sensor",
        "tags": ["field", "north"],
        "state": {"desired": {"led": {"on": True, "colour": "red"}, "rate": 5}},
    }
    # Ours is what counts, but for tags that are theirs alone.
    assert there(cloud, 1)["name"] == here(cloud, 1)[0] != "renamed there"
    assert there(cloud, 1)["tags"] == ["theirs"]
    assert here(cloud, 1)[1] == []
    assert row["status"] == "completed"
    export = cloud.last("sync_export")
    assert (export["status"], export["counts"]["names"]) == ("completed", 2)
    assert (export["counts"]["tags"], export["counts"]["values"]) == (1, 3)

    before = len(cloud.requests())
    cloud.pull()
    assert not [one for one in cloud.requests()[before:] if one["method"] not in ("GET", "POST")]
    assert cloud.last("sync_export")["id"] == export["id"]


def test_what_is_taken_away_here_is_taken_away_there(cloud: Any) -> None:
    cloud.pull()
    cloud.change(direction="export")
    change_here(cloud, tags=["a", "b"])
    want(cloud, led={"on": True}, rate=5)
    cloud.pull()

    change_here(cloud, tags=["b"])
    assert want(cloud, led=None) == {"rate": 5}
    cloud.pull()

    assert there(cloud)["tags"] == ["b"]
    assert there(cloud)["state"]["desired"] == {"led": {}, "rate": 5}


def test_an_import_takes_over_what_was_changed_there_and_writes_nothing(cloud: Any) -> None:
    change_there(cloud, tags=["field"])
    cloud.pull()
    change_here(cloud, tags=["field", "mine"])
    change_there(cloud, name="by the gate", tags=["south"], state={"desired": {"rate": 7}})
    before = len(cloud.requests())

    cloud.pull()

    assert here(cloud) == ("by the gate", ["mine", "south"], {"rate": 7})
    assert {one["method"] for one in cloud.requests()[before:]} <= {"GET", "POST"}
    assert there(cloud)["tags"] == ["south"]


def test_both_ways_each_side_takes_over_what_the_other_has_changed(cloud: Any) -> None:
    cloud.change(direction="both")
    change_there(cloud, tags=["a", "b"], state={"desired": {"x": 1, "y": 1}})
    cloud.pull()
    assert here(cloud)[1:] == (["a", "b"], {"x": 1, "y": 1})

    change_here(cloud, hostname="new here", tags=["a", "c"])
    want(cloud, x=2)
    change_there(cloud, tags=["a", "b", "d"], state={"desired": {"x": 1, "y": 3}})
    cloud.pull()

    assert here(cloud) == ("new here", ["a", "c", "d"], {"x": 2, "y": 3})
    assert there(cloud) == {
        "name": "new here",
        "tags": ["a", "c", "d"],
        "state": {"desired": {"x": 2, "y": 3}},
    }


@pytest.mark.parametrize(
    ("rule", "kept"), [("local", "here"), ("remote", "there"), ("newest", "there")]
)
def test_where_both_have_changed_it_the_rule_decides(cloud: Any, rule: str, kept: str) -> None:
    cloud.change(direction="both", conflict=rule)
    cloud.pull()
    change_here(cloud, hostname=f"here {rule}")
    want(cloud, rate=1)
    change_there(cloud, name=f"there {rule}", state={"desired": {"rate": 2}})

    cloud.pull()

    assert here(cloud)[0] == there(cloud)["name"] == f"{kept} {rule}"
    assert (
        here(cloud)[2] == there(cloud)["state"]["desired"] == {"rate": 1 if kept == "here" else 2}
    )


def test_the_newest_counts_also_where_it_is_ours(cloud: Any) -> None:
    cloud.change(direction="both", conflict="newest")
    cloud.pull()
    change_there(cloud, name="first", state={"desired": {"rate": 2}})
    change_here(cloud, hostname="second")
    want(cloud, rate=1)

    cloud.pull()

    assert here(cloud)[0] == there(cloud)["name"] == "second"
    assert there(cloud)["state"]["desired"] == {"rate": 1}


@pytest.mark.parametrize(("keep", "name", "rate"), [("local", "mine", 1), ("remote", "yours", 2)])
def test_a_person_may_decide(cloud: Any, keep: str, name: str, rate: int) -> None:
    cloud.change(direction="both", conflict="manual")
    cloud.pull()
    change_here(cloud, hostname="mine")
    want(cloud, rate=1)
    change_there(cloud, name="yours", state={"desired": {"rate": 2}})
    cloud.pull()
    assert (here(cloud)[0], there(cloud)["name"]) == ("mine", "yours")
    assert cloud.site.value("select sync_status(%s) ->> 'conflicts'", cloud.integration) == "2"

    with cloud.site.connect() as conn:
        rows = conn.execute(
            "select id, field, local, remote from sync_conflict_list where integration_id = %s"
            " order by field",
            (cloud.integration,),
        ).fetchall()
        assert [row[1:] for row in rows] == [("desired/rate", 1, 2), ("name", "mine", "yours")]
        for row in rows:
            conn.execute("select resolve_sync_conflict(%s, %s)", (row[0], keep))
        conn.commit()
    cloud.pull()

    assert here(cloud)[0] == there(cloud)["name"] == name
    assert here(cloud)[2] == there(cloud)["state"]["desired"] == {"rate": rate}
    cloud.pull()
    assert cloud.site.value("select sync_status(%s) ->> 'conflicts'", cloud.integration) == "0"


def test_a_name_that_is_taken_is_told_and_keeps_nothing_else_from_being_written(cloud: Any) -> None:
    cloud.pull()
    cloud.change(direction="export")
    change_there(cloud, 1, name="gate")
    # Names are one's own in each system: here nobody has this one.
    change_here(cloud, hostname="gate", tags=["field"])
    with cloud.site.connect() as conn:
        conn.execute("update devices set status = 'retired' where id = %s", (number(cloud, 1),))
        conn.commit()

    row = cloud.pull()

    assert there(cloud)["tags"] == ["field"]
    assert there(cloud)["name"] != "gate"
    assert "already being used" in row["detail"]["errors"][0]["error"]
    assert cloud.last("sync_export")["counts"]["errors"] == 1


def test_what_cannot_be_wanted_is_refused(cloud: Any) -> None:
    cloud.pull()
    device = number(cloud)
    for wanted in ("[]", '{"a b": 1}', '{"": 1}', json.dumps({f"k{n}": n for n in range(201)})):
        with pytest.raises(Exception, match="what is wanted"):
            cloud.site.value("select set_desired_state(%s, %s)", device, wanted)
