from __future__ import annotations

from typing import Any

import pytest
from supabase import PostgrestAPIError

ROWS = [
    {"device_id": "d1", "status": "queued", "priority": 5, "note": "a,b", "tags": ["x", "y"]},
    {"device_id": "d1", "status": "sent", "priority": 1, "note": None, "tags": []},
    {"device_id": "d1", "status": "done", "priority": 3, "note": "100% (sure)", "tags": ["x"]},
    {"device_id": "d2", "status": "queued", "priority": 9, "note": None, "tags": []},
]


@pytest.fixture(autouse=True)
def jobs(shop: Any) -> None:
    with shop.connect() as owner:
        owner.execute("truncate jobs restart identity")
        owner.execute("truncate codes")
        owner.execute("truncate drop_box")
        for row in ROWS:
            owner.execute(
                "insert into jobs (device_id, status, priority, note, tags, payload)"
                " values (%(device_id)s, %(status)s, %(priority)s, %(note)s, %(tags)s,"
                " jsonb_build_object('deep', jsonb_build_object('n', %(priority)s::int)))",
                row,
            )


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [1, 2, 3]),
        ("status=eq.queued", [1]),
        ("status=neq.queued", [2, 3]),
        ("priority=gt.1&priority=lte.3", [3]),
        ("priority=gte.3&priority=lt.5", [3]),
        ("status=in.(queued,sent)", [1, 2]),
        ('note=in.("a,b","x")', [1]),
        ("note=in.()", []),
        ("note=is.null", [2]),
        ("note=not.is.null", [1, 3]),
        ("note=is.not_null", [1, 3]),
        ("status=not.in.(queued,sent)", [3]),
        ("note=like.*%25*", [1, 3]),
        ("note=ilike.A*", [1]),
        ("note=eq.100%25 (sure)", [3]),
        ("tags=cs.{x}", [1, 3]),
        ("tags=ov.{y,z}", [1]),
        ('payload=cs.{"deep":{"n":3}}', [3]),
        ("payload->deep->>n=eq.5", [1]),
        ('or=(status.eq.sent,and(priority.gte.3,note.eq."a,b"))', [1, 2]),
        ("not.or=(status.eq.sent,status.eq.done)", [1]),
        ("created_at=lt.2026-01-02T00:00:00Z", [1, 2, 3]),
        ("id=eq.4", []),
        ("order=priority.desc", [1, 3, 2]),
        ("order=note.asc.nullsfirst", [2, 3, 1]),
        ("order=note.desc.nullslast,id", [1, 3, 2]),
        ("order=payload->deep->n.desc&limit=2&offset=1", [3, 2]),
        ("limit=0", []),
    ],
)
def test_rows_are_chosen_and_ordered(shop: Any, query: str, ids: list[int]) -> None:
    with shop.http(shop.token("d1")) as http:
        answer = http.get(f"/jobs?select=id&{query}")

    assert answer.status_code == 200, answer.text
    found = [row["id"] for row in answer.json()]
    assert (found if "order" in query else sorted(found)) == ids


