"""Changed rows: who hears of them and what they look like."""

from __future__ import annotations

import re
from typing import Any

import pytest

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
ALL_JOBS = {"event": "*", "schema": "public", "table": "jobs"}


def listen(server: Any, table: str = "jobs", sub: str | None = ONE, **binding: Any) -> Any:
    """Join with one binding and wait until it is live."""
    wire = server.open()
    asked = {"event": "*", "schema": "public", "table": table} | binding
    access_token = server.sign(sub=sub) if sub else server.anon_key
    assert wire.join("rows", access_token=access_token, changes=[asked])["status"] == "ok"
    return wire


def add_job(server: Any, hostname: str, status: str = "queued", **more: Any) -> int:
    """Insert a job and return its id."""
    rows = server.sql(
        "insert into public.jobs (hostname, status, priority, note)"
        " values (%s, %s, %s, %s) returning id",
        hostname,
        status,
        more.get("priority"),
        more.get("note"),
    )
    return int(rows[0][0])


def test_an_insert_has_all_seven_keys(server: Any) -> None:
    wire = listen(server, event="INSERT")

    job = add_job(server, "one", priority=3)
    payload = wire.change()
    data = payload["data"]

    assert len(payload["ids"]) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data.pop("commit_timestamp"))
    assert data == {
        "schema": "public",
        "table": "jobs",
        "type": "INSERT",
        "errors": None,
        "columns": [
            {"name": "id", "type": "int8"},
            {"name": "hostname", "type": "text"},
            {"name": "status", "type": "text"},
            {"name": "priority", "type": "int4"},
            {"name": "note", "type": "text"},
        ],
        "record": {
            "id": job,
            "hostname": "one",
            "status": "queued",
            "priority": 3,
            "note": None,
        },
    }


def test_a_device_hears_of_its_own_rows_only(server: Any) -> None:
    one, two, nobody = (listen(server, sub=sub) for sub in (ONE, TWO, "not a uuid"))

    first, second = add_job(server, "one"), add_job(server, "two")

    assert one.change()["data"]["record"]["id"] == first
    assert two.change()["data"]["record"]["id"] == second
    assert one.settled() == two.settled() == nobody.settled() == []


def test_a_role_that_may_not_select_is_told_so_and_nothing_else(server: Any) -> None:
    wire = listen(server, sub=None)

    add_job(server, "one")

    assert wire.change()["data"] == {
        "schema": "public",
        "table": "jobs",
        "type": "INSERT",
        "errors": ["Error 401: Unauthorized"],
        "columns": [],
        "record": {},
        "commit_timestamp": None,
    }


def test_an_update_names_the_key_of_the_old_row(server: Any) -> None:
    job = add_job(server, "one")
    wire = listen(server, event="UPDATE")

    server.sql("update public.jobs set status = 'done' where id = %s", job)
    data = wire.change()["data"]

    assert (data["type"], data["old_record"]) == ("UPDATE", {"id": job})
    assert data["record"]["status"] == "done"


def test_full_identity_shows_the_whole_old_row_and_fills_what_was_not_written(
    own_server: Any,
) -> None:
    own_server.sql("alter table public.jobs replica identity full")
    note = "x" * 20_000
    job = add_job(own_server, "one", note=note)
    wire = listen(own_server)

    own_server.sql("update public.jobs set status = 'done' where id = %s", job)
    data = wire.change()["data"]

    assert data["old_record"]["status"] == "queued"
    assert data["record"]["note"] == note


def test_a_large_value_that_an_update_leaves_alone_is_absent(own_server: Any) -> None:
    # Random text does not shrink when it is compressed, so it is stored apart from the row.
    own_server.sql("alter table public.jobs alter column note set storage external")
    job = add_job(own_server, "one", note="x" * 20_000)
    wire = listen(own_server)

    own_server.sql("update public.jobs set status = 'done' where id = %s", job)

    assert "note" not in wire.change()["data"]["record"]


def test_a_delete_tells_every_listener_the_key_and_no_more(own_server: Any) -> None:
    own_server.sql("alter table public.jobs replica identity full")
    job = add_job(own_server, "one")
    one, two = listen(own_server, sub=ONE), listen(own_server, sub=TWO)

    own_server.sql("delete from public.jobs where id = %s", job)

    for wire in (one, two):
        data = wire.change()["data"]
        assert (data["type"], data["old_record"]) == ("DELETE", {"id": job})
        assert "record" not in data


