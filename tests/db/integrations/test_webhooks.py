"""What an MDM tells on its secret address, and what is done about it: a look, and no more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.helpers.fleet import Fleet
from tests.helpers.integration_webhook import activity, tell, webhook
from tests.helpers.mdm import SECRET, Mdm

EVENTS = ("device.enrolled", "device.unenrolled", "device.changed_group", "device.lock.enabled")


def hint(number: int | str | None = 7, event: str = EVENTS[0], at: str | None = "t1") -> Any:
    device = {"serial_number": "S7"} if number is None else {"id": number, "serial_number": "S7"}
    return {"type": event, "at": at, "data": {"device": device}}


def claim(mdm: Mdm, now: datetime | None = None) -> list[dict[str, Any]]:
    query = "select fleet.worker_claim_mdm_rereads('{}', coalesce(%s, clock_timestamp())) as job"
    return [row["job"] for row in mdm.fleet.rows(query, now)]


def finish(mdm: Mdm, job: dict[str, Any], *devices: Any, **said: Any) -> dict[str, Any]:
    answer: dict[str, Any] = mdm.fleet.value(
        "select fleet.worker_finish_mdm_reread(%s, %s, %s, null, coalesce(%s, clock_timestamp()))",
        Jsonb(job),
        Jsonb(list(devices)),
        said.get("error"),
        said.get("now"),
    )
    return answer


def waiting(mdm: Mdm) -> list[str]:
    rows = mdm.fleet.rows("select external_id from fleet.mdm_rereads order by 1")
    return [row["external_id"] for row in rows]


def is_gone(mdm: Mdm) -> bool:
    found: bool = mdm.fleet.value("select bool_and(left_at is not null) from device_links")
    return found


@pytest.mark.parametrize("event", [*EVENTS, "abm.device.added"])
def test_each_event_asks_for_a_look_at_its_device(mdm: Any, event: str) -> None:
    assert tell(mdm, webhook(mdm), hint(event=event)) == {"status": "completed", "is_new": True}

    [job] = claim(mdm)
    assert (job["external_id"], job["integration_id"], job["secret"]) == ("7", mdm.id, SECRET)
    row = mdm.fleet.row("select * from integration_activity_log")
    assert row["detail"] == {"event": event, "at": "t1", "external_id": "7", "serial_number": "S7"}
    assert (row["activity_type"], row["owner_id"]) == ("webhook_received", mdm.fleet.owner_id)


@pytest.mark.parametrize("number", [None, "", "1/../2", "x", {"a": 1}, -1, "9" * 30])
def test_one_that_names_no_device_by_id_asks_for_a_sync(mdm: Any, number: Any) -> None:
    before = mdm.fleet.value("select sync_requested_at from device_integrations")
    tell(mdm, webhook(mdm), hint(number, "abm.device.added"))

    assert (before, waiting(mdm)) == (None, [])
    assert mdm.fleet.value("select sync_requested_at from device_integrations") is not None


@pytest.mark.parametrize(
    "body", [{}, {"type": "device.repainted", "data": 7}, {"type": ["x"]}, {"data": {"device": []}}]
)
def test_what_says_nothing_to_us_is_logged_and_ignored(mdm: Any, body: Any) -> None:
    assert tell(mdm, webhook(mdm), body)["status"] == "ignored"
    assert (activity(mdm), waiting(mdm)) == ([("webhook_received", "ignored")], [])
    assert mdm.fleet.value("select sync_requested_at from device_integrations") is None


def test_the_same_news_is_stored_once_on_any_address(mdm: Any) -> None:
    first, second = webhook(mdm), webhook(mdm)
    answers = [tell(mdm, token, hint()) for token in (first, first, second)]

    assert [one["is_new"] for one in answers] == [True, False, False]
    assert len(activity(mdm)) == 1
    for other in (hint(8), hint(at="t2"), hint(event=EVENTS[1])):
        assert tell(mdm, first, other)["is_new"] is True


def test_a_flood_about_one_device_costs_one_look(mdm: Any) -> None:
    token = webhook(mdm)
    for number in range(50):
        tell(mdm, token, hint(at=f"t{number}"))
    [job] = claim(mdm)
    finish(mdm, job, {"external_id": "7", "name": "a"})
    assert waiting(mdm) == []

    # What comes right after that look is answered by one more, a few seconds later.
    for number in range(50, 100):
        tell(mdm, token, hint(at=f"t{number}"))
    assert claim(mdm) == []
    assert mdm.fleet.value("select fleet.has_mdm_rereads(%s, %s)", mdm.id, mdm.now(6)) is True
    assert len(claim(mdm, mdm.now(6))) == 1


def test_news_that_come_during_a_look_bring_another(mdm: Any) -> None:
    token = webhook(mdm)
    tell(mdm, token, hint(at="t1"))
    [job] = claim(mdm)
    tell(mdm, token, hint(at="t2"))
    finish(mdm, job, {"external_id": "7", "name": "a"})

    assert claim(mdm) == []
    [again] = claim(mdm, mdm.now(6))
    finish(mdm, again, {"external_id": "7", "name": "a"})
    assert waiting(mdm) == []


def test_a_look_brings_a_device_in_and_takes_it_away(mdm: Any) -> None:
    token = webhook(mdm)
    found = {"external_id": "7", "name": "a", "serial_number": "S7"}
    at = mdm.now()
    for number, (seen, is_away) in enumerate(
        [([found], False), ([], True), ([found], False), ([found | {"is_enrolled": False}], True)]
    ):
        at = mdm.now(60 * number)
        tell(mdm, token, hint(at=f"t{number}"), at)
        [job] = claim(mdm, at)
        assert finish(mdm, job, *seen, now=at)["accepted"] is True
        assert is_gone(mdm) is is_away
    assert mdm.fleet.value("select count(*) from devices") == 1


def test_a_device_that_never_was_is_no_news(mdm: Any) -> None:
    tell(mdm, webhook(mdm), hint())
    [job] = claim(mdm)
    finish(mdm, job)

    assert (waiting(mdm), mdm.fleet.value("select count(*) from devices")) == ([], 0)


def test_a_look_that_fails_is_tried_less_and_less_often_and_then_no_more(mdm: Any) -> None:
    device = mdm.device()
    at = mdm.now(60)
    tell(mdm, webhook(mdm), hint(100_000 + device), at)
    pauses = []
    while jobs := claim(mdm, at):
        finish(mdm, jobs[0], error="the MDM answered 503", now=at)
        found = mdm.fleet.rows("select look_at from fleet.mdm_rereads")
        if found:
            pauses.append((found[0]["look_at"] - at).total_seconds())
            at = found[0]["look_at"]

    assert pauses == [20, 40, 80, 160, 320, 640, 1280]
    assert (waiting(mdm), is_gone(mdm)) == ([], False)


def test_a_function_that_was_killed_loses_no_look(mdm: Any) -> None:
    tell(mdm, webhook(mdm), hint())
    [lost] = claim(mdm)
    assert claim(mdm, mdm.now(30)) == []
    [job] = claim(mdm, mdm.now(61))
    # The first one comes late, with a failure: the other is at it.
    finish(mdm, lost, error="too late")

    assert claim(mdm, mdm.now(62)) == []
    finish(mdm, job, {"external_id": "7", "name": "a"})
    assert waiting(mdm) == []


def test_looks_wake_the_function_and_wait_while_it_rests(mdm: Any) -> None:
    mdm.fleet.run("update device_integrations set settings = '{\"syncEnabled\": false}'")
    token, work = webhook(mdm), "select fleet.has_mdm_work(clock_timestamp())"
    assert mdm.fleet.value(work) is False
    tell(mdm, token, hint())
    assert mdm.fleet.value(work) is True
    mdm.fleet.run("select pause_integration(%s, 'holidays')", mdm.id)

    assert (mdm.fleet.value(work), claim(mdm)) == (False, [])
    mdm.fleet.run("select resume_integration(%s)", mdm.id)
    assert len(claim(mdm)) == 1


def test_a_webhook_does_not_wait_for_the_tick(mdm: Any) -> None:
    url = "select fleet.set_setting('functions_url', '\"http://127.0.0.1:9/functions/v1\"')"
    mdm.fleet.run(url)
    token = webhook(mdm)
    for number in range(20):
        tell(mdm, token, hint(at=f"t{number}"))

    queued = mdm.fleet.rows("select url from net.http_request_queue")
    assert [row["url"].rsplit("/", 1)[1] for row in queued].count("mdm-dispatch") == 1


def test_one_that_is_disabled_does_nothing(mdm: Any) -> None:
    token = webhook(mdm)
    mdm.fleet.run("update device_integrations set status = 'disabled'")

    assert tell(mdm, token, hint())["status"] == "ignored"
    assert waiting(mdm) == []


def test_what_another_kind_of_system_tells_is_ignored_yet(mdm: Any) -> None:
    token = webhook(mdm)
    mdm.fleet.run(
        "update device_integrations set integration_type = 'golioth',"
        ' settings = \'{"projectId": "acme-demo"}\''
    )

    assert tell(mdm, token, hint())["status"] == "ignored"
    error = mdm.fleet.value("select error from integration_activity_log")
    assert error == "nothing is known of webhooks of golioth"


def test_an_address_is_shown_once_and_revoked_by_itself(mdm: Any) -> None:
    mdm.fleet.run("select fleet.set_setting('functions_url', '\"https://f.example.com\"')")
    made = mdm.fleet.value("select create_integration_webhook(%s)", mdm.id)
    other = webhook(mdm)
    assert made["url"] == f"https://f.example.com/integration-webhook/{made['token']}"
    assert made["path"] == f"/integration-webhook/{made['token']}"
    stored = mdm.fleet.value("select jsonb_agg(to_jsonb(w)) from integration_webhooks as w")
    assert made["token"] not in str(stored)

    mdm.fleet.run("select revoke_integration_webhook(%s)", made["id"])

    for token in (made["token"], "x" * 43, ""):
        with mdm.fleet.refused("PT404", "integration_webhook_not_found"):
            tell(mdm, token, hint())
    assert tell(mdm, other, hint())["is_new"] is True
    actions = mdm.fleet.rows(
        "select action, new::text from audit_log where table_name = 'integration_webhooks'"
        " order by id"
    )
    assert [row["action"] for row in actions] == ["insert", "insert", "update"]
    assert "token_hash" not in str(actions)


def test_only_who_manages_makes_and_revokes_addresses(mdm: Any) -> None:
    made = mdm.fleet.value("select create_integration_webhook(%s)", mdm.id)
    create = "select create_integration_webhook(%s)"
    revoke = "select revoke_integration_webhook(%s)"
    operator, stranger = mdm.person("view", "operate"), Fleet(mdm.fleet.conn).owner_id
    for person, code, query, number, reason in (
        (operator, "PT403", create, mdm.id, "permission_missing"),
        (operator, "PT403", revoke, made["id"], "permission_missing"),
        (stranger, "PT404", create, mdm.id, "integration_not_found"),
        (stranger, "PT404", revoke, made["id"], "integration_webhook_not_found"),
    ):
        with mdm.fleet.refused(code, reason), mdm.fleet.acting(person):
            mdm.fleet.run(query, number)
    with mdm.fleet.acting(mdm.person("view", "manage")):
        mdm.fleet.run(create, mdm.id)
        mdm.fleet.run(revoke, made["id"])


def test_every_sync_is_logged_with_how_it_ended(mdm: Any) -> None:
    began, page = mdm.now(-2), [{"external_id": "1", "name": "a"}]
    mdm.fleet.run("select fleet.worker_sync_inventory(%s, %s)", mdm.id, Jsonb(page))
    end = "select fleet.worker_end_mdm_sync(%s, %s, %s)"
    report = {
        "counts": {"devices": 1, "created": 1},
        "errors": [{"external_id": "2", "error": "e"}],
    }
    mdm.fleet.run(end, mdm.id, began, Jsonb(report))
    failure = {"counts": {"devices": 9}, "error": f"key {SECRET} was refused"}
    told = [{"external_id": str(number), "error": SECRET} for number in range(30)]
    mdm.fleet.run(end, mdm.id, mdm.now(5), Jsonb(failure | {"errors": told}))

    good, bad = mdm.fleet.rows("select * from integration_activity_log order by id")
    assert (good["status"], good["counts"]) == (
        "completed",
        {"devices": 1, "created": 1, "left": 0},
    )
    assert good["detail"] == {"errors": [{"external_id": "2", "error": "e"}]}
    assert 2000 <= good["duration_ms"] < 60_000
    assert (bad["status"], bad["error"]) == ("failed", "key *** was refused")
    assert len(bad["detail"]["errors"]) == 20
    assert SECRET not in str(bad)
    # The one that failed read nothing to its end.
    assert mdm.fleet.value("select last_sync_at from device_integrations") == began
    assert is_gone(mdm) is False


def test_old_activity_is_forgotten(mdm: Any) -> None:
    tell(mdm, webhook(mdm), hint())
    prune = "select fleet.prune_batch('public.integration_activity_log', now() + %s::interval)"
    mdm.fleet.run(prune, "29 days")
    assert len(activity(mdm)) == 1
    mdm.fleet.run(prune, "31 days")
    assert activity(mdm) == []


def test_people_of_the_owner_see_activity_and_devices_do_not(mdm: Any) -> None:
    device = mdm.device()
    tell(mdm, webhook(mdm), hint())
    seen = "select (select count(id) from integration_activity_log), (select count(id) from %s)"
    seen %= "integration_webhooks"
    for person, counts in (
        (mdm.person("view"), [1, 1]),
        (Fleet(mdm.fleet.conn).owner_id, [0, 0]),
        (mdm.fleet.auth_id(device), [0, 0]),
    ):
        with mdm.fleet.acting(person):
            assert list(mdm.fleet.conn.execute(seen.encode()).fetchone() or ()) == counts
    with mdm.fleet.acting(mdm.person("view")), pytest.raises(psycopg.Error) as refused:
        mdm.fleet.run("select token_hash from integration_webhooks")
    assert refused.value.sqlstate == "42501"


def test_functions_share_the_looks(connect: Callable[..., Fleet]) -> None:
    first = connect()
    made = first.row(
        "select id from create_integration(%s)",
        Jsonb({"integration_type": "simplemdm", "owner_id": str(first.owner_id)}),
    )
    mdm = Mdm(first, made["id"])
    token = webhook(mdm)
    sessions = [Mdm(connect(owner=first), mdm.id) for _ in range(4)]

    def run(one: Mdm) -> list[str]:
        for number in range(40):
            tell(one, token, hint(number))
        return [job["external_id"] for _ in range(5) for job in claim(one)]

    with ThreadPoolExecutor(4) as pool:
        taken = [name for names in pool.map(run, sessions) for name in names]

    assert sorted(taken, key=int) == [str(number) for number in range(40)]
    assert len(activity(mdm)) == 40