def test_columns_are_selected_renamed_and_cast(shop: Any) -> None:
    with shop.http(shop.token()) as http:
        answer = http.get(
            "/jobs?select=id,state:status,n:payload->deep->n,p:priority::text&id=eq.1"
        )
        star = http.get("/jobs?select=*&id=eq.1")

    assert answer.json() == [{"id": 1, "state": "queued", "n": 5, "p": "5"}]
    assert set(star.json()[0]) >= {"id", "payload", "created_at"}


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("status=queued", 400, "PGRST100"),
        ("status=in.queued", 400, "PGRST100"),
        ("note=is.nothing", 400, "PGRST100"),
        ("limit=few", 400, "PGRST100"),
        ("order=id.down", 400, "PGRST100"),
        ("select=id,devices(name)", 400, "PGRST127"),
        ("or=status.eq.sent", 400, "PGRST100"),
        ("colour=eq.red", 400, "42703"),
        ("select=colour", 400, "42703"),
        ("a%25s=eq.red", 400, "42703"),
        ("select=id::int);drop table jobs", 400, "PGRST100"),
        ("id=eq.one", 400, "22P02"),
        ("note=eq.%00", 400, "22021"),
        ("id=eq.1;drop table jobs", 400, "22P02"),
        ('note"=eq.1', 400, "42703"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(
    shop: Any, query: str, status: int, code: str
) -> None:
    with shop.http(shop.token()) as http:
        answer = http.get(f"/jobs?{query}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_the_official_client_counts_and_pages(shop: Any) -> None:
    client = shop.client(shop.token())

    page = client.table("jobs").select("id", count="exact").order("id").range(0, 1).execute()
    nothing = client.table("jobs").select("*", count="exact").eq("id", 99).execute()

    assert ([row["id"] for row in page.data], page.count) == ([1, 2], 3)
    assert (nothing.data, nothing.count) == ([], 0)


def test_content_range_tells_what_part_was_sent(shop: Any) -> None:
    with shop.http(shop.token()) as http:
        whole = http.get("/jobs")
        part = http.get("/jobs?limit=2&offset=1&order=id", headers={"Prefer": "count=exact"})
        beyond = http.get("/jobs?offset=7", headers={"Prefer": "count=exact"})
        head = http.head("/jobs", headers={"Prefer": "count=exact"})

    assert (whole.status_code, whole.headers["content-range"]) == (200, "0-2/*")
    assert (part.status_code, part.headers["content-range"]) == (206, "1-2/3")
    assert (beyond.status_code, beyond.json()["code"]) == (416, "PGRST103")
    assert (head.headers["content-range"], head.content) == ("0-2/3", b"")


def test_single_gives_an_object_or_406(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")

    assert table.select("id").eq("id", 2).single().execute().data == {"id": 2}
    assert table.select("id").eq("id", 9).maybe_single().execute() is None
    with pytest.raises(PostgrestAPIError) as caught:
        table.select("id").single().execute()
    assert (caught.value.code, caught.value.details) == ("PGRST116", "The result contains 3 rows")


def test_views_are_read_with_the_rights_of_the_caller(shop: Any) -> None:
    rows = shop.client(shop.token("d2")).table("open_jobs").select("*").execute().data

    assert rows == [{"id": 4, "device_id": "d2", "status": "queued"}]


def test_insert_gives_the_row_back_and_row_security_judges_it(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")

    row = table.insert({"device_id": "d1", "payload": {"a": 1}, "tags": ["t"]}).execute().data[0]
    with pytest.raises(PostgrestAPIError) as caught:
        table.insert({"device_id": "d2"}).execute()

    assert (row["status"], row["payload"], row["tags"]) == ("queued", {"a": 1}, ["t"])
    assert caught.value.code == "42501"


def test_insert_without_a_wish_answers_201_and_needs_no_right_to_read(shop: Any) -> None:
    with shop.http() as http:
        answer = http.post("/drop_box", json={"id": 1, "note": "x"})

    assert (answer.status_code, answer.content) == (201, b"")
    with shop.connect() as owner:
        assert owner.execute("select * from drop_box").fetchall() == [(1, "x")]


def test_many_rows_are_inserted_at_once_or_not_at_all(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")
    rows = [{"device_id": "d1", "note": str(n)} for n in range(3)]

    assert [r["note"] for r in table.insert(rows).execute().data] == ["0", "1", "2"]
    assert table.insert([]).execute().data == []
    with pytest.raises(PostgrestAPIError) as caught:
        table.insert([*rows, {"device_id": "d1", "note": "x", "status": "odd"}]).execute()
    assert caught.value.code in ("23502", "23514")
    assert len(table.select("id").execute().data) == 6


def test_keys_that_are_missing_take_the_default_when_asked(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")
    rows: list[Any] = [{"device_id": "d1", "priority": 4}, {"device_id": "d1", "status": "sent"}]

    made = table.insert(rows, default_to_null=False).execute().data

    assert [(r["priority"], r["status"]) for r in made] == [(4, "queued"), (0, "sent")]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"colour": "red"}, "PGRST204"),
        ([{"device_id": "d1"}, {"note": "x"}], "PGRST102"),
        ([1], "PGRST102"),
        ({"device_id": "d1", "priority": "high"}, "22P02"),
        ({"device_id": "d1", "status": "odd"}, "23514"),
    ],
)
def test_a_row_that_cannot_be_is_refused(shop: Any, body: Any, code: str) -> None:
    with shop.http(shop.token()) as http:
        answer = http.post("/jobs", json=body)

    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_upsert_merges_on_the_key_or_the_named_columns(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")

    table.upsert([{"id": 1, "device_id": "d1", "note": "new"}]).execute()
    table.upsert({"id": 2, "device_id": "d1", "note": "kept?"}, ignore_duplicates=True).execute()
    with shop.http(shop.token()) as http:
        duplicate = http.post("/jobs", json={"id": 1, "device_id": "d1"})
        unknown = http.post(
            "/jobs?on_conflict=note",
            json={"id": 1, "device_id": "d1"},
            headers={"Prefer": "resolution=merge-duplicates"},
        )

    rows = table.select("id,note").in_("id", [1, 2]).order("id").execute().data
    assert rows == [{"id": 1, "note": "new"}, {"id": 2, "note": None}]
    assert (duplicate.status_code, duplicate.json()["code"]) == (409, "23505")
    assert (unknown.status_code, unknown.json()["code"]) == (400, "42P10")


def test_update_changes_what_the_filter_matches_and_nothing_else(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")

    changed = table.update({"status": "done", "payload": {"r": [1]}}).eq("status", "queued")
    rows = changed.execute().data
    with shop.http(shop.token()) as http:
        silent = http.patch("/jobs?id=eq.2", json={"note": None})
        nothing = http.patch("/jobs?id=eq.2", json={})
        foreign = http.patch("/jobs?id=eq.4", json={"note": "mine"})

    assert [(r["id"], r["status"], r["payload"]) for r in rows] == [(1, "done", {"r": [1]})]
    assert {silent.status_code, nothing.status_code, foreign.status_code} == {204}
    with shop.connect() as owner:
        query = "select note from jobs where id = 4"
        assert owner.execute(query).fetchone() == (None,)


def test_an_update_that_must_hit_one_row_and_hits_more_is_undone(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")
    with shop.http(
        shop.token(),
        Accept="application/vnd.pgrst.object+json",
        Prefer="return=representation",
    ) as http:
        answer = http.patch("/jobs?id=in.(1,2)", json={"note": "both"})

    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST116")
    assert table.select("id").eq("note", "both").execute().data == []


def test_delete_gives_back_what_is_gone(shop: Any) -> None:
    table = shop.client(shop.token()).table("jobs")

    gone = table.delete().eq("id", 1).execute().data

    assert [row["id"] for row in gone] == [1]
    assert len(table.select("id").execute().data) == 2


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("query", ["", "?select=id", "?limit=1"])
def test_a_change_without_a_filter_is_refused(shop: Any, method: str, query: str) -> None:
    with shop.http(shop.settings.service_role_key) as http:
        answer = http.request(method, f"/jobs{query}", json={"note": "all"})

    assert answer.status_code == 400
    assert answer.json()["code"] in ("21000", "PGRST100")
    with shop.connect() as owner:
        assert owner.execute("select count(*) from jobs where note = 'all'").fetchone() == (0,)


def test_a_new_column_and_table_are_known_after_the_migration(shop: Any) -> None:
    with shop.connect() as owner:
        owner.execute("create table public.added (id integer primary key)")
        owner.execute("grant select, insert on public.added to authenticated")
    client = shop.client(shop.token())
    assert client.table("added").insert({"id": 1}).execute().data == [{"id": 1}]

    with shop.connect() as owner:
        owner.execute("alter table public.added add column note text default '5%'")

    made = client.table("added").insert([{"id": 2}], default_to_null=False).execute().data
    assert made == [{"id": 2, "note": "5%"}]