def test_a_row_that_moves_to_another_owner_is_heard_there(server: Any) -> None:
    job = add_job(server, "one")
    one, two = listen(server, sub=ONE), listen(server, sub=TWO)

    server.sql("update public.jobs set hostname = 'two' where id = %s", job)

    assert two.change()["data"]["record"]["hostname"] == "two"
    assert one.settled() == []


def test_a_row_that_is_gone_before_it_is_looked_at_is_not_heard(server: Any) -> None:
    wire = listen(server, event="INSERT")

    server.sql(
        "with gone as (insert into public.jobs (hostname) values ('one') returning id)"
        " select id from gone"
    )
    wire.change()
    with server.database.connect() as connection:
        connection.execute("insert into public.jobs (id, hostname) values (900, 'one')")
        connection.execute("delete from public.jobs where id = 900")
    job = add_job(server, "one")

    assert wire.change()["data"]["record"]["id"] == job


def test_changes_committed_before_the_subscription_are_not_heard(server: Any) -> None:
    add_job(server, "one")
    wire = listen(server)
    job = add_job(server, "one")

    assert wire.change()["data"]["record"]["id"] == job


@pytest.mark.parametrize(
    ("text", "status", "priority", "heard"),
    [
        ("status=eq.queued", "queued", 1, True),
        ("status=eq.queued", "done", 1, False),
        ("status=neq.queued", "done", 1, True),
        ("note=neq.x", "queued", 1, False),
        ("priority=lt.5", "queued", 4, True),
        ("priority=lt.5", "queued", 5, False),
        ("priority=lte.5", "queued", 5, True),
        ("priority=gt.5", "queued", 6, True),
        ("priority=gte.5", "queued", 4, False),
        ("priority=gte.5", "queued", None, False),
        ("status=gt.done", "queued", 1, True),
        ("status=in.(queued,failed)", "failed", 1, True),
        ("status=in.(queued,failed)", "done", 1, False),
        ('status=in.("a,b",c)', "a,b", 1, True),
        ('status=eq."a,b"', "a,b", 1, True),
        ("priority=in.(1,2)", "queued", 2, True),
        ("note=is.null", "queued", 1, True),
        ("note=not.is.null", "queued", 1, False),
        ("note=isdistinct.x", "queued", 1, True),
        ("status=like.que%", "queued", 1, True),
        ("status=ilike.QUE%", "queued", 1, True),
        ("status=not.match.^d", "queued", 1, True),
        ("status=eq.queued,priority=gt.1", "queued", 2, True),
        ("status=eq.queued,priority=gt.1", "queued", 1, False),
    ],
)
def test_filters_decide_which_rows_are_heard(
    server: Any, text: str, status: str, priority: int | None, heard: bool
) -> None:
    wire = listen(server, filter=text)
    end = server.open()
    end.join("end", access_token=server.sign(sub=ONE), changes=[ALL_JOBS])

    add_job(server, "one", status, priority=priority)
    end.change()

    assert len(wire.settled()) == heard


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        ({"filter": "nosuch=eq.1"}, "invalid column for filter nosuch"),
        ({"filter": "priority=eq.abc"}, 'invalid input syntax for type integer: "abc"'),
        ({"filter": "priority=like.a"}, "operator like requires a text-compatible column type"),
        ({"filter": "status=is.true"}, "requires a boolean column"),
        ({"filter": "status"}, "Error parsing `filter` params"),
        ({"filter": "status=near.1"}, "Error parsing `filter` params"),
        ({"filter": "status=in.(" + ",".join("a" * 101) + ")"}, "Maximum 100"),
        ({"table": "private_notes"}, "Unable to subscribe to changes with given parameters"),
        ({"table": "nosuch"}, "Unable to subscribe to changes with given parameters"),
        ({"table": "*", "select": ["id"]}, "Column selection is not supported for wildcard"),
        ({"table": "*", "filter": "id=eq.1"}, "Error parsing `filter` params"),
        ({"table": "board", "select": ["secret"]}, "invalid column for select secret"),
    ],
)
def test_a_bad_subscription_is_refused_after_the_join(
    server: Any, binding: dict[str, Any], text: str
) -> None:
    wire = server.open()
    asked = ALL_JOBS | binding
    payload = {"config": {"postgres_changes": [asked]}, "access_token": server.sign(sub=ONE)}

    assert wire.ask("realtime:rows", "phx_join", payload)["status"] == "ok"
    message = wire.system("rows")

    assert (message["extension"], message["status"]) == ("postgres_changes", "error")
    assert text in message["message"]


def test_a_binding_without_anything_to_listen_to_is_refused(server: Any) -> None:
    wire = server.open()

    wire.ask("realtime:rows", "phx_join", {"config": {"postgres_changes": [{"event": "*"}]}})

    assert wire.system("rows")["message"].startswith("No subscription params provided")


def test_a_schema_alone_means_every_published_table(server: Any) -> None:
    wire = server.open()
    everything = {"event": "*", "schema": "public"}
    wire.join("rows", access_token=server.sign(sub=ONE), changes=[everything])

    server.sql("insert into public.private_notes (id) values (1)")
    add_job(server, "one")
    server.sql("insert into public.board (id) values (1)")

    assert [wire.change()["data"]["table"] for _ in range(2)] == ["jobs", "board"]


def test_one_frame_carries_the_ids_of_all_bindings_that_match(server: Any) -> None:
    wire = server.open()
    bindings = [ALL_JOBS, ALL_JOBS | {"event": "INSERT"}, ALL_JOBS | {"filter": "status=eq.x"}]
    reply = wire.join("rows", access_token=server.sign(sub=ONE), changes=bindings)
    ids = [one["id"] for one in reply["response"]["postgres_changes"]]

    add_job(server, "one")

    assert wire.change()["ids"] == ids[:2]
    assert wire.settled() == []


def test_columns_that_a_role_may_not_read_are_left_out(server: Any) -> None:
    wire = listen(server, "board")

    server.sql("insert into public.board values (2, 'for all', 'for nobody')")
    data = wire.change()["data"]

    assert data["record"] == {"id": 2, "note": "for all"}
    assert [column["name"] for column in data["columns"]] == ["id", "note"]


def test_selected_columns_come_with_the_key(server: Any) -> None:
    wire = listen(server, select=["status"])

    job = add_job(server, "one")

    assert wire.change()["data"]["record"] == {"id": job, "status": "queued"}


def test_a_table_without_a_key_cannot_be_checked(server: Any) -> None:
    wire = listen(server, "keyless")

    server.sql("insert into public.keyless values ('x')")

    assert wire.change()["data"]["errors"] == ["Error 400: Bad Request, no primary key"]


def test_a_record_that_is_too_large_keeps_its_small_values(run_server: Any) -> None:
    server = run_server(max_record_bytes=1000)
    server.wait_until_live()
    wire = listen(server)

    job = add_job(server, "one", note="x" * 2000)
    data = wire.change()["data"]

    assert data["errors"] == ["Error 413: Payload Too Large"]
    assert data["record"] == {"id": job, "hostname": "one", "status": "queued"}


def test_values_look_as_the_hosted_server_writes_them(server: Any) -> None:
    wire = listen(server, "samples")

    server.sql(
        """
        insert into public.samples values (
          1, 2, 9007199254740993, 12.5, 0.1, true, 'te"xt', 'sad',
          'aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa', '1 day 2 hours', '{"a": [1, null]}',
          '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05.678901+02', '2026-01-02',
          '\\xdeadbeef', '{1,2,null}', '{"a b",c}', null
        )
        """
    )
    frame = wire.connection.recv(timeout=5)
    record = wire.read(frame).payload["data"]["record"]

    assert record == {
        "id": 1,
        "small": 2,
        "big": 9007199254740993,
        "exact": 12.5,
        "wide": 0.1,
        "yes": True,
        "label": 'te"xt',
        "feeling": "sad",
        "key": "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa",
        "span": "1 day 02:00:00",
        "meta": {"a": [1, None]},
        "local_time": "2026-01-02T03:04:05.678901",
        "instant": "2026-01-02T01:04:05.678901+00:00",
        "day": "2026-01-02",
        "raw": "deadbeef",
        "numbers": [1, 2, None],
        "words": ["a b", "c"],
        "nothing": None,
    }
    assert '"exact":12.500,' in frame


def test_a_policy_that_raises_silences_only_whom_it_raises_for(own_server: Any) -> None:
    own_server.sql(
        "create policy jobs_fragile on public.jobs for select to authenticated"
        " using ((auth.jwt() ->> 'sub')::uuid is null)"
    )
    fragile, sound = listen(own_server, sub="not a uuid"), listen(own_server, sub=ONE)

    job = add_job(own_server, "one")

    assert sound.change()["data"]["record"]["id"] == job
    assert fragile.settled() == []
